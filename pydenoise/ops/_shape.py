"""The shape of a convolution as one value, and the only Python copy of its index formula.

`ConvShape` is always seen from the forward convolution; the C++ side has the same struct
(`csrc/conv_shape.h`) with the fields in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

PoolWindow: TypeAlias = tuple[int, int, int, int, int, int]
"""kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w."""


def extent(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Positions of a kernel along one side: ``(size + 2p - d(k-1) - 1) // s + 1``."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True, eq=False)
class ConvShape:
    """All numbers of one 2-d convolution; ``1 <= out_h <= extent(in_h, ...)``, the same for w.

    One object for one use of one layer: equal to itself alone, so that it is found at once.
    """

    batch: int
    groups: int
    in_channels: int
    in_h: int
    in_w: int
    out_channels: int
    out_h: int
    out_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int
    dilation_h: int
    dilation_w: int

    @cached_property
    def input_size(self) -> tuple[int, int, int, int]:
        """(N, C_in, H, W)."""
        return self.batch, self.in_channels, self.in_h, self.in_w

    @cached_property
    def output_size(self) -> tuple[int, int, int, int]:
        """(N, C_out, H_out, W_out)."""
        return self.batch, self.out_channels, self.out_h, self.out_w

    @cached_property
    def weight_size(self) -> tuple[int, int, int, int]:
        """(C_out, C_in/groups, kh, kw)."""
        return self.out_channels, self.in_channels // self.groups, self.kernel_h, self.kernel_w

    @cached_property
    def columns_size(self) -> tuple[int, int, int]:
        """(N, C_in*kh*kw, H_out*W_out), the patch matrix of `im2col`."""
        taps = self.kernel_h * self.kernel_w
        return self.batch, self.in_channels * taps, self.out_h * self.out_w

    @cached_property
    def has_winograd(self) -> bool:
        """Whether Winograd's products exist for it: a 3 x 3 kernel without dilation, and stride 1,
        or stride 2 and odd paddings."""
        if (self.kernel_h, self.kernel_w, self.dilation_h, self.dilation_w) != (3, 3, 1, 1):
            return False
        strides, odd = (self.stride_h, self.stride_w), (self.padding_h % 2, self.padding_w % 2)
        return strides == (1, 1) or (strides, odd) == ((2, 2), (1, 1))
