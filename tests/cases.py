"""The named convolution cases: one list for every backend, instruction set, dtype and format.

A case is one convolution seen forward, as `ConvShape` is; the tests run it forward, backward and
as the transposed convolution it mirrors. A new case is one line with the reason why it is there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True)
class ConvCase:
    """One convolution; `missing` counts the rows and columns its output has less than it could,
    as when a transposed convolution has an output_padding of a stride or more."""

    name: str
    reason: str
    batch: int
    channels: Pair  # in, out
    size: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True
    missing: Pair = (0, 0)

    def _axis(self, axis: int) -> tuple[int, int, int]:
        """Input size, stride, and input minus kernel extent (how far the kernel can move)."""
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return self.size[axis], self.stride[axis], self.size[axis] + 2 * self.padding[axis] - reach

    def _pixels(self, axis: int) -> int:
        _, stride, room = self._axis(axis)
        return room // stride + 1 - self.missing[axis]

    @cached_property
    def input_size(self) -> tuple[int, int, int, int]:
        return (self.batch, self.channels[0], *self.size)

    @cached_property
    def output_size(self) -> tuple[int, int, int, int]:
        return (self.batch, self.channels[1], self._pixels(0), self._pixels(1))

    @cached_property
    def weight_size(self) -> tuple[int, int, int, int]:
        return (self.channels[1], self.channels[0] // self.groups, *self.kernel)

    @cached_property
    def columns_size(self) -> tuple[int, int, int]:
        taps = self.kernel[0] * self.kernel[1]
        return (self.batch, self.channels[0] * taps, self.output_size[2] * self.output_size[3])

    @cached_property
    def output_padding(self) -> Pair:
        """What brings the transposed convolution from `output_size` back to `input_size`."""
        left = [self._axis(a)[2] - (self._pixels(a) - 1) * self.stride[a] for a in (0, 1)]
        return left[0], left[1]

    @property
    def arguments(self) -> tuple[Pair, Pair, Pair, int]:
        """Stride, padding, dilation, groups: the tail of `conv2d` and of its gradients."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def transposed_arguments(self) -> tuple[Pair, Pair, Pair, int, Pair]:
        """Stride, padding, output_padding, groups, dilation: the tail of `conv_transpose2d`."""
        return self.stride, self.padding, self.output_padding, self.groups, self.dilation

    @property
    def patch_arguments(self) -> tuple[Pair, Pair, Pair, Pair]:
        """kernel_size, dilation, padding, stride: the tail of `im2col` and `col2im`."""
        return self.kernel, self.dilation, self.padding, self.stride

    def __str__(self) -> str:
        return self.name


def _case(
    name: str, reason: str, batch: int, channels: Pair, size: Pair, **rest: object
) -> ConvCase:
    """Make a case; an int stands for a pair of it."""
    pairs = {key: (v, v) if type(v) is int and key != "groups" else v for key, v in rest.items()}
    return ConvCase(name, reason, batch, channels, size, **pairs)  # type: ignore[arg-type]


