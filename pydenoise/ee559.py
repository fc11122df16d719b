"""The names and the interface of the EPFL course EE-559, over this package's own layers.

`Conv2d, TransposeConv2d, NearestUpsampling, ReLU, Sigmoid, MSE, SGD, Sequential` take torch's
arguments in torch's order; every module has `forward`, `backward` and `param`. `Model` is the
denoiser of the course's report: pictures on the scale 0 to 255 in and out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pydenoise import models, nn, optim
from pydenoise.checkpoint import load_weights
from pydenoise.data import Augmented, PairSource
from pydenoise.data.pairs import Batch, Indices, scaled
from pydenoise.data.resident import ResidentPairs, ResidentTensors
from pydenoise.inference import denoise
from pydenoise.nn import Conv2d, ConvTranspose2d as TransposeConv2d, ReLU, Sequential, Sigmoid
from pydenoise.training import train

__all__ = [
    "Conv2d",
    "TransposeConv2d",
    "NearestUpsampling",
    "ReLU",
    "Sigmoid",
    "MSE",
    "SGD",
    "Sequential",
    "Model",
]

WEIGHTS = Path(__file__).parent / "weights" / "ee559.safetensors"

# The recipe that `Model.train` follows; how it was found stands in bench/ablation.py.
BATCH_SIZE = 16
LEARNING_RATE = 5e-3
AVERAGE = 0.999


class NearestUpsampling(nn.Upsample):
    """Repeat every pixel `scale_factor` times in both directions.

    Parameters
    ----------
    scale_factor : int or (int, int)
        Factor, or factors of height and width, at least 1.
    """

    def __init__(self, scale_factor: int | tuple[int, int]) -> None:
        super().__init__(scale_factor)


class MSE(nn.Module):
    """Mean squared error as a tensor without dimensions.

    ::

        forward    L  = mean((y - t)^2)
        backward   gy = 2 (y - t) / count
    """

    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.MSELoss()

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The error of a prediction against a target of the same shape, dtype and device."""
        return prediction.new_tensor(self.loss(prediction, target))

    def backward(self, grad_output: Tensor | float = 1.0) -> Tensor:
        """dL/dprediction of the newest forward pass, times the gradient from further up."""
        return self.loss.backward(float(grad_output))


class SGD(optim.SGD):
    """Stochastic gradient descent over what `param()` returns.

    Parameters
    ----------
    params : iterable of (tensor, gradient)
        Updated in place.
    lr, momentum, dampening, weight_decay, nesterov
        As in torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[tuple[Tensor, Tensor]],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov)


class Model:
    """The denoiser of the course's report: its Table I, trained on pairs of noisy pictures.

    Attributes
    ----------
    network : Sequential
        The layers. It lives where the pictures it was last given live.

    Examples
    --------
    >>> import torch
    >>> noisy = torch.randint(256, (2, 3, 30, 45), dtype=torch.uint8)
    >>> Model().predict(noisy).shape
    torch.Size([2, 3, 30, 45])
    """

    def __init__(self) -> None:
        self.network = models.autoencoder()

    def load_pretrained_model(self) -> None:
        """Load the weights that ship with the package, trained on point-sampled pairs.

        Raises
        ------
        FileNotFoundError
            When this installation has none.
        WeightsError
            When the file is damaged.

        Notes
        -----
        The course's own pictures are not public. The weights were learnt from pairs made in their
        manner: `pydenoise.data.PointSample`, blocks of 8 pixels, of other photographs.
        """
        if not WEIGHTS.is_file():
            raise FileNotFoundError(
                f"load_pretrained_model: {WEIGHTS} is missing; install the package again, "
                "or train the model"
            )
        trained, _ = load_weights(WEIGHTS)
        self.network.load_state_dict(trained.state_dict())

    def train(self, train_input: Tensor, train_target: Tensor, num_epochs: int) -> None:
        """Train on pairs of noisy pictures, from the weights that the model has now.

        Parameters
        ----------
        train_input, train_target : Tensor
            uint8 or floating point, (N, 3, H, W), 0 to 255, H and W multiples of 4. Two noisy
            pictures of each scene.
        num_epochs : int
            Times every pair is seen, at least 1.

        Raises
        ------
        TypeError, ValueError
            When the pictures or the number of epochs are none of the above.
        TrainingDiverged
            When the loss or a weight is no longer finite.

        Notes
        -----
        Batches of 16, Adam with a cosine over the run, pairs turned, mirrored and swapped at
        random; the model ends with the moving average of the weights.
        """
        _check(train_input, "train_input")
        _check(train_target, "train_target")
        if train_input.shape != train_target.shape:
            raise ValueError(
                "train: train_input and train_target must have one shape, "
                f"got {tuple(train_input.shape)} and {tuple(train_target.shape)}"
            )
        if train_input.shape[2] % 4 or train_input.shape[3] % 4:
            raise ValueError(
                f"train: heights and widths must be multiples of 4, got {tuple(train_input.shape)}"
            )
        self.network.to(train_input.device)
        train(
            self.network,
            Augmented(_Pairs(train_input.cpu(), train_target.cpu())),
            epochs=num_epochs,
            batch_size=BATCH_SIZE,
            optimizer=optim.Adam(self.network, lr=LEARNING_RATE),
            schedule=optim.cosine(),
            average=AVERAGE,
        )

    def predict(self, test_input: Tensor) -> Tensor:
        """Take the noise out of pictures of any number and size.

        Parameters
        ----------
        test_input : Tensor
            uint8 or floating point, (N, 3, H, W), 0 to 255.

        Returns
        -------
        Tensor
            New, float32, of the same shape and on the same device, 0 to 255.
        """
        _check(test_input, "test_input")
        self.network.to(test_input.device)
        return denoise(self.network, scaled(test_input)).mul_(255)


class _Pairs(PairSource):
    """Pairs of pictures on the scale 0 to 255, uint8 or floating point, in main memory."""

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._source = source
        self._target = target
        self.shape = (source.shape[1], source.shape[2], source.shape[3])

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Indices, epoch: int) -> Batch:
        rows = torch.from_numpy(indices)
        return scaled(self._source[rows]), scaled(self._target[rows])

    def resident(self, device: torch.device) -> ResidentPairs:
        return ResidentTensors(self._source, self._target, device)

    def describe(self) -> dict[str, Any]:
        return {"kind": "the course's pairs", "pairs": len(self), "shape": list(self.shape)}


def _check(pictures: Tensor, name: str) -> None:
    if not isinstance(pictures, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(pictures).__name__}")
    if pictures.dtype != torch.uint8 and not pictures.is_floating_point():
        raise TypeError(f"{name} must be uint8 or floating point, got {pictures.dtype}")
    if pictures.dim() != 4 or pictures.shape[1] != 3:
        raise ValueError(f"{name} must have the shape (N, 3, H, W), got {tuple(pictures.shape)}")
