"""What holds for convolutions whatever the oracle says: adjoints, mirrors, one order of sums."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import BUSY_CASE, BY_NAME, CASES, ConvCase, Operands, operands
from conftest import INSTRUCTION_SETS, Place, Setting
from convolutions import BY_OP, PATCHES, Op, each_convolution, each_op, right
from oracle import assert_same_bits, assert_within
from torch import Tensor

from pydenoise import ops
from pydenoise.ops import _backend

WHOLE_CASES = [case for case in CASES if case.missing == (0, 0)]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_whole_case = pytest.mark.parametrize("case", WHOLE_CASES, ids=str)


def inner(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


def assert_equal_products(products: list[float], scale: float) -> None:
    """Compare inner products that the mathematics says are one number."""
    for product in products[1:]:
        assert abs(product - products[0]) <= 1e-12 * max(scale, 1.0), products


def compiled_only(place: Place) -> None:
    if place.backend == "reference":
        pytest.skip("the reference leaves the order of its sums to torch's matrix product")


@each_whole_case
def test_gradients_are_adjoints(case: ConvCase, place: Place, algorithm: str) -> None:
    """<conv(x, w), g> = <x, grad_input(g, w)> = <w, grad_weight(x, g)>."""
    o = place.put_all(operands(case, torch.double))
    z = ops.conv2d(o.input, o.weight, None, *case.arguments)
    gx = ops.conv2d_grad_input(case.input_size, o.weight, o.grad_output, *case.arguments)
    gw = ops.conv2d_grad_weight(o.input, case.weight_size, o.grad_output, *case.arguments)
    products = [inner(z, o.grad_output), inner(o.input, gx), inner(o.weight, gw)]
    assert_equal_products(products, float((z * o.grad_output).abs().sum()))


@each_case
def test_transpose_has_the_same_gradients(case: ConvCase, place: Place, algorithm: str) -> None:
    """<g, transpose(x, w)> = <w, grad_weight(g, x)>: the mirror needs no kernel of its own."""
    o = place.put_all(operands(case, torch.double))
    x, gz = o.grad_output, o.input
    z = ops.conv_transpose2d(x, o.weight, None, *case.transposed_arguments)
    gw = ops.conv2d_grad_weight(gz, case.weight_size, x, *case.arguments)
    assert_equal_products([inner(z, gz), inner(o.weight, gw)], float((z * gz).abs().sum()))


@each_whole_case
def test_col2im_is_the_adjoint_of_im2col(case: ConvCase, place: Place) -> None:
    """<u(x), c> = <x, f(c)>."""
    o = place.put_all(operands(case, torch.double))
    u = ops.im2col(o.input, *case.patch_arguments)
    f = ops.col2im(o.columns, case.size, *case.patch_arguments)
    products = [inner(u, o.columns), inner(o.input, f)]
    assert_equal_products(products, float((u * o.columns).abs().sum()))


@pytest.mark.parametrize("name", ["table1-outer", "asymmetric", "dilated", "output-padding"])
def test_transpose_is_a_rotated_convolution(name: str, place: Place, algorithm: str) -> None:
    """The report's way: zeros between the pixels, padding k-1-p, the kernel turned around."""
    case = BY_NAME[name]
    o = place.put_all(operands(case, torch.double))
    x, w = o.grad_output, o.weight
    (kh, kw), (sh, sw), (dh, dw), groups = case.kernel, case.stride, case.dilation, case.groups
    top, left = dh * (kh - 1) - case.padding[0], dw * (kw - 1) - case.padding[1]
    height, width = (x.shape[2] - 1) * sh + 1, (x.shape[3] - 1) * sw + 1
    more_h, more_w = case.output_padding
    stuffed = x.new_zeros(*x.shape[:2], height + 2 * top + more_h, width + 2 * left + more_w)
    stuffed[:, :, top : top + height : sh, left : left + width : sw] = x
    turned = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    rotated = ops.conv2d(stuffed, turned, None, 1, 0, case.dilation, groups)
    straight = ops.conv_transpose2d(x, w, None, *case.transposed_arguments)
    torch.testing.assert_close(straight, rotated, rtol=1e-12, atol=1e-12)


@pytest.fixture
def thread_counts() -> Iterator[tuple[int, ...]]:
    before = torch.get_num_threads()
    yield 1, 2, 3
    torch.set_num_threads(before)


@each_op
def test_thread_count_changes_no_bit(
    op: Op, setting: Setting, thread_counts: tuple[int, ...]
) -> None:
    compiled_only(setting.place)
    for case in (BUSY_CASE, BY_NAME["asymmetric"], BY_NAME["deep-groups"]):
        o = setting.put_all(operands(case, setting.dtype))
        results = []
        for count in thread_counts:
            torch.set_num_threads(count)
            results.append(op.run(case, o))
        assert_within(results[0], right(op, case, setting.dtype), f"{op} {case}")
        for count, result in zip(thread_counts, results, strict=True):
            assert_same_bits(result, results[0], f"{op} {case} with {count} threads")


@each_convolution
def test_a_run_repeats_itself(op: Op, setting: Setting) -> None:
    o = setting.put_all(operands(BUSY_CASE, setting.dtype))
    assert_same_bits(op.run(BUSY_CASE, o), op.run(BUSY_CASE, o), op)