# fmt: off
CASES = [
    # The network of the paper; its transposed layers are the mirrors of its convolutions
    _case("table1-outer", "layers 1 and 4 of Table I",
          2, (3, 48), (32, 32), kernel=3, stride=2, padding=1),
    _case("table1-inner", "layers 2 and 3 of Table I",
          2, (48, 96), (16, 16), kernel=3, stride=2, padding=1),
    # The kernel
    _case("pixelwise", "1x1: the patch matrix is the picture", 2, (5, 7), (6, 5), kernel=1),
    _case("one-term", "a single product per output", 1, (1, 1), (3, 4), kernel=1, bias=False),
    _case("one-pixel", "one output pixel, a plain matrix product", 2, (3, 4), (3, 3), kernel=3),
    _case("same-3x3", "the most usual layer", 2, (8, 12), (10, 10), kernel=3, padding=1),
    _case("no-bias", "no bias must not mean a wild one",
          2, (4, 6), (7, 7), kernel=3, padding=1, bias=False),
    _case("even-kernel", "no middle pixel", 2, (3, 5), (6, 7), kernel=(2, 4), padding=(1, 2)),
    _case("row-kernel", "one axis without neighbours",
          1, (3, 4), (5, 9), kernel=(1, 5), padding=(0, 2)),
    _case("column-kernel", "the other axis", 1, (3, 4), (9, 5), kernel=(5, 1), padding=(2, 0)),
    _case("kernel-over-picture", "kernel larger than the picture",
          2, (2, 3), (2, 3), kernel=5, padding=2),
    _case("large-kernel", "81 overlapping patches on one pixel",
          1, (2, 3), (12, 13), kernel=9, padding=4),
    _case("large-kernel-strided", "72 patches on a pixel, taken every second",
          1, (1, 2), (12, 17), kernel=(9, 15), stride=(1, 2), padding=(4, 7)),
    # Stride, padding, dilation
    _case("stride-over-kernel", "pixels that no patch sees",
          2, (3, 4), (11, 13), kernel=2, stride=(3, 4)),
    _case("stride-1x1", "1x1 that skips", 2, (4, 5), (7, 8), kernel=1, stride=2),
    _case("stride-leaves-rest", "last rows belong to no patch",
          1, (3, 4), (10, 12), kernel=3, stride=(4, 5)),
    _case("dilated", "taps apart", 2, (3, 4), (11, 10), kernel=3, padding=2, dilation=2),
    _case("dilated-past-edge", "taps that never touch the picture",
          1, (2, 3), (3, 2), kernel=3, padding=(5, 6), dilation=(5, 6)),
    _case("dilated-strided", "dilation and stride share a factor",
          1, (3, 4), (13, 12), kernel=3, stride=2, padding=3, dilation=4),
    _case("padding-over-kernel", "whole patches of padding",
          2, (2, 3), (4, 3), kernel=2, padding=(4, 5)),
    _case("padding-strided", "left edge cut at a different phase",
          1, (3, 5), (9, 8), kernel=(5, 4), stride=(3, 2), padding=(4, 3)),
    _case("asymmetric", "rows and columns differ in everything",
          2, (6, 4), (9, 14), kernel=(3, 2), stride=(1, 3), padding=(2, 1),
          dilation=(2, 3), groups=2),
    _case("asymmetric-swapped", "the same lying on its side",
          2, (6, 4), (14, 9), kernel=(2, 3), stride=(3, 1), padding=(1, 2),
          dilation=(3, 2), groups=2),
    # Sizes
    _case("odd-sizes", "nothing divides anything",
          3, (5, 7), (13, 11), kernel=3, stride=2, padding=1),
    _case("wide", "rows of several vectors, and a rest",
          1, (2, 3), (4, 71), kernel=3, padding=1),
    _case("wide-strided", "the same, every second pixel",
          1, (2, 3), (4, 118), kernel=3, stride=(1, 2), padding=1),
    _case("thin-row", "pictures one pixel high", 2, (3, 4), (1, 17), kernel=3, padding=1),
    _case("thin-column", "pictures one pixel wide", 2, (3, 4), (17, 1), kernel=3, padding=1),
    _case("single-pixel", "pictures of one pixel", 3, (4, 5), (1, 1), kernel=3, padding=1),
    _case("empty-batch", "no pictures", 0, (3, 4), (5, 6), kernel=3, padding=1),
    _case("batch-5", "more pictures than threads", 5, (2, 3), (5, 4), kernel=3, padding=1),
    # Groups
    _case("groups-2", "two halves", 2, (8, 6), (6, 7), kernel=3, padding=1, groups=2),
    _case("groups-wide", "every group a whole number of tiles, read in place",
          2, (32, 48), (5, 6), kernel=3, padding=1, groups=2),
    _case("groups-many", "more outputs than inputs per group",
          1, (6, 15), (5, 6), kernel=3, groups=3),
    _case("depthwise", "a channel for itself",
          2, (7, 7), (8, 9), kernel=3, stride=2, padding=1, groups=7),
    _case("depthwise-x2", "depthwise with a multiplier",
          1, (5, 10), (6, 6), kernel=3, padding=1, groups=5),
    _case("depthwise-wide", "more groups than a vector has lanes",
          1, (33, 33), (4, 5), kernel=3, padding=1, groups=33),
    # Transposed convolutions that leave something over
    _case("output-padding", "both axes, different",
          2, (3, 4), (12, 14), kernel=3, stride=(3, 4), padding=1),
    _case("output-padding-dilated", "as much as the dilation allows: rows the forward would see",
          2, (3, 4), (9, 10), kernel=2, dilation=(3, 4), missing=(2, 3)),
    _case("output-padding-mixed", "over the stride, under the dilation",
          1, (4, 6), (13, 12), kernel=3, stride=(2, 1), padding=(2, 1),
          dilation=(4, 3), groups=2, missing=(1, 1)),
    # Sums longer than one block, panels higher and wider than one
    _case("deep", "more terms than a K-block", 1, (130, 5), (4, 5), kernel=3, padding=1),
    _case("deep-groups", "the same in every group",
          1, (260, 4), (3, 3), kernel=3, padding=1, groups=2),
    _case("deep-mirror", "the same for grad_input", 1, (4, 150), (5, 4), kernel=3, padding=1),
    _case("deep-pixels", "the same for grad_weight", 3, (2, 3), (23, 29), kernel=3, padding=1),
    _case("many-outputs", "more output channels than one block", 1, (3, 200), (5, 4), kernel=2),
    _case("many-pixels", "more pixels than one panel", 1, (2, 3), (61, 83), kernel=1),
]
# fmt: on

