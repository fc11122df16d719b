"""What a training run asks of whatever it minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from pydenoise import nn


class Objective(ABC):
    """What one training step minimises."""

    def begin(self, epoch: int, progress: float) -> None:  # noqa: B027  # most have no use for it
        """Hear of an epoch before its first step.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        progress : float
            The share of the run that lies behind, in [0, 1).
        """

    @abstractmethod
    def step(self, model: nn.Module, source: Tensor, target: Tensor) -> float:
        """Add the gradient of one batch to the parameters' gradients; returns the loss."""
