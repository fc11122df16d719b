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
    names = "grad_output", "input", "weight"
    gz, x, w = _check.tensors(op, names, (grad_output, input, weight), 4)
    shape = forward_shape(op, (x.shape, w.shape, gz.shape), stride, padding, dilation, groups)
    finish, _ = checked_finish(op, finish, shape.input_size, gz)
    gx = None
    if needs_grad_input:
        gx = _check.output(op, None, shape.input_size, gz, memory_format=memory_format)
    _add_gradients(op, grad_weight, grad_bias, gz, x, gz, w, shape)
    if gx is None:
        return None
    chosen = convolver("conv2d_grad_input", gz, shape)
    finished(chosen.conv2d_grad_input, chosen, finish, gx, gz, w, None, shape)
    return gx


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
    names = "grad_output", "input", "weight"
    gz, x, w = _check.tensors(op, names, (grad_output, input, weight), 4)
    shape = forward_shape(op, (gz.shape, w.shape, x.shape), stride, padding, dilation, groups)
    finish, _ = checked_finish(op, finish, shape.output_size, gz)
    gx = None
    if needs_grad_input:
        gx = _check.output(op, None, shape.output_size, gz, memory_format=memory_format)
    _add_gradients(op, grad_weight, grad_bias, x, gz, gz, w, shape)
    if gx is None:
        return None
    chosen = convolver("conv2d", gz, shape)
    finished(chosen.conv2d, chosen, finish, gx, gz, w, None, shape)
    return gx


def _add_gradients(
    op: str,
    grad_weight: Any,
    grad_bias: Any,
    small: Tensor,
    large: Tensor,
    grad_output: Tensor,
    weight: Tensor,
    shape: ConvShape,
) -> None:
    """gW from the pictures on both sides of the forward convolution, gb from grad_output."""
    read = small, large, weight
    gw = _check.added_to(op, "grad_weight", grad_weight, shape.weight_size, grad_output, read)
    if grad_bias is not None:
        channels = (grad_output.shape[1],)
        _check.added_to(op, "grad_bias", grad_bias, channels, grad_output, (*read, gw))
    convolver("conv2d_grad_weight", grad_output, shape).conv2d_grad_weight(
        gw, small, large, shape, True
    )
    if grad_bias is not None:
        select(grad_output).conv2d_grad_bias(grad_bias, grad_output, True)
