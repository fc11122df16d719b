"""The CUDA kernels' index maps, run on the host, against the formula of `ops/_shape.py`.

Forward, every phase of the mirrored direction, im2col and col2im: each map is written into a table
of what every destination reads through every weight, and the tables are compared.
"""

from __future__ import annotations

import ctypes
import os
import random
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from cases import CASES, TILE_CASES, ConvCase
from numpy.typing import NDArray
from on_host import Kernels, numbers

from pydenoise.ops._shape import extent

FORWARD, MIRRORED, IM2COL, COL2IM = range(4)
Table = NDArray[np.int64]


class Map(NamedTuple):
    """source[m, k] is -1 outside; the element of dest of row m, of the weights of step k."""

    source: Table
    of_row: Table
    of_step: Table


def index_map(
    kernels: Kernels, case: ConvCase, kind: int, lasts: tuple[bool, bool], phase: int
) -> Map:
    shape = (ctypes.c_int64 * 16)(*numbers(case))
    counts = np.zeros(2, np.int32)
    arguments = shape, kind, *lasts, ctypes.c_int64(phase), _address(counts)
    kernels.index.index_map(*arguments, None, None, None)
    source = np.full(tuple(counts), -2, np.int64)
    of_row, of_step = (np.zeros(count, np.uint32) for count in counts)
    astray = kernels.index.index_map(*arguments, *map(_address, (source, of_row, of_step)))
    assert astray == 0, f"{case}: {astray} products past the end are inside"
    return Map(source, of_row.astype(np.int64), of_step.astype(np.int64))


def _address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def offsets(size: tuple[int, int, int, int], channels_last: bool) -> Table:
    """The element in memory of every (n, c, y, x)."""
    n, c, h, w = size
    if channels_last:
        return np.arange(n * c * h * w).reshape(n, h, w, c).transpose(0, 3, 1, 2)
    return np.arange(n * c * h * w).reshape(size)


def meetings(case: ConvCase) -> tuple[Table, ...]:
    """Every (oh, ow, i, j, ih, iw) where an output pixel meets an input pixel through a tap."""
    found = []
    for axis in (0, 1):
        out, tap = np.mgrid[: case.output_size[2 + axis], : case.kernel[axis]].reshape(2, -1)
        read = out * case.stride[axis] - case.padding[axis] + tap * case.dilation[axis]
        inside = (read >= 0) & (read < case.size[axis])
        found.append(np.stack([out, tap, read])[:, inside])
    rows, cols = np.indices((found[0].shape[1], found[1].shape[1])).reshape(2, -1)
    (oh, i, ih), (ow, j, iw) = found[0][:, rows], found[1][:, cols]
    return oh, ow, i, j, ih, iw


