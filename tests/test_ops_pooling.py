"""Pooling and upsampling against torch, values, places and gradients."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import oracle
import pytest
import torch
import torch.nn.functional as F
from conftest import Place, Room
from oracle import assert_same_bits, assert_within
from torch import Tensor

from pydenoise import ops

Pair = tuple[int, int]


class PoolCase(NamedTuple):
    """A pooling window over a picture; `str` says why it is there."""

    reason: str
    size: tuple[int, int, int, int]
    kernel: Pair
    stride: Pair | None = None
    padding: Pair = (0, 0)

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")

    @property
    def window(self) -> tuple[Pair, Pair | None, Pair]:
        return self.kernel, self.stride, self.padding


CASES = [
    PoolCase("usual", (2, 5, 8, 6), (2, 2)),
    PoolCase("rest left over", (2, 3, 7, 9), (2, 2)),
    PoolCase("overlapping", (2, 3, 9, 8), (3, 3), (2, 1), (1, 1)),
    PoolCase("overlapping most", (1, 2, 6, 7), (5, 4), (1, 1), (2, 2)),
    PoolCase("gaps between", (2, 3, 11, 13), (2, 3), (5, 4), (0, 1)),
    PoolCase("whole picture", (3, 17, 4, 5), (4, 5)),
    PoolCase("one pixel", (2, 3, 4, 5), (1, 1)),
    PoolCase("one pixel skipping", (2, 3, 4, 5), (1, 1), (2, 3)),
    PoolCase("rows only", (2, 3, 1, 9), (1, 3), (1, 2), (0, 1)),
    PoolCase("single channel", (2, 1, 6, 6), (2, 2)),
    PoolCase("no pictures", (0, 3, 6, 6), (2, 2)),
]
each = pytest.mark.parametrize("case", CASES, ids=str)


def draw(size: tuple[int, ...], dtype: torch.dtype, reason: str = "") -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(reason.encode()) + sum(size))
    return torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)


def put(x: Tensor, place: Place, memory_format: torch.memory_format) -> Tensor:
    return room(tuple(x.shape), x, place, memory_format).tensor.copy_(x)


def room(
    size: tuple[int, ...], like: Tensor, place: Place, memory_format: torch.memory_format
) -> Room:
    return Room(size, like.dtype, memory_format, place.device)


@each
def test_max_pool(
    case: PoolCase, place: Place, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = draw(case.size, dtype, case.reason)
    wanted, places = oracle.max_pool2d(x, *case.window)
    result = room(tuple(wanted.shape), x, place, memory_format)
    values, indices = ops.max_pool2d(put(x, place, memory_format), *case.window, out=result.tensor)
    assert values is result.tensor
    assert indices.dtype == torch.int64
    assert_same_bits(values.cpu(), wanted, case)
    assert torch.equal(indices.cpu(), places)
    result.assert_untouched_around()

    gz = draw(tuple(wanted.shape), dtype, case.reason + "g")
    result = room(case.size, x, place, memory_format)
    here = put(gz, place, memory_format)
    ops.max_pool2d_backward(here, indices, case.size, out=result.tensor)
    assert_within(result.tensor, oracle.max_pool2d_backward(gz, x, *case.window), case)
    result.assert_untouched_around()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_max_pool_of_ties_and_specials(value: float, place: Place, dtype: torch.dtype) -> None:
    """Of equal values the first wins, a NaN beats all, and -inf everywhere still has a place."""
    x = draw((2, 3, 9, 10), dtype).mul(2).round()
    x[:, :, 2:5, 3:8] = value
    x[0, 0] = value
    for window in [((2, 2), None, (0, 0)), ((3, 3), (1, 2), (1, 1)), ((4, 3), (2, 2), (2, 1))]:
        values, indices = ops.max_pool2d(x.to(place.device), *window)
        wanted, places = oracle.max_pool2d(x, *window)
        assert_same_bits(values.cpu(), wanted, window)
        assert torch.equal(indices.cpu(), places)


@each
def test_avg_pool(
    case: PoolCase, place: Place, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = draw(case.size, dtype, case.reason)
    right = oracle.avg_pool2d(x, *case.window)
    result = room(tuple(right.values.shape), x, place, memory_format)
    here = put(x, place, memory_format)
    assert ops.avg_pool2d(here, *case.window, out=result.tensor) is result.tensor
    assert_within(result.tensor, right, case)
    result.assert_untouched_around()

    gz = draw(tuple(right.values.shape), dtype, case.reason + "g")
    result = room(case.size, x, place, memory_format)
    here = put(gz, place, memory_format)
    ops.avg_pool2d_backward(here, case.size, *case.window, out=result.tensor)
    right = oracle.avg_pool2d_backward(gz, case.size, *case.window)
    assert_within(result.tensor, right, case)
    result.assert_untouched_around()


@pytest.mark.parametrize("factor", [1, 2, (3, 2), (1, 4)], ids=str)
@pytest.mark.parametrize("size", [(2, 3, 5, 4), (1, 1, 1, 1), (0, 2, 3, 3)], ids=str)
def test_upsampling(
    factor: int | Pair,
    size: tuple[int, int, int, int],
    place: Place,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> None:
    fh, fw = (factor, factor) if isinstance(factor, int) else factor
    x = draw(size, dtype)
    wanted = x.repeat_interleave(fh, 2).repeat_interleave(fw, 3)
    result = room(tuple(wanted.shape), x, place, memory_format)
    ops.upsample_nearest2d(put(x, place, memory_format), factor, out=result.tensor)
    assert_same_bits(result.tensor.cpu(), wanted, factor)
    result.assert_untouched_around()

    gz = draw(tuple(wanted.shape), dtype)
    result = room(size, x, place, memory_format)
    ops.upsample_nearest2d_backward(put(gz, place, memory_format), factor, out=result.tensor)
    assert_within(result.tensor, oracle.upsample_nearest2d_backward(gz, (fh, fw)), factor)
    result.assert_untouched_around()


def test_gradients_are_adjoints(place: Place) -> None:
    """<pool(x), g> = <x, backward(g)>, with the winners held where the operation is a choice."""
    for case in CASES:
        x = draw(case.size, torch.float64, case.reason).to(place.device)
        z, indices = ops.max_pool2d(x, *case.window)
        g = draw(tuple(z.shape), torch.float64, case.reason + "g").to(place.device)
        pairs = [
            (z, ops.max_pool2d_backward(g, indices, case.size)),
            (
                ops.avg_pool2d(x, *case.window),
                ops.avg_pool2d_backward(g, case.size, *case.window),
            ),
        ]
        for z, gx in pairs:
            scale = float((z * g).abs().sum()) + 1.0
            assert abs(float((z * g).sum()) - float((x * gx).sum())) <= 1e-12 * scale


def test_layouts_and_formats(place: Place, dtype: torch.dtype) -> None:
    """Any strides in; the result dense and in the input's memory format."""
    x = draw((2, 3, 8, 6), dtype).to(place.device)
    g = draw((2, 3, 4, 3), dtype).to(place.device)
    _, indices = ops.max_pool2d(x, 2)
    calls = [
        (lambda x: ops.max_pool2d(x, 2)[0], x),
        (lambda g: ops.max_pool2d_backward(g, indices, x.shape), g),
        (lambda x: ops.avg_pool2d(x, 2), x),
        (lambda g: ops.avg_pool2d_backward(g, x.shape, 2), g),
        (lambda x: ops.upsample_nearest2d(x, 3), x),
        (lambda g: ops.upsample_nearest2d_backward(g, (2, 3)), g),
    ]
    for call, plain in calls:
        wanted = call(plain)
        assert wanted.is_contiguous()
        last = call(plain.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last)
        assert_same_bits(last, wanted)
        assert_same_bits(call(plain.mT.contiguous().mT), wanted)
        assert_same_bits(call(F.pad(plain, (1, 2, 3, 4))[:, :, 3:-4, 1:-2]), wanted)
