"""The compiled backends' pointwise half: activations, losses, optimizer updates.

Destination first, overwritten; part of `_compiled`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _reference_pointwise
from ._library import dense

_DOUBLE = torch.float64


def _like(tensor: Tensor, out: Tensor) -> Tensor:
    """The tensor, of the shape of `out`, with its elements in memory in the order of `out`."""
    if tensor.is_contiguous() and out.is_contiguous():
        return tensor
    if tensor.stride() == out.stride():
        return tensor
    return torch.empty_like(out).copy_(tensor)


class Pointwise:
    """Elementwise calls of a library of kernels; the L0 loss has none and is the reference's."""

    l0_loss = staticmethod(_reference_pointwise.l0_loss)
    l0_loss_backward = staticmethod(_reference_pointwise.l0_loss_backward)

    def __init__(self, library: Any) -> None:
        self._library = library

    def relu(self, out: Tensor, input: Tensor) -> None:
        input = _like(input, out)
        self._library.relu(out.dtype is _DOUBLE, out, input)

    def relu_backward(self, out: Tensor, grad_output: Tensor, output: Tensor) -> None:
        grad_output = _like(grad_output, out)
        output = _like(output, out)
        self._library.relu_backward(
            out.dtype is _DOUBLE,
            out,
            grad_output,
            output,
        )

    def leaky_relu(self, out: Tensor, input: Tensor, negative_slope: float) -> None:
        input = _like(input, out)
        self._library.leaky_relu(out.dtype is _DOUBLE, out, input, negative_slope)

    def leaky_relu_backward(
        self, out: Tensor, grad_output: Tensor, input: Tensor, negative_slope: float
    ) -> None:
        grad_output = _like(grad_output, out)
        input = _like(input, out)
        self._library.leaky_relu_backward(
            out.dtype is _DOUBLE,
            out,
            grad_output,
            input,
            negative_slope,
        )

    def sigmoid(self, out: Tensor, input: Tensor) -> None:
        input = _like(input, out)
        self._library.sigmoid(out.dtype is _DOUBLE, out, input)

    def sigmoid_backward(self, out: Tensor, grad_output: Tensor, output: Tensor) -> None:
        grad_output = _like(grad_output, out)
        output = _like(output, out)
        self._library.sigmoid_backward(out.dtype is _DOUBLE, out, grad_output, output)

    def mse_loss(self, input: Tensor, target: Tensor) -> float:
        input = dense(input)[0]
        target = _like(target, input)
        loss: float = self._library.mse_loss(input.dtype is _DOUBLE, input, target)
        return loss

    def mse_loss_backward(
        self, out: Tensor, input: Tensor, target: Tensor, grad_output: float
    ) -> None:
        input = _like(input, out)
        target = _like(target, out)
        self._library.mse_loss_backward(out.dtype is _DOUBLE, out, input, target, grad_output)

    def l1_loss(self, input: Tensor, target: Tensor) -> float:
        input = dense(input)[0]
        target = _like(target, input)
        loss: float = self._library.l1_loss(input.dtype is _DOUBLE, input, target)
        return loss

    def l1_loss_backward(
        self, out: Tensor, input: Tensor, target: Tensor, grad_output: float
    ) -> None:
        input = _like(input, out)
        target = _like(target, out)
        self._library.l1_loss_backward(out.dtype is _DOUBLE, out, input, target, grad_output)

    def sgd_step(
        self,
        param: Tensor,
        grad: Tensor,
        momentum_buffer: Tensor | None,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        first: bool,
    ) -> None:
        self._library.sgd_step(
            param.dtype is _DOUBLE,
            param,
            grad,
            momentum_buffer,
            (lr, momentum, dampening, weight_decay),
            nesterov,
            first,
        )

    def adam_step(
        self,
        param: Tensor,
        grad: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        decoupled: bool,
        step: int,
    ) -> None:
        self._library.adam_step(
            param.dtype is _DOUBLE,
            param,
            grad,
            exp_avg,
            exp_avg_sq,
            (lr, beta1, beta2, eps, weight_decay),
            decoupled,
            step,
        )
