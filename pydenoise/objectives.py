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
        """
        try:
            with interior(model, self.loss):
                output = model.forward(source)
                loss: float = self.loss.forward(output, target)
                model.backward_parameters(self.loss.backward())
        except BaseException:
            model.forget()
            self.loss.forget()
            raise
        return loss
