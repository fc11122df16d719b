"""Losses: a number that says how far two tensors are apart, and where it falls."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pydenoise import ops

from .module import Module


class Loss(Module):
    """Base of the losses: `forward(input, target)` is a number, `backward()` is dL/dinput.

    The gradient with respect to the target is the negative of the one with respect to the input.
    """

    def forward(self, input: Tensor, target: Tensor) -> float:
        """Loss of `input` against `target`, of one shape, dtype and device."""
        loss = self._value(input, target)
        self._keep(input, input, target)
        return loss

    def backward(self, grad_output: float = 1.0) -> Tensor:
        """dL/dinput of the newest open forward pass, times the number `grad_output`."""
        input, target = self._recall(None)
        return self._gradient(input, target, grad_output)

    def _value(self, input: Tensor, target: Tensor) -> float:
        raise TypeError(f"{type(self).__name__} defines no value")

    def _gradient(self, input: Tensor, target: Tensor, grad_output: float) -> Tensor:
        raise TypeError(f"{type(self).__name__} defines no gradient")

    def __call__(self, *input: Tensor, **keywords: Any) -> float:
        return self.forward(*input, **keywords)


class MSELoss(Loss):
    """Mean squared error over all elements.

    ::

        forward    L  = mean((y - t)^2)
        backward   gy = 2 (y - t) / count

    Examples
    --------
    >>> import torch
    >>> loss = MSELoss()
    >>> loss(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]))
    2.0
    >>> loss.backward()
    tensor([0., 2.])
    """

    def _value(self, input: Tensor, target: Tensor) -> float:
        return ops.mse_loss(input, target)

    def _gradient(self, input: Tensor, target: Tensor, grad_output: float) -> Tensor:
        return ops.mse_loss_backward(input, target, grad_output)


class L1Loss(Loss):
    """Mean absolute error over all elements; its minimum over noisy targets is their median.

    ::

        forward    L  = mean(|y - t|)
        backward   gy = sign(y - t) / count
    """

    def _value(self, input: Tensor, target: Tensor) -> float:
        return ops.l1_loss(input, target)

    def _gradient(self, input: Tensor, target: Tensor, grad_output: float) -> Tensor:
        return ops.l1_loss_backward(input, target, grad_output)
