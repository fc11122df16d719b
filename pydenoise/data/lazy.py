"""Pictures of a folder larger than memory, read when something is cut from them.

What is cut has the bits that it has of the same pictures in memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pydenoise.data.folders import ValueRange, on_scale, read_pages, too_small, value_range
from pydenoise.data.index import DTYPES, Index, forget, index_of
from pydenoise.data.noise import Array, NoiseModel, generator
from pydenoise.data.pictures import ImageError, PathLike

KEPT_BYTES = 2**28
"""Decoded pictures that a process keeps, those cut from last."""

_RANGED_BYTES = 2**28

_ALL = slice(None)

Numbers = npt.NDArray[np.int64]


class PictureOnDemand(NamedTuple):
    """A picture of which the size is known; `picture[rows, columns]` reads it."""

    pictures: PicturesOnDemand
    number: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width = self.pictures.sides[self.number].tolist()
        return height, width, self.pictures.channels

    def __getitem__(self, part: Any) -> Any:
        return self.pictures.cut(self.number, *part)


class PicturesOnDemand(Sequence[PictureOnDemand]):
    """Pictures (H, W, C) of one C, uint8 or float32 on the scale 0..1.

    Attributes
    ----------
    sides : (N, 2) array of int64
        Height and width of each.
    channels : int
        C of all.
    """

    sides: Numbers
    channels: int

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, number: Any) -> Any:
        return PictureOnDemand(self, range(len(self))[number])

    @abstractmethod
    def cut(self, number: int, rows: slice, columns: slice) -> Array:
        """A part of a picture."""

    @abstractmethod
    def contents(self) -> Iterator[npt.NDArray[Any]]:
        """What tells these pictures from others, without reading them."""


class Recent:
    """What was made lately, up to so many bytes, and the last in any case; each process its own."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._made: OrderedDict[int, list[Array]] = OrderedDict()

    def get(self, key: int, make: Callable[[int], list[Array]]) -> list[Array]:
        """What was made of a key, or is made now."""
        if key not in self._made:
            made = make(key)
            self._bytes += sum(array.nbytes for array in made)
            self._made[key] = made
            while self._bytes > self._most and len(self._made) > 1:
                _, oldest = self._made.popitem(last=False)
                self._bytes -= sum(array.nbytes for array in oldest)
        self._made.move_to_end(key)
        return self._made[key]

    def __reduce__(self) -> tuple[type[Recent], tuple[int]]:
        return Recent, (self._most,)