# Every remainder of channels and pixels around tiles of 4, 6, 8, 12, 14, 16, 24, 32 and 48. Three
# walks through 1..49 (11 and 27 have no factor in common with 50) meet in ever other combinations.
TILE_CASES = [
    _case(f"tile-{r}", "", 1, (r * 27 % 50, r), (1, r * 11 % 50), kernel=(1, 3), padding=(0, 1))
    for r in range(1, 50)
]

BY_NAME = {case.name: case for case in CASES}

# Enough work for several threads, and shared unevenly among three.
BUSY_CASE = _case("busy", "", 3, (17, 30), (33, 35), kernel=3, padding=1)


class Operands(NamedTuple):
    """All that the operations of one case read; `mirror_bias` is the transposed convolution's."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    grad_output: Tensor
    mirror_bias: Tensor | None
    columns: Tensor


def draw_operands(case: ConvCase, dtype: torch.dtype) -> Operands:
    """Normal numbers, the same for a case of this name wherever and whenever it runs."""
    generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))

    def draw(*size: int) -> Tensor:
        return torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)

    return Operands(
        draw(*case.input_size),
        draw(*case.weight_size),
        draw(case.channels[1]) if case.bias else None,
        draw(*case.output_size),
        draw(case.channels[0]) if case.bias else None,
        draw(*case.columns_size),
    )


@cache
def operands(case: ConvCase, dtype: torch.dtype) -> Operands:
    """Draw a case's numbers once; they are shared, not to be written to."""
    return draw_operands(case, dtype)


def _within(x: Tensor, *index: int | slice) -> Tensor:
    """Put x into a larger tensor full of NaN, at the given place."""
    room = x.new_full([2 * n + 5 for n in x.shape], torch.nan)
    view = room[index]
    return view.copy_(x)


def _every_second(x: Tensor) -> Tensor:
    return _within(x, *(slice(1, 1 + 2 * n, 2) for n in x.shape))


def _window(x: Tensor) -> Tensor:
    return _within(x, *(slice(2, 2 + n) for n in x.shape))


def _transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def _channels_swapped(x: Tensor) -> Tensor:
    return x.transpose(0, 1).contiguous().transpose(0, 1)


def _offset(x: Tensor) -> Tensor:
    return x.new_full((x.numel() + 7,), torch.nan)[3 : 3 + x.numel()].view(x.shape).copy_(x)


def _expanded_batch(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def _expanded_pixels(x: Tensor) -> Tensor:
    return x[..., :1].expand(x.shape)


def _negative(x: Tensor) -> Tensor:
    """Set the negative bit instead of the sign: the imaginary part of a conjugate."""
    return torch.complex(x, -x).conj().imag


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "every-second": _every_second,
    "window": _window,
    "transposed": _transposed,
    "channels-swapped": _channels_swapped,
    "offset": _offset,
    "expanded-batch": _expanded_batch,
    "expanded-pixels": _expanded_pixels,
    "negative-bit": _negative,
}
"""How a 4-d tensor may lie in memory; what lies around it is NaN. All but the expanded ones keep
its values."""
