"""What a training run asks of whatever it minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pydenoise import nn


class Objective(ABC):
    """What one training step minimises."""

    def begin(self, epoch: int, progress: float, taken: int = 0) -> None:  # noqa: B027  # optional
        """Hear of an epoch before its first step, or in its midst where a run goes on.

        Parameters
        ----------
        epoch : int
            Its number, from 0.
        progress : float
            The share of the run that lies behind its first step, in [0, 1).
        taken : int
            Steps of the epoch that lie behind.
        """

    def see(self, numbers: Sequence[int]) -> None:  # noqa: B027  # optional
        """Hear which pairs of the source the next step is on, one number for each picture.

        What is drawn for a picture is to depend on the epoch and its number alone: then a batch
        may be cut between processes, and a run go on in the midst of an epoch.
        """

    @abstractmethod
    def step(self, model: nn.Module, source: Tensor, target: Tensor) -> float:
        """Add the gradient of one batch to the parameters' gradients; returns the loss."""

    def describe(self) -> dict[str, Any]:
        """What this is, as JSON can hold it: a run goes on only with the same."""
        return {"kind": type(self).__name__}
