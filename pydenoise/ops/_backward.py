"""The whole backward pass of a convolution as one call: checked once, then the three products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._backend import convolver, select
from ._check import Pair
from ._conv import checked_finish, finished
from ._finish import Finish
from ._geometry import forward_shape
from ._shape import ConvShape


def conv2d_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    grad_weight: Tensor,
    grad_bias: Tensor | None = None,
    needs_grad_input: bool = True,
    finish: Finish | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor | None:
    """Every gradient of `conv2d`: ``gW += gz u(x)^T``, ``gb += sum gz``, ``gx = f(W^T gz)``.

    Parameters
    ----------
    grad_output : Tensor (N, C_out, H_out, W_out), float32 or float64
    input : Tensor (N, C_in, H, W)
    weight : Tensor (C_out, C_in/groups, kh, kw)
    stride, padding, dilation, groups
        Those of the forward convolution.
    grad_weight : Tensor (C_out, C_in/groups, kh, kw)
        Added to; contiguous, and nothing that is read lies in its memory.
    grad_bias : Tensor (C_out,), optional
        The same.
    needs_grad_input : bool
        Whether gx is wanted.
    finish : Finish, optional
        The activation that made `input`, to take the gradient on through it.
    memory_format : torch.memory_format, optional
        Of gx; that of `grad_output` if omitted.

    Returns
    -------
    Tensor (N, C_in, H, W) or None

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv2d_backward"
    gz, x, w = _check.tensors(op, _NAMES, (grad_output, input, weight), 4)
    shape = forward_shape(op, (x.shape, w.shape, gz.shape), stride, padding, dilation, groups)
    given = grad_weight, grad_bias, needs_grad_input, finish, memory_format
    return _gradients(op, "conv2d_grad_input", gz, w, (gz, x), shape, shape.input_size, *given)


def conv_transpose2d_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    grad_weight: Tensor,
    grad_bias: Tensor | None = None,
    needs_grad_input: bool = True,
    finish: Finish | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor | None:
    """Every gradient of `conv_transpose2d`.

    ``gW += x u(gz)^T``, ``gb += sum gz``, ``gx = W u(gz)``.

    Parameters
    ----------
    grad_output : Tensor (N, C_out, H_out, W_out), float32 or float64
    input : Tensor (N, C_in, H, W)
    weight : Tensor (C_in, C_out/groups, kh, kw)
    stride, padding, groups, dilation
        Those of the transposed convolution; the output's size says its output_padding.
    grad_weight, grad_bias, needs_grad_input, finish, memory_format
        As in `conv2d_backward`, for the shapes of this weight, (C_out,) and `input`.

    Returns
    -------
    Tensor (N, C_in, H, W) or None

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv_transpose2d_backward"
    gz, x, w = _check.tensors(op, _NAMES, (grad_output, input, weight), 4)
    shape = forward_shape(op, (gz.shape, w.shape, x.shape), stride, padding, dilation, groups)
    given = grad_weight, grad_bias, needs_grad_input, finish, memory_format
    return _gradients(op, "conv2d", gz, w, (x, gz), shape, shape.output_size, *given)


_NAMES = "grad_output", "input", "weight"


def _gradients(
    op: str,
    product: str,
    gz: Tensor,
    weight: Tensor,
    pictures: tuple[Tensor, Tensor],
    shape: ConvShape,
    size: tuple[int, ...],
    grad_weight: Any,
    grad_bias: Any,
    needs_grad_input: bool,
    finish: Finish | None,
    memory_format: torch.memory_format | None,
) -> Tensor | None:
    """All is checked, then gW from the small and the large picture, gb, and gx by `product`."""
    small, large = pictures
    read = small, large, weight
    gw = _check.added_to(op, "grad_weight", grad_weight, shape.weight_size, gz, read)
    if grad_bias is not None:
        channels = (gz.shape[1],)
        _check.added_to(op, "grad_bias", grad_bias, channels, gz, (*read, gw))
    finish, _ = checked_finish(op, finish, size, gz)
    gx = None
    if needs_grad_input:
        gx = _check.output(op, None, size, gz, memory_format=memory_format)
    convolver("conv2d_grad_weight", gz, shape).conv2d_grad_weight(gw, small, large, shape, True)
    if grad_bias is not None:
        select(gz).conv2d_grad_bias(grad_bias, gz, True)
    if gx is not None:
        chosen = convolver(product, gz, shape)
        finished(getattr(chosen, product), chosen, finish, gx, gz, weight, None, shape)
    return gx
