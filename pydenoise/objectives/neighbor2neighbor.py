"""Single noisy pictures: neighbouring pixels are two noisy pictures of nearly the same scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pydenoise import nn
from pydenoise.data import generator
from pydenoise.nn.containers import interior
from pydenoise.objectives.noise2noise import Noise2Noise
from pydenoise.objectives.objective import Objective

# The ordered pairs of pixels of a 2x2 cell that share a side; pixels by number, row by row.
_FIRST = np.array([0, 1, 0, 2, 1, 3, 2, 3])
_SECOND = np.array([1, 0, 2, 0, 3, 1, 3, 2])


class Neighbor2Neighbor(Objective):
    """Distance of one half-size sample of a noisy picture, denoised, to its neighbour.

    ``g1, g2`` take one pixel each of every 2x2 cell, see `neighbors`. With ``p = model(g1 y)`` and
    ``d = g1 model(y) - g2 model(y)``, which no gradient goes through::

        L = mean((p - g2 y)^2) + gamma mean((p - g2 y - d)^2),    gamma = strength progress

    The samples show the scene from half a cell apart. The second term takes that difference,
    ``d``, out of the aim, the more the better the network knows it.

    Parameters
    ----------
    strength : float
        gamma at the end of the run; `progress` is the share of it behind at an epoch's start. The
        paper takes 2, and 1 for raw pictures of a camera.
    seed : int
        The cells of picture i in epoch e are a function of (seed, e, i).

    Notes
    -----
    Completing the square leaves a step of `Noise2Noise`, with a bent target::

        L = (1 + gamma) mean((p - g2 y - b d)^2) + b mean(d^2),    b = gamma / (1 + gamma)
        dL/dp = 2 (1 + gamma) (p - g2 y - b d) / count

    The noise must be independent between pixels and of mean zero.

    T. Huang, S. Li, X. Jia, H. Lu, J. Liu, "Neighbor2Neighbor: self-supervised denoising from
    single noisy images", CVPR 2021.
    """

    def __init__(self, strength: float = 2.0, seed: int = 0) -> None:
        if not strength >= 0:
            raise ValueError(f"Neighbor2Neighbor: strength must be 0 or more, got {strength}")
        self.strength, self.gamma = strength, 0.0
        self._seed, self._epoch = seed, 0
        self._numbers: Iterator[int] = count()
        self._pairs = Noise2Noise(nn.MSELoss())

    def begin(self, epoch: int, progress: float, taken: int = 0) -> None:
        self.gamma = self.strength * progress
        self._epoch, self._numbers = epoch, count()

    def see(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "strength": self.strength, "seed": self._seed}

    def step(self, model: nn.Module, source: Tensor, target: Tensor | None = None) -> float:
        """Add the gradient of one batch to the parameters' gradients.

        Parameters
        ----------
        model : Module
            In training mode; takes pictures of half the size too.
        source : Tensor (N, C, H, W), float32 or float64
            Noisy; an odd last row or column is left out. Unless `see` has said their numbers, the
            pictures of an epoch are numbered as they come.
        target : Tensor, optional
            Not looked at.

        Returns
        -------
        float
            The loss.

        Raises
        ------
        ValueError
            For a picture without a 2x2 cell.
        """
        numbers = islice(self._numbers, len(source))
        streams = [generator(self._seed, self._epoch, number, "neighbors") for number in numbers]
        places = draw_neighbors(source, streams)
        first, second = neighbors(source, places)
        if not self.gamma:
            return self._pairs.step(model, first, second)
        bend = self.gamma / (1 + self.gamma)
        with nn.no_backward(), interior(model):
            sampled = neighbors(model.forward(_even(source)), places)
            difference = sampled[0].sub_(sampled[1])
        second.add_(difference, alpha=bend)
        constant = bend * difference.square().mean().item()
        return constant + self._pairs.step(model, first, second, share=1 + self.gamma)


def draw_neighbors(picture: Tensor, streams: Sequence[np.random.Generator]) -> Tensor:
    """Draw two pixels that share a side, in every 2x2 cell; the same in all channels.

    Parameters
    ----------
    picture : Tensor (N, C, H, W)
        Its size and device alone matter.
    streams : sequence of N numpy.random.Generator
        One for each picture. Each of the 8 ordered pairs comes with probability 1/8.

    Returns
    -------
    Tensor (2, N, 1, H // 2, W // 2), int64
        Numbers in the cell, row by row, 0 to 3, of the first pixel and of the second.

    Raises
    ------
    ValueError
        For a picture without a 2x2 cell, or another number of streams than of pictures.
    """
    if picture.dim() != 4 or min(picture.shape[2:]) < 2:
        raise ValueError(
            "Neighbor2Neighbor: pictures must be (N, C, H, W), 2x2 pixels or more, "
            f"got {tuple(picture.shape)}"
        )
    if len(streams) != len(picture):
        raise ValueError(
            f"Neighbor2Neighbor: {len(picture)} pictures, {len(streams)} numbers for them"
        )
    size = 1, picture.shape[2] // 2, picture.shape[3] // 2
    drawn = np.stack([stream.integers(len(_FIRST), size=size) for stream in streams])
    return torch.from_numpy(np.stack([_FIRST[drawn], _SECOND[drawn]])).to(picture.device)


def neighbors(picture: Tensor, places: Tensor) -> Tensor:
    """Two pictures of half the size: the drawn pixels of every 2x2 cell.

    Parameters
    ----------
    picture : Tensor (N, C, H, W)
        An odd last row or column is left out.
    places : Tensor (2, N, 1, H // 2, W // 2)
        From `draw_neighbors`.

    Returns
    -------
    Tensor (2, N, C, H // 2, W // 2)
        New: the first pixels, and the second.

    Examples
    --------
    >>> picture = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> neighbors(picture, torch.tensor([1, 3]).view(2, 1, 1, 1, 1)).flatten()
    tensor([2., 4.])
    """
    cells = _cells(_even(picture)).expand(2, -1, -1, -1, -1, -1)
    return cells.gather(-1, _indices(places, picture.shape[1])).squeeze(-1)


def neighbors_backward(grad_output: Tensor, places: Tensor, input_size: tuple[int, ...]) -> Tensor:
    """The adjoint of `neighbors`: each gradient to the pixel that was drawn, 0 to the others.

    Training needs it nowhere, as ``d`` has no gradient; it says what the sampler is.

    Parameters
    ----------
    grad_output : Tensor (2, N, C, H // 2, W // 2)
    places : Tensor (2, N, 1, H // 2, W // 2)
    input_size : (N, C, H, W)

    Returns
    -------
    Tensor (N, C, H, W)
        New.
    """
    grad_input = grad_output.new_zeros(input_size)
    cells = _cells(_even(grad_input))
    for index, grad in zip(_indices(places, input_size[1]), grad_output, strict=True):
        cells.scatter_add_(-1, index, grad.unsqueeze(-1))
    rows = cells.unflatten(-1, (2, 2)).movedim(-2, 3)
    _even(grad_input).copy_(rows.flatten(4).flatten(2, 3))
    return grad_input


def _even(picture: Tensor) -> Tensor:
    height, width = (side - side % 2 for side in picture.shape[2:])
    return picture[:, :, :height, :width]


def _cells(picture: Tensor) -> Tensor:
    """(N, C, 2 h, 2 w) as (N, C, h, w, 4): the pixels of every cell, row by row; new."""
    return picture.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).movedim(3, -2).flatten(-2)


def _indices(places: Tensor, channels: int) -> Tensor:
    return places.expand(-1, -1, channels, -1, -1).unsqueeze(-1)
