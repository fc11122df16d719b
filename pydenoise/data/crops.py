"""Pairs cut from whole pictures: a noise model over clean ones, or two folders of noisy ones.

Where a crop lies and what noise it gets are functions of (seed, epoch, index) alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pydenoise.data.images import Pixels, read_folder
from pydenoise.data.noise import NoiseModel, generator
from pydenoise.data.pairs import Batch, Indices, PairsError, PairSource, checked, scaled

Corner: TypeAlias = tuple[int, int, int]


class NoisyCrops(PairSource):
    """Crops of clean pictures, each with two independent draws of noise.

    Parameters
    ----------
    pictures : sequence of numpy.ndarray
        uint8, each (H, W) or (H, W, C), one C for all. Kept, not copied.
    noise : NoiseModel
        A level drawn from a range is shared by the two draws of a pair.
    crop : int
        Pixels on a side of what comes out.
    length : int, optional
        Pairs per epoch; as many as non-overlapping crops fit into the pictures if omitted.
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
        pictures: Sequence[Pixels],
        noise: NoiseModel,
        crop: int = 32,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        self._size = size_of_source(noise, crop)
        self._pictures = in_layers("NoisyCrops", pictures, self._size)
        self._noise = noise
        self._length = _length("NoisyCrops", length, self._pictures, self._size)
        self._seed = seed
        self.shape = (self._pictures[0].shape[2], crop, crop)

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Indices, epoch: int) -> Batch:
        rows = checked(indices, len(self)).tolist()
        source = np.empty((len(rows), *self.shape), dtype=np.float32)
        target = np.empty_like(source)
        for position, index in enumerate(rows):
            place = generator(self._seed, epoch, index, "crop")
            clean = cut(
                self._pictures, corner_of_crop(self._pictures, self._size, place), self._size
            )
            noise = generator(self._seed, epoch, index, "noise")
            first, second = self._noise.pair(clean, noise)
            source[position] = first.transpose(2, 0, 1)
            target[position] = second.transpose(2, 0, 1)
        return torch.from_numpy(source), torch.from_numpy(target)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "noisy crops",
            "noise": str(self._noise),
            "pictures": len(self._pictures),
            "pairs": len(self),
            "shape": list(self.shape),
            "seed": self._seed,
        }


class FolderPairs(PairSource):
    """Crops of two noisy captures of each scene, in two folders under matching names.

    Parameters
    ----------
    folder_a, folder_b : path
        `a/cat.png` and `b/cat.jpg` are one scene: names match without their suffixes. Both
        captures have the same size. All are read into memory as uint8.
    crop : int
        Pixels on a side of what comes out.
    length : int, optional
        Pairs per epoch; as many as non-overlapping crops fit into the pictures if omitted.
    seed : int
        Scene and position are functions of (seed, epoch, index).

    Attributes
    ----------
    skipped : list of Path
        What lies in the folders beside pictures.

    Raises
    ------
    ImageError
        When a folder holds no picture, or one cannot be read or is smaller than a crop.
    PairsError
        When a picture has no partner or a partner of another size.
    """

    def __init__(
        self,
        folder_a: str | os.PathLike[str],
        folder_b: str | os.PathLike[str],
        crop: int = 32,
        length: int | None = None,
        seed: int = 0,
    ) -> None:
        _check_crop(crop)
        self._first, self._second, self.skipped = matching_pictures(folder_a, folder_b, crop)
        self._folders = str(folder_a), str(folder_b)
        self._length = _length("FolderPairs", length, self._first, crop)
        self._seed = seed
        self.shape = (self._first[0].shape[2], crop, crop)

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Indices, epoch: int) -> Batch:
        rows = checked(indices, len(self)).tolist()
        size = self.shape[1]
        source = np.empty((len(rows), *self.shape), dtype=np.uint8)
        target = np.empty_like(source)
        for position, index in enumerate(rows):
            corner = corner_of_crop(self._first, size, generator(self._seed, epoch, index, "crop"))
            source[position] = cut(self._first, corner, size).transpose(2, 0, 1)
            target[position] = cut(self._second, corner, size).transpose(2, 0, 1)
        return scaled(torch.from_numpy(source)), scaled(torch.from_numpy(target))

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "folder pairs",
            "folders": list(self._folders),
            "pictures": len(self._first),
            "pairs": len(self),
            "shape": list(self.shape),
            "seed": self._seed,
        }


