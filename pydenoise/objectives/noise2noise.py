"""Two noisy pictures of each scene: one goes in, the other is aimed at."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pydenoise import nn
from pydenoise.nn.containers import interior
from pydenoise.objectives.objective import Objective
from pydenoise.playback import play


class Noise2Noise(Objective):
    """Distance of the network's output to another noisy picture of the same scene.

    ::

        L = loss(model(source), target)

    Parameters
    ----------
    loss : Loss, optional
        `MSELoss` if omitted, whose minimum is the mean over all noisy targets: the clean picture
        for noise of mean zero.

    Notes
    -----
    J. Lehtinen et al., "Noise2Noise: learning image restoration without clean data", ICML 2018.
    """

    def __init__(self, loss: nn.Loss | None = None) -> None:
        self.loss = nn.MSELoss() if loss is None else loss

    def begin(self, epoch: int, progress: float, taken: int = 0) -> None:
        """Hand the progress on to the loss, which may sink with the run."""
        self.loss.begin(progress)

    def step(self, model: nn.Module, source: Tensor, target: Tensor, share: float = 1.0) -> float:
        """Add the gradient of one batch to the parameters' gradients.

        Parameters
        ----------
        model : Module
            In training mode.
        source, target : Tensor (N, C, H, W), float32 or float64
            Two noisy pictures of each scene.
        share : float
            A number by which loss and gradient are multiplied.

        Returns
        -------
        float
            The loss.

        Raises
        ------
        RuntimeError
            For a model in eval mode.

        Notes
        -----
        The output and all gradients stay inside, so their memory is recycled: after the first
        steps no tensor is created any more. An exception leaves no open entries behind. From the
        third step on batches of one shape the kernels are called without the layers, see
        `pydenoise.playback`.

        A batch of more than about 32,000 pixels goes through in parts, one after the other, whose
        gradients add up: what passes between the layers then stays in the processor's cache. The
        parts depend on the batch's shape alone. Where the model or the loss has a part of the
        user's, which may mix the pictures of a batch, the whole batch goes through at once.
        """
        parts = _parts(source)
        if parts > 1 and source.shape == target.shape and self._cuts(model):
            pairs = zip(source.tensor_split(parts), target.tensor_split(parts), strict=True)
            return sum(
                self._add_gradients(model, *pair, share * len(pair[0]) / len(source))
                for pair in pairs
            )
        return self._add_gradients(model, source, target, share)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "loss": type(self.loss).__name__}

    def _cuts(self, model: nn.Module) -> bool:
        return model.stays_inside() and self.loss.stays_inside()

    def _add_gradients(
        self, model: nn.Module, source: Tensor, target: Tensor, share: float
    ) -> float:
        """Forward and backward of pictures that are all of the batch, or some."""

        def run(source: Tensor, target: Tensor) -> float:
            try:
                with interior(model, self.loss):
                    loss = self.loss.forward(model.forward(source), target)
                    model.backward_parameters(self.loss.backward(share))
            except BaseException:
                model.forget()
                self.loss.forget()
                raise
            return share * loss

        return play(model, self.loss, (source, target), share, run)


_PART_PIXELS = 32_768
"""Pixels that go through a network together in main memory: 32 pictures of 32 x 32."""


def _parts(source: Tensor) -> int:
    if not isinstance(source, Tensor) or source.dim() != 4 or not source.is_cpu:
        return 1
    batch, _, height, width = source.shape
    together = max(1, _PART_PIXELS // max(1, height * width))
    return max(1, -(-batch // together))
