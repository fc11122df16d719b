"""Sizes, strides and paddings as they came into a `ConvShape`, or the sentence why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from math import prod
from typing import Any

import torch

from . import _check
from ._shape import ConvShape, extent


def _remembered(function: Callable[..., ConvShape]) -> Callable[..., ConvShape]:
    """Remember results by plain ints and tuples of them alone, for 2.0 == 2."""
    remembered = lru_cache(maxsize=4096)(function)

    @wraps(function)
    def call(op: str, *arguments: Any) -> ConvShape:
        return (remembered if _are_plain(arguments) else function)(op, *arguments)

    return call


def _are_plain(arguments: tuple[Any, ...]) -> bool:
    for argument in arguments:
        kind = type(argument)
        if kind is tuple:
            if not _WHOLE.issuperset(map(type, argument)):
                return False
        elif kind is not torch.Size and kind is not int:
            return False
    return True


_WHOLE = frozenset({int})


def _sizes(op: str, name: str, value: Any) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, Sequence) else ()
    if len(sizes) != 4:
        raise ValueError(f"{op}: {name} must be 4 sizes, got {value!r}")
    return tuple(_check.integer(op, name, size, 0) for size in sizes)


def _geometry(
    op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[int, int, int, int, int, int, int, int]:
    return (
        *_check.pair(op, "kernel_size", kernel_size, 1),
        *_check.pair(op, "stride", stride, 1),
        *_check.pair(op, "padding", padding, 0),
        *_check.pair(op, "dilation", dilation, 1),
    )


@_remembered
def forward_shape(
    op: str,
    input_size: Sequence[int],
    weight_size: Sequence[int],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    out_size: tuple[int, ...] = (),
) -> ConvShape:
    """The ConvShape of these sizes, or the sentence that says why there is none.

    `out_size` is (out_h, out_w) where it is not what the formula gives.
    """
    input_size = _sizes(op, "input_size", input_size)
    weight_size = _sizes(op, "weight_size", weight_size)
    came = f"got input {input_size}, weight {weight_size}"
    groups = _check.integer(op, "groups", groups, 1)
    n, c, h, w = input_size
    m, group_c, *kernel = weight_size
    kh, kw, sh, sw, ph, pw, dh, dw = _geometry(op, kernel, stride, padding, dilation)
    if min(c, h, w, m) < 1:
        raise ValueError(f"{op}: only the batch may be empty; {came}")
    if c != group_c * groups:
        expected = f"{group_c * groups} input channels"
        if groups > 1:
            expected += f" ({group_c} in each of {groups} groups)"
        raise ValueError(f"{op}: weight expects {expected}, input has {c}; {came}")
    if m % groups:
        raise ValueError(
            f"{op}: {m} output channels cannot be divided into {groups} groups; {came}"
        )
    extents = []
    for side, size, k, s, p, d in (("height", h, kh, sh, ph, dh), ("width", w, kw, sw, pw, dw)):
        if size + 2 * p < d * (k - 1) + 1:
            raise ValueError(
                f"{op}: the kernel spans {d * (k - 1) + 1} pixels in {side}, the padded picture "
                f"has {size + 2 * p}; {came}, padding {(ph, pw)}, dilation {(dh, dw)}"
            )
        extents.append(extent(size, k, s, p, d))
    out_h, out_w = out_size or extents
    if not (1 <= out_h <= extents[0] and 1 <= out_w <= extents[1]):
        raise ValueError(
            f"{op}: grad_output of {out_h} x {out_w} pixels does not belong to this convolution, "
            f"whose output is {extents[0]} x {extents[1]}; {came}"
        )
    shape = ConvShape(n, groups, c, h, w, m, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)
    for elements in (shape.input_size, shape.output_size, shape.columns_size):
        if prod(elements) >= 2**60:
            raise ValueError(f"{op}: more elements than any memory holds; {came}, {shape}")
    return shape


@_remembered
def mirrored_shape(
    op: str,
    input_size: Sequence[int],
    weight_size: Sequence[int],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> ConvShape:
    """The forward convolution whose mirror maps `input_size` to the picture wanted."""
    input_size = _sizes(op, "input_size", input_size)
    weight_size = _sizes(op, "weight_size", weight_size)
    came = f"got input {input_size}, weight {weight_size}"
    groups = _check.integer(op, "groups", groups, 1)
    n, c, *sides = input_size
    if weight_size[0] != c:
        raise ValueError(
            f"{op}: weight expects {weight_size[0]} input channels, input has {c}; {came}"
        )
    if min(c, *sides, weight_size[1]) < 1:
        raise ValueError(f"{op}: only the batch may be empty; {came}")
    kh, kw, sh, sw, ph, pw, dh, dw = _geometry(op, weight_size[2:], stride, padding, dilation)
    extra = _check.pair(op, "output_padding", output_padding, 0)
    sizes = []
    for size, k, s, p, d, more in zip(
        sides, (kh, kw), (sh, sw), (ph, pw), (dh, dw), extra, strict=True
    ):
        if more >= max(s, d):
            raise ValueError(
                f"{op}: output_padding must be smaller than the stride or the dilation, got "
                f"output_padding {extra}, stride {(sh, sw)}, dilation {(dh, dw)}"
            )
        sizes.append((size - 1) * s - 2 * p + d * (k - 1) + more + 1)
    if min(sizes) < 1:
        raise ValueError(
            f"{op}: the output would have {sizes[0]} x {sizes[1]} pixels; {came}, "
            f"padding {(ph, pw)}"
        )
    picture = (n, weight_size[1] * groups, *sizes)
    return forward_shape(op, picture, weight_size, stride, padding, dilation, groups, tuple(sides))
