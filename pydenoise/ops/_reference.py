"""Every operation in readable Python: the fallback, the oracle of the kernels, the explanation.

The functions have the names and argument order of `_compiled`: destination first, overwritten (or
added to where the argument `accumulate` says so), then inputs, then the shape. `ops` has checked
them all.

One idea carries the file. A kernel offset ("tap") (i, j) of a convolution meets the output pixel
(y, x) and the input pixel (y*stride + i*dilation - padding, ...). For a fixed tap those are two
strided slices of equal size, so everything is a loop over taps of slice-to-slice work:

    im2col        columns[:, i, j, here]  = input[there]
    col2im        output[there]          += columns[:, i, j, here]
    conv2d        output[here]           += W[:, :, i, j]   @ input[there]
    grad_input    grad_input[there]      += W[:, :, i, j]^T @ grad_output[here]
    grad_weight   grad_W[:, :, i, j]     += grad_output[here] @ input[there]^T

The last two are the first product's shadows; the patch matrix is never stored.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import EllipsisType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ._reference_pointwise import (
    adam_step,
    l0_loss,
    l0_loss_backward,
    l1_loss,
    l1_loss_backward,
    leaky_relu,
    leaky_relu_backward,
    mse_loss,
    mse_loss_backward,
    relu,
    relu_backward,
    sgd_step,
    sigmoid,
    sigmoid_backward,
)
from ._shape import ConvShape, PoolWindow

__all__ = [
    "adam_step",
    "add_bias",
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_grad_bias",
    "conv2d_grad_input",
    "conv2d_grad_weight",
    "im2col",
    "l0_loss",
    "l0_loss_backward",
    "l1_loss",
    "l1_loss_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "matmul",
    "max_pool2d",
    "max_pool2d_backward",
    "mse_loss",
    "mse_loss_backward",
    "relu",
    "relu_backward",
    "sgd_step",
    "sigmoid",
    "sigmoid_backward",
    "upsample_nearest2d",
    "upsample_nearest2d_backward",
]

Pixels: TypeAlias = tuple[EllipsisType, slice, slice]
"""Index of a tensor (..., H, W) that picks a strided rectangle of its pixels."""


FINISHES = False
TILE = 1


def by_winograd(algorithm: str, product: str, shape: ConvShape) -> Any:
    """There are no Winograd products here."""
    return sys.modules[__name__]


def fastest(product: str, shape: ConvShape) -> str:
    """The algorithm that `auto` takes: always one large product, which beats many small ones."""
    return "im2col"


# Taps


def _touching(
    kernel: int, stride: int, padding: int, dilation: int, in_size: int, out_size: int
) -> Iterator[tuple[int, slice, slice]]:
    """Yield (offset, output slice, input slice) of every kernel offset of one axis that touches
    the input at all; the rest of its output positions lie in the padding."""
    for offset in range(kernel):
        shift = offset * dilation - padding
        first = max(0, -(shift // stride))
        last = min(out_size - 1, (in_size - 1 - shift) // stride)
        if first <= last:
            start = first * stride + shift
            stop = last * stride + shift + 1
            yield offset, slice(first, last + 1), slice(start, stop, stride)


def _cross(
    rows: Iterable[tuple[int, slice, slice]], cols: Iterable[tuple[int, slice, slice]]
) -> Iterator[tuple[int, int, Pixels, Pixels]]:
    """Combine the offsets of both axes into taps (i, j, here, there)."""
    cols = list(cols)
    for i, out_rows, in_rows in rows:
        for j, out_cols, in_cols in cols:
            yield i, j, (..., out_rows, out_cols), (..., in_rows, in_cols)


def _taps(s: ConvShape) -> Iterator[tuple[int, int, Pixels, Pixels]]:
    """Yield (i, j, here, there): `here` picks output pixels, `there` the input pixels they meet."""
    return _cross(
        _touching(s.kernel_h, s.stride_h, s.padding_h, s.dilation_h, s.in_h, s.out_h),
        _touching(s.kernel_w, s.stride_w, s.padding_w, s.dilation_w, s.in_w, s.out_w),
    )


def _window_taps(
    window: PoolWindow, input: Tensor, output: Tensor
) -> Iterator[tuple[int, int, Pixels, Pixels]]:
    """Do what `_taps` does, for a pooling window."""
    kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w = window
    return _cross(
        _touching(kernel_h, stride_h, padding_h, 1, input.shape[2], output.shape[2]),
        _touching(kernel_w, stride_w, padding_w, 1, input.shape[3], output.shape[3]),
    )


# Patch matrix


def _patches(columns: Tensor, s: ConvShape) -> Tensor:
    """View columns (N, C*kh*kw, out_h*out_w) as (N, C, kh, kw, out_h, out_w)."""
    patches = torch.unflatten(columns, 1, (s.in_channels, s.kernel_h, s.kernel_w))
    return torch.unflatten(patches, 4, (s.out_h, s.out_w))


def im2col(columns: Tensor, input: Tensor, shape: ConvShape) -> None:
    """u(x): copy the patch under every output pixel into a column; zero where it is padding."""
    patches = _patches(columns.zero_(), shape)
    for i, j, here, there in _taps(shape):
        patches[:, :, i, j][here] = input[there]


def col2im(output: Tensor, columns: Tensor, shape: ConvShape) -> None:
    """f(c), the adjoint of `im2col`: put every column back where its patch was; overlaps sum."""
    patches = _patches(columns, shape)
    output.zero_()
    for i, j, here, there in _taps(shape):
        output[there] += patches[:, :, i, j][here]


def matmul(out: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
    """Batched product (B, M, K) @ (B, K, N) of views of any strides."""
    out.baddbmm_(a, b, beta=1 if accumulate else 0)


# Convolution


def _grouped(pixels: Tensor, groups: int) -> Tensor:
    """View channels (N, C, h, w) as (N, groups, C/groups, h, w)."""
    return torch.unflatten(pixels, 1, (groups, pixels.shape[1] // groups))


def _grouped_weight(weight: Tensor, groups: int) -> Tensor:
    """View a weight (O, C/groups, kh, kw) as (groups, O/groups, C/groups, kh, kw)."""
    return torch.unflatten(weight, 0, (groups, weight.shape[0] // groups))


def _fill_channels(out: Tensor, bias: Tensor | None) -> None:
    """Start a sum over taps: every pixel of channel c holds bias[c], or zero."""
    if bias is None:
        out.zero_()
    else:
        out.copy_(bias[:, None, None])


def _apply(matrix: Tensor, pixels: Tensor) -> Tensor:
    """Multiply the channels of every pixel: (g, M, K) on (N, g, K, h, w) gives (N, g, M, h, w)."""
    product = matrix @ pixels.flatten(3)
    return torch.unflatten(product, 3, pixels.shape[3:])


def conv2d(
    output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape
) -> None:
    """z = W u(x) + b."""
    w = _grouped_weight(weight, shape.groups)
    x, z = _grouped(input, shape.groups), _grouped(output, shape.groups)
    _fill_channels(output, bias)
    for i, j, here, there in _taps(shape):
        z[here] += _apply(w[..., i, j], x[there])


def conv2d_grad_input(
    grad_input: Tensor, grad_output: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape
) -> None:
    """gx = f(W^T gz) (+ b: the transposed convolution's own bias, one value per channel of gx)."""
    w = _grouped_weight(weight, shape.groups)
    gx, gz = _grouped(grad_input, shape.groups), _grouped(grad_output, shape.groups)
    _fill_channels(grad_input, bias)
    for i, j, here, there in _taps(shape):
        gx[there] += _apply(w[..., i, j].mT, gz[here])


def conv2d_grad_weight(
    grad_weight: Tensor, grad_output: Tensor, input: Tensor, shape: ConvShape, accumulate: bool
) -> None:
    """gW = sum over the batch of gz u(x)^T, added to grad_weight when `accumulate`."""
    gw = _grouped_weight(grad_weight, shape.groups)
    x, gz = _grouped(input, shape.groups), _grouped(grad_output, shape.groups)
    if not accumulate:
        grad_weight.zero_()
    for i, j, here, there in _taps(shape):
        per_picture = gz[here].flatten(3) @ x[there].flatten(3).mT
        gw[..., i, j] += per_picture.sum(dim=0)


def add_bias(image: Tensor, bias: Tensor) -> None:
    """One value for every channel, added in place."""
    image += bias[:, None, None]


def conv2d_grad_bias(grad_bias: Tensor, grad_output: Tensor, accumulate: bool) -> None:
    """gb = sum of gz over pictures and pixels, added to grad_bias when `accumulate`."""
    total = grad_output.sum(dim=(0, 2, 3))
    if accumulate:
        grad_bias += total
    else:
        grad_bias.copy_(total)


# Pooling and upsampling


def max_pool2d(out: Tensor, indices: Tensor, input: Tensor, window: PoolWindow) -> None:
    """Largest value under every window, and where it was: row * W + column.

    As in torch the first of equal values wins, and a NaN beats every number.
    """
    height, width = input.shape[2:]
    position = torch.arange(height * width, device=input.device).view(height, width)
    indices.fill_(-1)
    for _, _, here, there in _window_taps(window, input, out):
        candidate, best, where = input[there], out[here], indices[here]
        wins = (where < 0) | (candidate > best) | candidate.isnan()
        best.copy_(candidate.where(wins, best))
        where.copy_(position[there].where(wins, where))


def max_pool2d_backward(out: Tensor, grad_output: Tensor, indices: Tensor) -> None:
    """Send every gradient to the pixel that won its window; a pixel of several windows sums."""
    pixels = out.new_zeros(out.shape).flatten(2)
    pixels.scatter_add_(2, indices.flatten(2), grad_output.flatten(2))
    out.copy_(pixels.view(out.shape))


def avg_pool2d(out: Tensor, input: Tensor, window: PoolWindow) -> None:
    """Mean under every window; padding counts as zeros."""
    out.zero_()
    for _, _, here, there in _window_taps(window, input, out):
        out[here] += input[there]
    out.div_(window[0] * window[1])


def avg_pool2d_backward(out: Tensor, grad_output: Tensor, window: PoolWindow) -> None:
    """Spread every gradient evenly over its window."""
    share = grad_output / (window[0] * window[1])
    out.zero_()
    for _, _, here, there in _window_taps(window, out, grad_output):
        out[there] += share[here]


def _block_taps(factor: tuple[int, int]) -> Iterator[Pixels]:
    """Yield the pixels of every block that have the same place in it, place after place."""
    for i in range(factor[0]):
        for j in range(factor[1]):
            yield ..., slice(i, None, factor[0]), slice(j, None, factor[1])


def upsample_nearest2d(out: Tensor, input: Tensor, factor: tuple[int, int]) -> None:
    """Repeat every pixel over a block of fh x fw."""
    for there in _block_taps(factor):
        out[there] = input


def upsample_nearest2d_backward(out: Tensor, grad_output: Tensor, factor: tuple[int, int]) -> None:
    """Sum every block of fh x fw, the adjoint of `upsample_nearest2d`."""
    out.zero_()
    for there in _block_taps(factor):
        out += grad_output[there]


# Whatever comes in, torch records nothing of what happens here
for _name in __all__:
    globals()[_name] = torch.no_grad()(globals()[_name])