def wanted(case: ConvCase, mirrored: bool, lasts: tuple[bool, bool]) -> Table:
    """What element of the source each element of channel 0 of dest reads through each weight."""
    oh, ow, i, j, ih, iw = meetings(case)
    inputs, outputs = offsets(case.input_size, lasts[0]), offsets(case.output_size, lasts[1])
    weights = np.arange(np.prod(case.weight_size)).reshape(case.weight_size)
    table = np.full((outputs.size if not mirrored else inputs.size, weights.size), -1)
    for n in range(case.batch):
        for c in range((case.channels[1] if mirrored else case.channels[0]) // case.groups):
            if mirrored:
                table[inputs[n, 0, ih, iw], weights[c, 0, i, j]] = outputs[n, c, oh, ow]
            else:
                table[outputs[n, 0, oh, ow], weights[0, c, i, j]] = inputs[n, c, ih, iw]
    return table


def check_convolution(kernels: Kernels, case: ConvCase, lasts: tuple[bool, bool]) -> None:
    for kind in (FORWARD, MIRRORED):
        right = wanted(case, kind == MIRRORED, lasts)
        table = np.full_like(right, -1)
        for phase in range(phases(case) if kind == MIRRORED else 1):
            found = index_map(kernels, case, kind, lasts, phase)
            table[found.of_row[:, None], found.of_step] = found.source
        np.testing.assert_array_equal(table, right, f"{case}, kind {kind}, {lasts}")


def check_patches(kernels: Kernels, case: ConvCase, lasts: tuple[bool, bool]) -> None:
    oh, ow, i, j, ih, iw = meetings(case)
    inputs = offsets(case.input_size, lasts[0])
    columns = np.arange(np.prod(case.columns_size)).reshape(
        case.batch, case.channels[0], *case.kernel, *case.output_size[2:]
    )
    right = np.full(columns.size, -1)
    right[columns[:, :, i, j, oh, ow]] = inputs[:, :, ih, iw]
    found = index_map(kernels, case, IM2COL, lasts, 0)
    table = np.full(columns.size, -2)
    table[found.of_row[:, None] + found.of_step] = found.source
    np.testing.assert_array_equal(table, right, f"{case}, im2col, {lasts}")

    taps = case.kernel[0] * case.kernel[1]
    right = np.full((inputs.size, taps), -1)
    right[inputs[:, 0, ih, iw], i * case.kernel[1] + j] = columns[:, 0, i, j, oh, ow]
    table = np.full_like(right, -1)
    pixels = case.output_size[2] * case.output_size[3]
    for phase in range(phases(case)):
        found = index_map(kernels, case, COL2IM, lasts, phase)
        rows, steps = np.nonzero(found.source >= 0)
        tap = found.source[rows, steps] // pixels % taps
        assert (np.diff(steps)[np.diff(rows) == 0] > 0).all()
        assert (np.diff(tap)[np.diff(rows) == 0] > 0).all(), f"{case}: taps out of order"
        table[found.of_row[rows], tap] = found.source[rows, steps]
    np.testing.assert_array_equal(table, right, f"{case}, col2im, {lasts}")


def phases(case: ConvCase) -> int:
    return min(case.stride[0], case.size[0]) * min(case.stride[1], case.size[1])


def random_case(generator: random.Random, number: int) -> ConvCase:
    """A small convolution of any kind, now and then with less output than there could be."""
    pick = generator.randint
    while True:
        groups = pick(1, 2)
        size = pick(1, 9), pick(1, 9)
        kernel = pick(1, 4), pick(1, 4)
        stride, dilation = (pick(1, 5), pick(1, 3)), (pick(1, 3), pick(1, 4))
        padding = pick(0, 4), pick(0, 3)
        room = [extent(*side) for side in zip(size, kernel, stride, padding, dilation, strict=True)]
        if min(room) < 1:
            continue
        missing = tuple(pick(0, min(2, most - 1)) if pick(0, 3) == 0 else 0 for most in room)
        channels = groups * pick(1, 3), groups * pick(1, 3)
        return ConvCase(
            f"random-{number}", "", pick(1, 2), channels, size, kernel, stride, padding, dilation,
            groups, bool(pick(0, 1)), missing,
        )  # fmt: skip


@pytest.mark.parametrize("case", CASES + TILE_CASES, ids=str)
def test_case(kernels: Kernels, case: ConvCase) -> None:
    """With few channels, which all move alike: the tables of many are large."""
    few = replace(
        case, channels=tuple(case.groups * min(c // case.groups, 5) for c in case.channels)
    )
    for lasts in ((False, False), (True, True), (False, True)):
        check_convolution(kernels, few, lasts)
        check_patches(kernels, few, lasts)


def test_random_shapes(kernels: Kernels) -> None:
    """Other shapes in every run; a failure says how to have its own again."""
    seed = int(os.environ.get("PYDENOISE_TEST_SEED") or random.SystemRandom().getrandbits(32))
    generator = random.Random(seed)
    for number in range(2000):
        case = random_case(generator, number)
        lasts = bool(generator.getrandbits(1)), bool(generator.getrandbits(1))
        try:
            check_convolution(kernels, case, lasts)
            check_patches(kernels, case, lasts)
        except Exception as error:
            error.add_note(f"PYDENOISE_TEST_SEED={seed} draws these shapes again; number {number}")
            raise
