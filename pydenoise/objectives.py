"""What one training step minimises, and how its gradient gets into the parameters."""

from __future__ import annotations

from torch import Tensor

from pydenoise import nn
from pydenoise.nn.containers import interior

__all__ = ["Noise2Noise"]


class Noise2Noise:
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

    def step(self, model: nn.Module, source: Tensor, target: Tensor) -> float:
        """Add the gradient of one batch to the parameters' gradients.

        Parameters
        ----------
        model : Module
            In training mode.
        source, target : Tensor (N, C, H, W), float32 or float64
            Two noisy pictures of each scene.

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
        steps no tensor is created any more. An exception leaves no open entries behind.

        A batch of more than about 32,000 pixels goes through in parts, one after the other, whose
        gradients add up: what passes between the layers then stays in the processor's cache. The
        parts depend on the batch's shape alone. Where the model or the loss has a part of the
        user's, which may mix the pictures of a batch, the whole batch goes through at once.
        """
        try:
            with interior(model, self.loss):
                cut = model.stays_inside() and self.loss.stays_inside()
                parts = _parts(source) if cut else 1
                if parts == 1 or source.shape != target.shape:
                    return self._add_gradients(model, source, target, 1.0)
                loss = 0.0
                for x, t in zip(
                    source.tensor_split(parts), target.tensor_split(parts), strict=True
                ):
                    loss += self._add_gradients(model, x, t, len(x) / len(source))
                return loss
        except BaseException:
            model.forget()
            self.loss.forget()
            raise

    def _add_gradients(
        self, model: nn.Module, source: Tensor, target: Tensor, share: float
    ) -> float:
        """Forward and backward of some of the batch's pictures, `share` of all."""
        loss: float = self.loss.forward(model.forward(source), target)
        model.backward_parameters(self.loss.backward(share))
        return share * loss


_PART_PIXELS = 32_768
"""Pixels that go through a network together: 32 pictures of 32 x 32."""


def _parts(source: Tensor) -> int:
    if not isinstance(source, Tensor) or source.dim() != 4:
        return 1
    batch, _, height, width = source.shape
    together = max(1, _PART_PIXELS // max(1, height * width))
    return max(1, -(-batch // together))
