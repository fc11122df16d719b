"""The processor's kernels of max pooling and nearest upsampling.

Destination first, overwritten; part of `_compiled`. Average pooling is the reference's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._shape import PoolWindow

_DOUBLE = torch.float64


def _as(out: Tensor, tensor: Tensor) -> tuple[Tensor, bool]:
    """The tensor, dense and in the memory format of `out`; is that channels_last?"""
    last = not out.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    return tensor.contiguous(memory_format=memory_format), last


class Pooling:
    """Calls of a library that has these kernels."""

    _library: Any

    def max_pool2d(self, out: Tensor, indices: Tensor, input: Tensor, window: PoolWindow) -> None:
        input, last = _as(out, input)
        self._library.max_pool2d(
            out.dtype is _DOUBLE, out, indices, input, last, out.shape, input.shape[2:], window
        )

    def max_pool2d_backward(self, out: Tensor, grad_output: Tensor, indices: Tensor) -> None:
        grad_output, last = _as(out, grad_output)
        indices, _ = _as(out, indices)
        self._library.max_pool2d_backward(
            out.dtype is _DOUBLE,
            out,
            grad_output,
            indices,
            last,
            grad_output.shape,
            out.shape[2:],
        )

    def upsample_nearest2d(self, out: Tensor, input: Tensor, factor: tuple[int, int]) -> None:
        input, last = _as(out, input)
        self._library.upsample_nearest2d(
            out.dtype is _DOUBLE, out, input, last, input.shape, factor
        )

    def upsample_nearest2d_backward(
        self, out: Tensor, grad_output: Tensor, factor: tuple[int, int]
    ) -> None:
        grad_output, last = _as(out, grad_output)
        self._library.upsample_nearest2d_backward(
            out.dtype is _DOUBLE, out, grad_output, last, out.shape, factor
        )
