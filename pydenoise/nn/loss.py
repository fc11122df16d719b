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

    def begin(self, progress: float) -> None:
        """Become the loss of a part of the training run.

        Parameters
        ----------
        progress : float
            The share of the run that lies behind, in [0, 1). Most losses stay what they are.
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


class MaskedMSELoss(MSELoss):
    """Mean squared error that looks past the elements of the target that are zero.

    ::

        forward    L  = sum over t != 0 of (y - t)^2 / count
        backward   gy = 2 (y - t) / count where t != 0, else 0

    Notes
    -----
    For targets of which pixels are lost, see `pydenoise.data.Bernoulli`. `count` counts the lost
    ones too, so that every pixel that is left weighs the same, however many are.

    Examples
    --------
    >>> import torch
    >>> loss = MaskedMSELoss()
    >>> loss(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0]))
    2.0
    >>> loss.backward()
    tensor([0., 2.])
    """

    def forward(self, input: Tensor, target: Tensor) -> float:
        if isinstance(input, Tensor) and isinstance(target, Tensor) and input.shape == target.shape:
            # Where the target is zero the input is, too: no error, and no gradient.
            input = input.detach().where(target.detach() != 0, target.detach())
        return super().forward(input, target)


class AnnealedL0Loss(Loss):
    """Mean of a power of the error that sinks from 2 to 0 in training.

    ::

        forward    L  = mean((|y - t| + 1e-8)^gamma)
        backward   gy = gamma (|y - t| + 1e-8)^(gamma - 1) sign(y - t) / count

    At 2 its minimum over noisy targets is their mean, at 1 their median, near 0 their commonest
    value: the clean one, where noise replaces pixels by random values.

    Parameters
    ----------
    gamma : float
        Above 0, at most 2; `begin`, called once an epoch, sets it to ``2 (1 - progress)``.

    Notes
    -----
    J. Lehtinen et al., "Noise2Noise: learning image restoration without clean data", ICML 2018,
    section 3.2.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not 0 < gamma <= 2:
            raise ValueError(f"AnnealedL0Loss: gamma must lie in (0, 2], got {gamma}")
        self.gamma = float(gamma)

    def begin(self, progress: float) -> None:
        self.gamma = 2 * (1 - progress)

    def _value(self, input: Tensor, target: Tensor) -> float:
        return ops.l0_loss(input, target, self.gamma)

    def _gradient(self, input: Tensor, target: Tensor, grad_output: float) -> Tensor:
        return ops.l0_loss_backward(input, target, self.gamma, grad_output)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma:g}"


LOSSES: dict[str, type[Loss]] = {
    "mse": MSELoss,
    "l1": L1Loss,
    "l0": AnnealedL0Loss,
    "masked": MaskedMSELoss,
}
"""Losses by name, as noise models name theirs; each can be built without arguments."""
