"""Pooling and upsampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pydenoise import memory

from . import _check
from ._backend import select
from ._check import Pair
from ._shape import PoolWindow, extent


def _window(op: str, kernel_size: Pair, stride: Pair | None, padding: Pair) -> PoolWindow:
    kernel = _check.pair(op, "kernel_size", kernel_size, 1)
    step = kernel if stride is None else _check.pair(op, "stride", stride, 1)
    pad = _check.pair(op, "padding", padding, 0)
    if pad[0] > kernel[0] // 2 or pad[1] > kernel[1] // 2:
        raise ValueError(
            f"{op}: padding must be at most half the kernel, got padding {pad}, kernel {kernel}"
        )
    return (*kernel, *step, *pad)


def _pooled_size(op: str, size: Sequence[int], window: PoolWindow) -> tuple[int, int, int, int]:
    n, c, h, w = size
    kh, kw, sh, sw, ph, pw = window
    if h + 2 * ph < kh or w + 2 * pw < kw:
        raise ValueError(
            f"{op}: a window of {kh} x {kw} is larger than the padded picture; got {tuple(size)}, "
            f"padding {(ph, pw)}"
        )
    return n, c, extent(h, kh, sh, ph, 1), extent(w, kw, sw, pw, 1)


def _expect_size(op: str, name: str, tensor: Tensor, size: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(size):
        raise ValueError(f"{op}: {name} must have shape {tuple(size)}, got {tuple(tensor.shape)}")


def _picture_size(op: str, input_size: Sequence[int]) -> tuple[int, int, int, int]:
    if len(input_size) != 4:
        raise ValueError(f"{op}: input_size must be (N, C, H, W), got {tuple(input_size)}")
    n, c, h, w = (_check.integer(op, "input_size", size, 0) for size in input_size)
    return n, c, h, w


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    *,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Largest value under every window, and where it was.

    Parameters
    ----------
    input : Tensor (N, C, H, W), float32 or float64
    kernel_size, stride, padding : int or (int, int)
        The stride is the kernel's size unless given; padding never wins.
    out : Tensor (N, C, H_out, W_out), optional

    Returns
    -------
    output : Tensor (N, C, H_out, W_out)
    indices : Tensor of int64, the same shape
        ``row * W + column`` of each maximum; of equal values the first, as in torch.
    """
    op = "max_pool2d"
    input = _check.tensor(op, "input", input, 4)
    window = _window(op, kernel_size, stride, padding)
    size = _pooled_size(op, input.shape, window)
    out = _check.output(op, out, size, input, [input])
    indices = memory.empty(
        size,
        dtype=torch.int64,
        device=input.device,
        memory_format=(
            torch.channels_last if _check.is_channels_last(out) else torch.contiguous_format
        ),
    )
    select(input).max_pool2d(out, indices, input, window)
    return out, indices


def max_pool2d_backward(
    grad_output: Tensor,
    indices: Tensor,
    input_size: Sequence[int],
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Every gradient goes to the pixel that won its window; one that won several sums them."""
    op = "max_pool2d_backward"
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    if indices.dtype != torch.int64:
        raise TypeError(f"{op}: indices must be int64, got {indices.dtype}")
    _expect_size(op, "indices", indices, grad_output.shape)
    n, c, h, w = _picture_size(op, input_size)
    if (n, c) != tuple(grad_output.shape[:2]):
        raise ValueError(
            f"{op}: input_size {(n, c, h, w)} does not belong to grad_output "
            f"{tuple(grad_output.shape)}"
        )
    if indices.numel() and not 0 <= min(ends := indices.aminmax()) <= max(ends) < h * w:
        raise ValueError(f"{op}: indices must lie in a picture of {h} x {w} pixels")
    out = _check.output(op, out, (n, c, h, w), grad_output, [grad_output])
    select(grad_output).max_pool2d_backward(out, grad_output, indices)
    return out


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Mean under every window; padding counts as zeros, as in torch.

    Parameters
    ----------
    input : Tensor (N, C, H, W), float32 or float64
    kernel_size, stride, padding : int or (int, int)
        The stride is the kernel's size unless given.
    out : Tensor (N, C, H_out, W_out), optional
    """
    op = "avg_pool2d"
    input = _check.tensor(op, "input", input, 4)
    window = _window(op, kernel_size, stride, padding)
    out = _check.output(op, out, _pooled_size(op, input.shape, window), input, [input])
    select(input).avg_pool2d(out, input, window)
    return out


def avg_pool2d_backward(
    grad_output: Tensor,
    input_size: Sequence[int],
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Every gradient is spread evenly over its window, the adjoint of `avg_pool2d`."""
    op = "avg_pool2d_backward"
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    window = _window(op, kernel_size, stride, padding)
    size = _picture_size(op, input_size)
    _expect_size(op, "grad_output", grad_output, _pooled_size(op, size, window))
    out = _check.output(op, out, size, grad_output, [grad_output])
    select(grad_output).avg_pool2d_backward(out, grad_output, window)
    return out


def upsample_nearest2d(input: Tensor, scale_factor: Pair, *, out: Tensor | None = None) -> Tensor:
    """Every pixel repeated over a block of ``scale_factor`` pixels.

    Parameters
    ----------
    input : Tensor (N, C, H, W), float32 or float64
    scale_factor : int or (int, int)
    out : Tensor (N, C, H*fh, W*fw), optional
    """
    op = "upsample_nearest2d"
    input = _check.tensor(op, "input", input, 4)
    fh, fw = _check.pair(op, "scale_factor", scale_factor, 1)
    n, c, h, w = input.shape
    out = _check.output(op, out, (n, c, h * fh, w * fw), input, [input])
    select(input).upsample_nearest2d(out, input, (fh, fw))
    return out


def upsample_nearest2d_backward(
    grad_output: Tensor, scale_factor: Pair, *, out: Tensor | None = None
) -> Tensor:
    """Sum over every block, the adjoint of `upsample_nearest2d`."""
    op = "upsample_nearest2d_backward"
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    fh, fw = _check.pair(op, "scale_factor", scale_factor, 1)
    n, c, h, w = grad_output.shape
    if h % fh or w % fw:
        raise ValueError(
            f"{op}: grad_output of {h} x {w} pixels cannot be divided into blocks of {fh} x {fw}"
        )
    out = _check.output(op, out, (n, c, h // fh, w // fw), grad_output, [grad_output])
    select(grad_output).upsample_nearest2d_backward(out, grad_output, (fh, fw))
    return out
