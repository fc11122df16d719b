"""Sizes, strides and paddings as they came into a `ConvShape`, or the sentence why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import prod
from typing import Any

import torch

from . import _check
from ._shape import ConvShape, extent


def _remembered(function: Callable[..., ConvShape]) -> Callable[..., ConvShape]:
    """Remember results by the sizes and by the very objects that say the rest.

    Not by what they equal, for 2.0 == 2: only ints and tuples of ints are remembered, which never
    change, and an entry holds them, so that nothing else can have their identity.
    """
    known: dict[tuple[Any, ...], tuple[ConvShape, tuple[Any, ...]]] = {}

    @wraps(function)
    def call(op: str, sizes: tuple[tuple[int, ...], ...], *geometry: Any) -> ConvShape:
        key = (sizes, *map(id, geometry))
        entry = known.get(key)
        if entry is None:
            entry = function(op, sizes, *geometry), geometry
            if all(map(_is_plain, geometry)):
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[key] = entry
        return entry[0]

    return call


_REMEMBERED = 4096


def _is_plain(value: Any) -> bool:
    kind = type(value)
    return kind is int or (kind is tuple and all(type(number) is int for number in value))


def sizes_of(op: str, name: str, value: Any) -> tuple[int, ...]:
    """Four sizes as they came in an argument; torch's own are looked at when they are new."""
    return value if type(value) is torch.Size else _sizes(op, name, value)


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
    sizes: tuple[tuple[int, ...], ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> ConvShape:
    """The ConvShape of these sizes, or the sentence that says why there is none.

    `sizes` are those of the input, of the weight and, where there is one, of grad_output.
    """
    input_size = _sizes(op, "input_size", sizes[0])
    weight_size = _sizes(op, "weight_size", sizes[1])
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
    out_h, out_w = sizes[2][2:] if len(sizes) == 3 else extents
    if not (1 <= out_h <= extents[0] and 1 <= out_w <= extents[1]):
        raise ValueError(
            f"{op}: grad_output of {out_h} x {out_w} pixels does not belong to this convolution, "
            f"whose output is {extents[0]} x {extents[1]}; {came}"
        )
    shape = ConvShape(n, groups, c, h, w, m, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)
    for elements in (shape.input_size, shape.output_size, shape.columns_size):
        if prod(elements) >= 2**60:
            raise ValueError(f"{op}: more elements than any memory holds; {came}, {shape}")
    if len(sizes) == 3 and sizes[2] != shape.output_size:
        raise ValueError(
            f"{op}: grad_output must have shape {shape.output_size}, got {tuple(sizes[2])}"
        )
    return shape


@_remembered
def mirrored_shape(
    op: str,
    sizes: tuple[tuple[int, ...], ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> ConvShape:
    """The forward convolution whose mirror maps the input to the picture wanted.

    `sizes` are those of the input and of the weight.
    """
    input_size, weight_size = map(tuple, sizes)
    came = f"got input {input_size}, weight {weight_size}"
    groups = _check.integer(op, "groups", groups, 1)
    n, c, *input_sides = input_size
    if weight_size[0] != c:
        raise ValueError(
            f"{op}: weight expects {weight_size[0]} input channels, input has {c}; {came}"
        )
    if min(c, *input_sides, weight_size[1]) < 1:
        raise ValueError(f"{op}: only the batch may be empty; {came}")
    kh, kw, sh, sw, ph, pw, dh, dw = _geometry(op, weight_size[2:], stride, padding, dilation)
    extra = _check.pair(op, "output_padding", output_padding, 0)
    sides = []
    for size, k, s, p, d, more in zip(
        input_sides, (kh, kw), (sh, sw), (ph, pw), (dh, dw), extra, strict=True
    ):
        if more >= max(s, d):
            raise ValueError(
                f"{op}: output_padding must be smaller than the stride or the dilation, got "
                f"output_padding {extra}, stride {(sh, sw)}, dilation {(dh, dw)}"
            )
        sides.append((size - 1) * s - 2 * p + d * (k - 1) + more + 1)
    if min(sides) < 1:
        raise ValueError(
            f"{op}: the output would have {sides[0]} x {sides[1]} pixels; {came}, "
            f"padding {(ph, pw)}"
        )
    picture = (n, weight_size[1] * groups, *sides)
    return forward_shape(op, (picture, weight_size, input_size), stride, padding, dilation, groups)