class FolderPictures(PicturesOnDemand):
    """The pictures of an indexed folder that are of one kind, in the order of `read_folder`.

    Parameters
    ----------
    index : Index
    files, pages : (N,) arrays of int64
        Where each picture is: the row of its file, and its page there.
    channels : int
        3 makes RGB of gray ones.
    dtype : numpy.dtype
        Of all files.
    bounds : (float, float), optional
        As in `pydenoise.data.on_scale`.
    """

    def __init__(
        self,
        index: Index,
        files: Numbers,
        pages: Numbers,
        channels: int,
        dtype: np.dtype[Any],
        bounds: ValueRange = None,
    ) -> None:
        self._index, self._files, self._pages = index, files, pages
        self._dtype, self._bounds = dtype, bounds
        self._recent = Recent(KEPT_BYTES)
        self.channels = channels
        rows = index.rows
        sides = [rows[side][files].astype(np.int64) for side in ("height", "width")]
        self.sides = np.stack(sides, axis=1)

    @property
    def nbytes(self) -> int:
        """What all of them would take in memory, with the numbers of their files."""
        return int(self.sides.prod(axis=1).sum()) * self.channels * self._dtype.itemsize

    def taken(self, numbers: Numbers) -> FolderPictures:
        """Some of them, in the given order."""
        files, pages = self._files[numbers], self._pages[numbers]
        return self._with(files, pages, self._bounds)

    def on_scale(self, bounds: ValueRange) -> FolderPictures:
        """The same on the scale where these numbers of the files are 0 and 1."""
        return self._with(self._files, self._pages, bounds)

    def value_range(self, where: object) -> ValueRange:
        """`pydenoise.data.value_range` of the pictures; of more than 256 MiB, of an even sample."""
        if self._dtype == np.uint8:
            return None
        apart = -(-self.nbytes // _RANGED_BYTES)
        sample = range(0, len(self), apart)
        return value_range((self._page(number, _ALL, _ALL) for number in sample), where)

    def cut(self, number: int, rows: slice, columns: slice) -> Array:
        return on_scale([self._page(number, rows, columns)], self._bounds)[0]

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        """Names, sizes and times of all files, and which pictures of them are here."""
        yield self._index.names
        yield self._index.rows.view(np.uint8)
        yield self._files
        yield self._pages

    def path(self, number: int) -> Path:
        """The file of a picture."""
        return self._index.path(int(self._files[number]))

    def _with(self, files: Numbers, pages: Numbers, bounds: ValueRange) -> FolderPictures:
        return FolderPictures(self._index, files, pages, self.channels, self._dtype, bounds)

    def _page(self, number: int, rows: slice, columns: slice) -> Array:
        """A part of a picture, with the numbers of its file."""
        pages = self._recent.get(int(self._files[number]), self._read)
        part = pages[self._pages[number]][rows, columns]
        return np.repeat(part, 3, axis=2) if part.shape[2] < self.channels else part

    def _read(self, row: int) -> list[Array]:
        """The pages of a file, which is as it was indexed."""
        path, told = self._index.path(row), self._index.rows[row]
        try:
            now = path.stat()
        except OSError as error:
            forget(self._index)
            raise ImageError(
                f"{path}: is gone since its folder was indexed; put it back, or start again "
                "without it"
            ) from error
        if (now.st_size, now.st_mtime_ns) != (told["size"], told["changed"]):
            forget(self._index)
            raise ImageError(
                f"{path}: was changed since its folder was indexed; start again, which indexes it "
                "anew"
            )
        pages = read_pages(path)
        expected = [int(told[name]) for name in ("pages", "height", "width", "colours")]
        if [len(pages), *pages[0].shape] != expected or pages[0].dtype != self._dtype:
            raise ImageError(f"{path}: holds another picture than its head says; leave it out")
        return pages


class NoisyOnce(PicturesOnDemand):
    """Pictures with one draw of noise each, for good, as `pydenoise.data.noisy_pictures` draws it.

    Parameters
    ----------
    pictures : PicturesOnDemand
    noise : NoiseModel
    seed : int
        The noise of picture i is a function of it and i.
    """

    def __init__(self, pictures: PicturesOnDemand, noise: NoiseModel, seed: int) -> None:
        self._pictures, self._noise, self._seed = pictures, noise, seed
        self._recent = Recent(KEPT_BYTES)
        self._cell = noise.source_size(1)
        self.sides, self.channels = pictures.sides // self._cell, pictures.channels

    def cut(self, number: int, rows: slice, columns: slice) -> Array:
        return self._recent.get(number, self._drawn)[0][rows, columns]

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        yield from self._pictures.contents()
        yield np.frombuffer(f"{self._noise} {self._seed}".encode(), np.uint8)

    def _drawn(self, number: int) -> list[Array]:
        height, width = (self.sides[number] * self._cell).tolist()
        whole = self._pictures.cut(number, slice(height), slice(width))
        return [self._noise.draw(whole, generator(self._seed, 0, number, "picture"))]


class OpenFolder(NamedTuple):
    """Pictures of a folder that are read on demand, and what else is there, as in `Folder`."""

    pictures: FolderPictures
    skipped: dict[Path, str]


def open_folder(folder: PathLike, smallest: int = 1) -> OpenFolder:
    """`read_folder` for folders larger than memory: the same pictures, read on demand.

    The folder is indexed when it is opened first, and the index is kept in the user's cache folder.
    A file whose samples are damaged shows when it is read.

    Parameters
    ----------
    folder, smallest
        As in `read_folder`.

    Returns
    -------
    OpenFolder

    Raises
    ------
    ImageError
        As `read_folder`; and later, when a file that is to be read was changed or is damaged.
    """
    index = index_of(folder)
    rows = index.rows
    usable = rows["pages"] > 0
    if not usable.any():
        raise ImageError(index.reasons[index.path(0).name])
    kinds = rows["dtype"][usable]
    counts = np.bincount(kinds)
    kind = kinds[counts[kinds] == counts.max()][0]  # of those as frequent, the first one's
    taken = np.flatnonzero(usable & (rows["dtype"] == kind))
    small = taken[np.minimum(rows["height"], rows["width"])[taken] < smallest]
    if small.size:
        first = rows[small[0]]
        raise too_small(index.path(small[0]), first["height"], first["width"], smallest)
    count = rows["pages"][taken].astype(np.int64)
    pages = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    channels = int(rows["colours"][taken].max())
    pictures = FolderPictures(index, np.repeat(taken, count), pages, channels, DTYPES[kind])
    reasons = {Path(folder) / name: reason for name, reason in index.reasons.items()}
    for row in np.flatnonzero(usable & (rows["dtype"] != kind)).tolist():
        path = Path(folder) / index.path(row).name
        found = DTYPES[rows["dtype"][row]]
        reasons[path] = f"{path}: holds {found}; most files there hold {DTYPES[kind]}"
    return OpenFolder(pictures, dict(sorted(reasons.items())))
