"""Convolutions, their gradients and the patch matrix against the oracle, every case everywhere.

Inputs stand between guards of NaN and results go into guarded rooms full of NaN, so that an
element not written, written beyond, or read from outside shows.
"""

from __future__ import annotations

from itertools import product

import oracle
import pytest
import torch
from cases import BY_NAME, LAYOUTS, TILE_CASES, ConvCase, Operands, draw_operands, operands
from conftest import FORMATS, Place, Setting
from convolutions import (
    CONVOLUTIONS,
    PATCHES,
    Op,
    check,
    each_convolution,
    each_op,
    pairs,
    right,
)
from hypothesis import given, settings, strategies as st
from oracle import assert_same_bits, assert_within
from torch import Tensor
from torch.nn.functional import fold, unfold

from pydenoise import ops


@pairs(CONVOLUTIONS)
def test_case(op: Op, case: ConvCase, setting: Setting) -> None:
    check(op, case, setting)


@pairs(PATCHES)
def test_patches(
    op: Op,
    case: ConvCase,
    place: Place,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> None:
    check(op, case, Setting(place, "im2col", dtype, memory_format))


LARGE = {  # size, kernel, stride: more columns than caches hold, more than one tile or plan
    "columns": ((1, 8, 256, 256), (3, 3), 1),
    "every-second": ((1, 32, 256, 256), (3, 3), 2),
    "rows": ((2, 2, 5, 4_100), (3, 3), 1),
    "rows-every-second": ((1, 2, 5, 8_203), (3, 3), (1, 2)),
    "kernel": ((1, 2, 20, 18), (13, 11), 1),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("offset", [0, 1])
def test_large_patches(name: str, offset: int, place: Place) -> None:
    """torch's own numbers, bit for bit, aligned in memory or not."""
    size, kernel, stride = LARGE[name]
    patches = (kernel, 1, 1, stride)
    x = torch.randn(size)
    columns = unfold(x, *patches)

    def room(like: Tensor) -> Tensor:
        memory = torch.full((like.numel() + offset,), torch.nan, device=place.device)
        return memory[offset:].view(like.shape)

    assert torch.equal(ops.im2col(place.put(x), *patches, out=room(columns)).cpu(), columns)
    wanted = fold(columns, size[2:], *patches)
    found = ops.col2im(place.put(columns), size[2:], *patches, out=room(x))
    assert torch.equal(found.cpu(), wanted)


@each_convolution
def test_every_tile_remainder(op: Op, setting: Setting) -> None:
    for case in TILE_CASES:
        check(op, case, setting)


@pytest.mark.parametrize("name", ["odd-sizes", "empty-batch", "single-pixel", "many-pixels"])
def test_grad_bias(
    name: str, place: Place, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    setting = Setting(place, "implicit", dtype, memory_format)
    o = operands(BY_NAME[name], dtype)
    gz, room = setting.put(o.grad_output), setting.room(o.bias.shape)
    ops.conv2d_grad_bias(gz, out=room.tensor)
    assert_within(room.tensor, oracle.conv2d_grad_bias(o.grad_output), name)
    room.tensor.copy_(o.bias)
    ops.conv2d_grad_bias(gz, out=room.tensor, accumulate=True)
    assert_within(room.tensor, oracle.conv2d_grad_bias(o.grad_output, o.bias), name)
    room.assert_untouched_around()


SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SMALL = st.tuples(st.integers(1, 4), st.integers(1, 4))
PADDING = st.tuples(st.integers(0, 5), st.integers(0, 5))


@st.composite
def conv_cases(draw: st.DrawFn) -> ConvCase:
    groups = draw(st.integers(1, 3))
    channels = tuple(groups * n for n in draw(SMALL))
    kernel, dilation, padding = draw(SMALL), draw(SMALL), draw(PADDING)
    reach = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(max(n, r) for n, r in zip(draw(SIDES), reach, strict=True))
    batch, stride, bias = draw(st.integers(0, 3)), draw(SMALL), draw(st.booleans())
    return ConvCase(
        "drawn", "", batch, channels, size, kernel, stride, padding, dilation, groups, bias
    )


@each_op
@settings(max_examples=25)
@given(case=conv_cases())
def test_any_case(
    op: Op, place: Place, algorithm: str, memory_format: torch.memory_format, case: ConvCase
) -> None:
    setting = Setting(place, algorithm, torch.float32, memory_format)
    o, room = draw_operands(case, setting.dtype), op.room(case, setting)
    op.run(case, setting.put_all(o), out=room.tensor)
    assert_within(room.tensor, op.right(case, o), op)
    room.assert_untouched_around()


# How tensors lie in memory


@pytest.mark.parametrize("layout", LAYOUTS)
@each_op
def test_layout(op: Op, layout: str, place: Place, algorithm: str, dtype: torch.dtype) -> None:
    """Give each operand in turn in an unusual layout; the result is dense."""
    case = BY_NAME["asymmetric"]
    plain = place.put_all(operands(case, dtype))
    for name in op.read:
        o = plain._replace(**{name: LAYOUTS[layout](getattr(plain, name))})
        result = op.run(case, o)
        assert result.is_contiguous() or result.is_contiguous(memory_format=torch.channels_last)
        assert_within(result, op.right(case, o), f"{op}, {name} {layout}")


@each_op
def test_formats_may_differ(op: Op, place: Place, algorithm: str, dtype: torch.dtype) -> None:
    """Mix both memory formats among operands and result."""
    case = BY_NAME["asymmetric"]
    setting = Setting(place, algorithm, dtype, torch.contiguous_format)
    for *formats, out_format in product(FORMATS.values(), repeat=len(op.read) + 1):
        o = setting.put_all(operands(case, dtype))
        for name, memory_format in zip(op.read, formats, strict=True):
            o = o._replace(**{name: setting.put(getattr(o, name), memory_format)})
        room = setting.room(op.size(case), torch.contiguous_format if op.is_weight else out_format)
        op.run(case, o, out=room.tensor)
        assert_within(room.tensor, right(op, case, dtype), f"{op}, {formats} to {out_format}")
        room.assert_untouched_around()


@each_op
def test_new_result(op: Op, setting: Setting) -> None:
    """Without `out=` come the same numbers, in the first operand's memory format, detached."""
    case = BY_NAME["asymmetric"]
    o = setting.put_all(operands(case, setting.dtype))
    o = Operands(*(torch.nn.Parameter(x) for x in o))
    result = op.run(case, o)
    assert_within(result, right(op, case, setting.dtype), op)
    assert not result.requires_grad
    if result.dim() == 4 and not op.is_weight and op.name != "col2im":
        assert result.is_contiguous(memory_format=setting.memory_format)
    else:
        assert result.is_contiguous()
    room = op.room(case, setting)
    assert op.run(case, o, out=room.tensor) is room.tensor
    if setting.place.backend == "reference":  # torch's product may look at addresses
        assert_within(room.tensor, right(op, case, setting.dtype), op)
    else:
        assert_same_bits(room.tensor, result, op)
