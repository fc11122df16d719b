"""Pairs cut from whole pictures: a noise model over clean ones, or pictures that are noisy already.

Where a crop lies and what noise it gets are functions of (seed, epoch, index) alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pydenoise.data.lazy import PicturesOnDemand
from pydenoise.data.noise import Array, NoiseModel, generator, unit
from pydenoise.data.pairs import Batch, Indices, PairsError, PairSource, checked

Corner: TypeAlias = tuple[int, int, int]
Pictures: TypeAlias = Sequence[Array] | PicturesOnDemand


class Crops(PairSource):
    """Pairs that are cut from pictures at places drawn anew for every epoch.

    Parameters
    ----------
    pictures : sequence of (H, W, C) arrays, or PicturesOnDemand
        Whose sizes decide over the places.
    size : int
        Pixels on a side of what is cut from them.
    crop : int
        Pixels on a side of what comes out.
    length : int, optional
        Pairs per epoch; as many as non-overlapping crops fit into the pictures if omitted.
    seed : int
        Picture and place are functions of (seed, epoch, index).
    """

    def __init__(
        self, pictures: Pictures, size: int, crop: int, length: int | None, seed: int
    ) -> None:
        if length is None:
            length = int((_sides(pictures) // size).prod(axis=1).sum())
        if length < 1:
            raise PairsError(
                f"{type(self).__name__}: length is {length}; expected at least 1 pair per epoch"
            )
        self._pictures, self._size = pictures, size
        self._length, self._seed = length, seed
        self.shape = (pictures[0].shape[2], crop, crop)

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Indices, epoch: int) -> Batch:
        rows = checked(indices, len(self)).tolist()
        source = np.empty((len(rows), *self.shape), dtype=np.float32)
        target = np.empty_like(source)
        for position, index in enumerate(rows):
            place = generator(self._seed, epoch, index, "crop")
            corner = corner_of_crop(self._pictures, self._size, place)
            first, second = self._pair(corner, epoch, index)
            source[position] = first.transpose(2, 0, 1)
            target[position] = second.transpose(2, 0, 1)
        return torch.from_numpy(source), torch.from_numpy(target)

    @abstractmethod
    def _pair(self, corner: Corner, epoch: int, index: int) -> tuple[Array, Array]:
        """The two noisy pictures (H, W, C) of a place, on the scale 0..1."""

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        """The pictures; of those that are read on demand, the names, sizes and times of files."""
        if isinstance(self._pictures, PicturesOnDemand):
            return self._pictures.contents()
        return iter(self._pictures)

    def describe(self) -> dict[str, Any]:
        is_lazy = isinstance(self._pictures, PicturesOnDemand)
        return {
            "pictures": len(self._pictures),
            "pairs": len(self),
            "shape": list(self.shape),
            "seed": self._seed,
            **({"lazy": True} if is_lazy else {}),
        }


class NoisyCrops(Crops):
    """Crops of clean pictures, each with two independent draws of noise.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, or PicturesOnDemand
        uint8, or float32 on the scale 0..1; each (H, W) or (H, W, C), one C for all. Kept, not
        copied.
    noise : NoiseModel
        A level drawn from a range is shared by the two draws of a pair.
    crop, length
        As in `Crops`.
    seed : int
        Picture, position and noise are functions of (seed, epoch, index).

    Raises
    ------
    PairsError
        When there is no picture, one is smaller than a crop, or they differ in channels.

    Examples
    --------
    >>> from pydenoise.data.noise import parse
    >>> gray = np.full((64, 96), 128, dtype=np.uint8)
    >>> crops = NoisyCrops([gray], parse("gauss:25"), crop=32)
    >>> len(crops), crops.shape
    (6, (1, 32, 32))
    """

    def __init__(
        self,
        pictures: Pictures,
        noise: NoiseModel,
        crop: int = 32,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        size = size_of_source(noise, crop)
        super().__init__(fit_for_crops("NoisyCrops", pictures, size), size, crop, length, seed)
        self._noise = noise

    def _pair(self, corner: Corner, epoch: int, index: int) -> tuple[Array, Array]:
        clean = cut(self._pictures, corner, self._size)
        return self._noise.pair(clean, generator(self._seed, epoch, index, "noise"))

    def describe(self) -> dict[str, Any]:
        return {"kind": "noisy crops", "noise": str(self._noise), **super().describe()}


class SingleCrops(Crops):
    """Crops of single noisy pictures, for objectives that look at the source alone.

    Both pictures of a pair are the same.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray, or PicturesOnDemand
        uint8, or float32 on the scale 0..1; each (H, W) or (H, W, C), one C for all. Kept, not
        copied.
    crop, length, seed
        As in `Crops`.

    Raises
    ------
    PairsError
        When there is no picture, one is smaller than a crop, or they differ in channels.
    """

    def __init__(
        self,
        pictures: Pictures,
        crop: int = 32,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        check_crop(crop)
        super().__init__(fit_for_crops("SingleCrops", pictures, crop), crop, crop, length, seed)

    def _pair(self, corner: Corner, epoch: int, index: int) -> tuple[Array, Array]:
        noisy = unit(cut(self._pictures, corner, self._size))
        return noisy, noisy

    def describe(self) -> dict[str, Any]:
        return {"kind": "single noisy pictures", **super().describe()}


def corner_of_crop(pictures: Pictures, size: int, rng: np.random.Generator) -> Corner:
    """A picture, every one as likely, and the top left corner of a crop in it."""
    number = int(rng.integers(len(pictures)))
    height, width = pictures[number].shape[:2]
    return number, int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))


def cut(pictures: Pictures, corner: Corner, size: int) -> Array:
    number, top, left = corner
    part: Array = pictures[number][top : top + size, left : left + size]
    return part


def size_of_source(noise: NoiseModel, crop: int) -> int:
    check_crop(crop)
    return noise.source_size(crop)


def check_crop(crop: int) -> None:
    if crop < 1:
        raise PairsError(f"crop is {crop}; expected at least 1 pixel")


def fit_for_crops(where: str, pictures: Pictures, size: int) -> Pictures:
    """`in_layers`, of pictures of either kind."""
    if not isinstance(pictures, PicturesOnDemand):
        return in_layers(where, pictures, size)
    for number in np.flatnonzero(pictures.sides.min(axis=1) < size)[:1].tolist():
        raise _too_small(where, number, pictures[number].shape, size)
    return pictures


def in_layers(
    where: str,
    pictures: Sequence[Array],
    size: int,
    dtypes: tuple[str, ...] = ("uint8", "float32"),
) -> list[Array]:
    """The pictures as (H, W, C), of one C and at least size x size each."""
    if not pictures:
        raise PairsError(f"{where}: no pictures; expected at least one")
    layered: list[Array] = []
    for number, picture in enumerate(pictures):
        if picture.dtype.name not in dtypes or picture.ndim not in (2, 3):
            raise PairsError(
                f"{where}: picture {number} has shape {picture.shape} and dtype {picture.dtype}; "
                f"expected {' or '.join(dtypes)}, (H, W) or (H, W, C)"
            )
        layered.append(picture[:, :, None] if picture.ndim == 2 else picture)
        if layered[-1].shape[2] != layered[0].shape[2]:
            raise PairsError(
                f"{where}: picture {number} has {layered[-1].shape[2]} channels, "
                f"picture 0 has {layered[0].shape[2]}; expected one number for all"
            )
        if min(picture.shape[:2]) < size:
            raise _too_small(where, number, layered[-1].shape, size)
    return layered


def _too_small(where: str, number: int, shape: tuple[int, ...], size: int) -> PairsError:
    return PairsError(
        f"{where}: picture {number} is {'x'.join(map(str, shape))}; a crop reads {size}x{size} "
        "pixels: take smaller crops or blocks, or larger pictures"
    )


def _sides(pictures: Pictures) -> npt.NDArray[np.int64]:
    """(N, 2): height and width of each."""
    if isinstance(pictures, PicturesOnDemand):
        return pictures.sides
    return np.array([picture.shape[:2] for picture in pictures], np.int64)