def test_a_picture_alone_is_a_picture_in_a_batch(setting: Setting) -> None:
    compiled_only(setting.place)
    case = BUSY_CASE
    o = setting.put_all(operands(case, setting.dtype))
    z = ops.conv2d(o.input, o.weight, o.bias, *case.arguments)
    gx = ops.conv2d_grad_input(case.input_size, o.weight, o.grad_output, *case.arguments)
    for n in range(case.batch):
        one = slice(n, n + 1)
        alone = ops.conv2d(o.input[one], o.weight, o.bias, *case.arguments)
        assert_same_bits(alone, z[one], f"conv2d, picture {n}")
        size, gz = (1, *case.input_size[1:]), o.grad_output[one]
        alone = ops.conv2d_grad_input(size, o.weight, gz, *case.arguments)
        assert_same_bits(alone, gx[one], f"grad_input, picture {n}")


@pytest.mark.parametrize("stride", [1, 2])
def test_a_tile_is_a_part_of_the_whole(stride: int, setting: Setting) -> None:
    """Away from its edges a cut-out gives the same bits as the whole picture."""
    compiled_only(setting.place)
    o = setting.put_all(operands(BUSY_CASE, setting.dtype))
    top, left, height, width, edge = 4, 6, 21, 17, 2
    tile = o.input[:, :, top : top + height, left : left + width]
    whole = ops.conv2d(o.input, o.weight, o.bias, stride, 1)
    part = ops.conv2d(tile, o.weight, o.bias, stride, 1)
    rows, cols = (slice(edge, n - edge) for n in part.shape[2:])
    there = whole[:, :, top // stride :, left // stride :]
    assert_same_bits(part[..., rows, cols], there[..., rows, cols], "conv2d")

    tile = o.grad_output[:, :, top : top + height, left : left + width]
    whole = ops.conv_transpose2d(o.grad_output, o.weight, o.mirror_bias, stride, 1)
    part = ops.conv_transpose2d(tile, o.weight, o.mirror_bias, stride, 1)
    rows, cols = (slice(2 * edge, n - 2 * edge) for n in part.shape[2:])
    there = whole[:, :, top * stride :, left * stride :]
    assert_same_bits(part[..., rows, cols], there[..., rows, cols], "conv_transpose2d")


@pytest.mark.parametrize("op", PATCHES, ids=str)
def test_patches_have_the_same_bits_on_every_instruction_set(
    op: Op, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    reason = ops.backends()["cpu"]
    if reason is not None:
        pytest.skip(f"cpu: {reason}")
    here = [isa for isa in INSTRUCTION_SETS if isa in _backend.available_isas()]
    for name in ("asymmetric", "same-3x3", "padding-strided"):
        case = BY_NAME[name]
        setting = Setting(Place("cpu"), "im2col", dtype, memory_format)
        o = setting.put_all(operands(case, dtype))
        results = []
        for isa in here:
            with ops.use_backend("cpu"), _backend.use_isa(isa):
                results.append(op.run(case, o))
        for isa, result in zip(here, results, strict=True):
            assert_same_bits(result, results[0], f"{op} {case}, {isa} against {here[0]}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["asymmetric", "dilated", "same-3x3", "deep-groups", "pixelwise"])
@pytest.mark.parametrize("op", [BY_OP[n] for n in ("conv2d", "grad_input", "im2col")], ids=str)
def test_what_is_no_number_reaches_its_receptive_field(
    op: Op, name: str, value: float, setting: Setting
) -> None:
    """All of it and nothing else; whatever lies around is left alone."""
    case = BY_NAME[name]
    o = setting.put_all(operands(case, setting.dtype))
    read = op.read[0]
    clean = op.run(case, o)
    size = getattr(o, read).shape
    for at in ((0, 0, 0, 0), tuple(n // 2 for n in size), tuple(n - 1 for n in size)):
        source, spot = getattr(o, read).clone(), torch.zeros(size, dtype=setting.dtype)
        source[at], spot[at] = value, 1
        room = op.room(case, setting)
        op.run(case, o._replace(**{read: setting.put(source)}), out=room.tensor)
        ones = Operands(*(None if x is None else torch.ones_like(x) for x in o))
        alone = ones._replace(**{read: setting.put(spot)}, bias=None, mirror_bias=None)
        field = op.run(case, alone) != 0
        assert torch.equal(~room.tensor.isfinite(), field), f"{op} {case} at {at}"
        if setting.place.backend != "reference":  # torch's product may look at addresses
            assert torch.equal(room.tensor[~field], clean[~field]), f"{op} {case} at {at}"
        room.assert_untouched_around()


def random_kernels(*words: str) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parent / "random_kernels.py"
    command = [sys.executable, str(script), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_random_configurations() -> None:
    done = random_kernels("300", "--adjoints", "50")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 faults\n")


def test_of_random_configurations_every_spoilt_one_is_found() -> None:
    """The negative control: each result has one element that is off."""
    done = random_kernels("40", "--adjoints", "20", "--sabotage")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("\n60 faults\n")