def matching_pictures(
    folder_a: str | os.PathLike[str], folder_b: str | os.PathLike[str], smallest: int = 1
) -> tuple[list[Pixels], list[Pixels], list[Path]]:
    """The pictures of two folders that share their names without suffix, and what else is there.

    As `FolderPairs` describes them; `smallest` as in `pydenoise.data.images.read_folder`.
    """
    first, names, skipped_a = _by_stem(folder_a, smallest)
    second, partners, skipped_b = _by_stem(folder_b, smallest)
    for folder, missing in (
        (folder_b, sorted(names.keys() - partners.keys())),
        (folder_a, sorted(partners.keys() - names.keys())),
    ):
        if missing:
            more = f" and {len(missing) - 3} more" if missing[3:] else ""
            raise PairsError(
                f"{folder}: no picture is named {', '.join(map(repr, missing[:3]))}{more}, as in "
                "the other folder; expected matching names"
            )
    stems = sorted(names)
    first = [first[names[stem]] for stem in stems]
    second = [second[partners[stem]] for stem in stems]
    for stem, a, b in zip(stems, first, second, strict=True):
        if a.shape != b.shape:
            raise PairsError(
                f"{folder_a} and {folder_b}: {stem!r} is {_named(a)} in one and {_named(b)} in "
                "the other; expected one size and one number of channels"
            )
    return first, second, skipped_a + skipped_b


def corner_of_crop(pictures: Sequence[Pixels], size: int, rng: np.random.Generator) -> Corner:
    """A picture, every one as likely, and the top left corner of a crop in it."""
    number = int(rng.integers(len(pictures)))
    height, width = pictures[number].shape[:2]
    return number, int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))


def cut(pictures: Sequence[Pixels], corner: Corner, size: int) -> Pixels:
    number, top, left = corner
    return pictures[number][top : top + size, left : left + size]


def size_of_source(noise: NoiseModel, crop: int) -> int:
    _check_crop(crop)
    return noise.source_size(crop)


def _check_crop(crop: int) -> None:
    if crop < 1:
        raise PairsError(f"crop is {crop}; expected at least 1 pixel")


def in_layers(where: str, pictures: Sequence[Pixels], size: int) -> list[Pixels]:
    """The pictures as (H, W, C), of one C and at least size x size each."""
    if not pictures:
        raise PairsError(f"{where}: no pictures; expected at least one")
    layered: list[Pixels] = []
    for number, picture in enumerate(pictures):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
            raise PairsError(
                f"{where}: picture {number} has shape {picture.shape} and dtype {picture.dtype}; "
                "expected uint8 (H, W) or (H, W, C)"
            )
        layered.append(picture[:, :, None] if picture.ndim == 2 else picture)
        if layered[-1].shape[2] != layered[0].shape[2]:
            raise PairsError(
                f"{where}: picture {number} has {layered[-1].shape[2]} channels, "
                f"picture 0 has {layered[0].shape[2]}; expected one number for all"
            )
        if min(picture.shape[:2]) < size:
            raise PairsError(
                f"{where}: picture {number} is {_named(layered[-1])}; a crop reads "
                f"{size}x{size} pixels: take smaller crops or blocks, or larger pictures"
            )
    return layered


def _length(where: str, length: int | None, pictures: Sequence[Pixels], size: int) -> int:
    if length is None:
        return sum((p.shape[0] // size) * (p.shape[1] // size) for p in pictures)
    if length < 1:
        raise PairsError(f"{where}: length is {length}; expected at least 1 pair per epoch")
    return length


def _by_stem(
    folder: str | os.PathLike[str], smallest: int
) -> tuple[list[npt.NDArray[np.uint8]], dict[str, int], list[Path]]:
    """The pictures of a folder, where each name without suffix stands in them, and the rest."""
    pictures, paths, skipped = read_folder(folder, smallest)
    numbers: dict[str, int] = {}
    for number, path in enumerate(paths):
        if path.stem in numbers:
            raise PairsError(
                f"{folder}: two pictures are named {path.stem!r}; expected one a scene"
            )
        numbers[path.stem] = number
    return pictures, numbers, skipped


def _named(picture: Pixels) -> str:
    return "x".join(str(side) for side in picture.shape)
