"""Sets of noisy pictures that are drawn once: to train on as the course does, and to measure on.

Each is the same for the same arguments, whatever else was drawn before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise.data.crops import (
    Pictures,
    corner_of_crop,
    cut,
    fit_for_crops,
    in_layers,
    size_of_source,
)
from pydenoise.data.noise import Array, NoiseModel, PointSample, generator
from pydenoise.data.pairs import PairsError


def point_sampled_pairs(
    pictures: Sequence[Array], block: int, count: int, crop: int = 32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw pairs once and keep them, as the course's training file does.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        uint8 (H, W) or (H, W, C), each at least `block * crop` pixels on both sides.
    block, count, crop : int
        Pixels on a side of a block; pairs; pixels on a side of what comes out.
    seed : int
        Pair i is a function of it, i, the pictures and the sizes; not of `count`.

    Returns
    -------
    first, second : (count, C, crop, crop) uint8 tensors

    Raises
    ------
    PairsError
        When a picture is too small, pictures differ in channels, or `count` is below 1.

    Notes
    -----
    See `pydenoise.data.noise.PointSample` for the noise.
    """
    noise = PointSample(block)
    size = noise.source_size(crop)
    pictures = in_layers("point_sampled_pairs", pictures, size, ("uint8",))
    first, second = _two_arrays("point_sampled_pairs", count, pictures, crop, np.uint8)
    for index in range(count):
        place = generator(seed, 0, index, "crop")
        clean = cut(pictures, corner_of_crop(pictures, size, place), size)
        rng = generator(seed, 0, index, "noise")
        first[index] = noise.pick(clean, rng).transpose(2, 0, 1)
        second[index] = noise.pick(clean, rng).transpose(2, 0, 1)
    return torch.from_numpy(first), torch.from_numpy(second)


def point_sampled_validation(
    pictures: Sequence[Array], block: int, count: int, crop: int = 32, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Noisy pictures with their clean ones, as the course's validation file holds them.

    Parameters and errors are those of `point_sampled_pairs`.

    Returns
    -------
    noisy, clean : (count, C, crop, crop) uint8 tensors
        The clean pixel is its block's mean, rounded.
    """
    noisy, clean = validation_crops(pictures, PointSample(block), count, crop, seed)
    return noisy.mul_(255).round_().to(torch.uint8), clean.mul_(255).round_().to(torch.uint8)


def validation_crops(
    pictures: Pictures,
    noise: NoiseModel,
    count: int,
    crop: int = 32,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Noisy crops with their clean ones, to measure on: the same for the same arguments.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, or PicturesOnDemand
        uint8, or float32 on the scale 0..1; (H, W) or (H, W, C), held back from training.
    noise : NoiseModel
        One draw per crop.
    count, crop, seed : int
        As in `NoisyCrops`; the streams differ from those of training under the same seed.

    Returns
    -------
    noisy, clean : (count, C, crop, crop) float32 tensors
        On the scale 0..1, the noisy one not clipped.

    Raises
    ------
    PairsError
        When a picture is smaller than a crop, pictures differ in channels, or `count` is below 1.
    """
    size = size_of_source(noise, crop)
    pictures = fit_for_crops("validation_crops", pictures, size)
    noisy, clean = _two_arrays("validation_crops", count, pictures, crop, np.float32)
    for index in range(count):
        rng = generator(seed, 0, index, "validation")
        crop_of_clean = cut(pictures, corner_of_crop(pictures, size, rng), size)
        noisy[index] = noise.draw(crop_of_clean, rng).transpose(2, 0, 1)
        clean[index] = noise.expectation(crop_of_clean).transpose(2, 0, 1)
    return torch.from_numpy(noisy), torch.from_numpy(clean)


def noisy_pictures(
    pictures: Sequence[Array], noise: NoiseModel, seed: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Whole pictures with one draw of noise each, to measure on.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        uint8, or float32 on the scale 0..1; (H, W) or (H, W, C), of any sizes.
    noise : NoiseModel
        For `PointSample` the rows and columns that fill no whole block are left out.
    seed : int
        The noise of picture i is a function of it and i.

    Returns
    -------
    list of (noisy, clean)
        (1, C, H, W) float32 tensors on the scale 0..1, the noisy ones not clipped.

    Raises
    ------
    PairsError
        When a picture holds not even one block, or pictures differ in channels.
    """
    cell = noise.source_size(1)
    scenes = []
    for index, picture in enumerate(in_layers("noisy_pictures", pictures, cell)):
        height, width = (side - side % cell for side in picture.shape[:2])
        whole = picture[:height, :width]
        drawn = noise.draw(whole, generator(seed, 0, index, "picture"))
        scenes.append((_planes(drawn), _planes(noise.expectation(whole))))
    return scenes


def _two_arrays(
    where: str, count: int, pictures: Pictures, crop: int, dtype: type[np.generic]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    if count < 1:
        raise PairsError(f"{where}: count is {count}; expected at least 1")
    shape = count, pictures[0].shape[2], crop, crop
    return np.empty(shape, dtype), np.empty(shape, dtype)


def _planes(picture: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
