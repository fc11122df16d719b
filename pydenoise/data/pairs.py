"""Sources of (noisy, noisy) batches, and what can be laid over one.

A source keeps uint8 in memory and cuts float batches from it. Sample i of epoch e is the same
whatever batch it comes in: nothing depends on the order in which batches are asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickletools
import re
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise.data.noise import generator
from pydenoise.data.resident import ResidentAugmented, ResidentPairs, ResidentTensors

Indices: TypeAlias = npt.NDArray[np.integer[Any]]
Batch: TypeAlias = tuple[Tensor, Tensor]

_FLIP_ROWS, _FLIP_COLUMNS, _TRANSPOSE, _SWAP = 1, 2, 4, 8
_LOOKED_AT = 8

# What torch.save writes for tensors; every other name in a pickle is somebody's code or object.
_NAMES_OF_TENSORS = re.compile(
    r"collections OrderedDict|torch._utils _rebuild_tensor_v2|torch \w+Storage"
)


class PairsError(ValueError):
    """Data that no pairs can be made of; one line: where, what came, what was expected."""


class PairSource(ABC):
    """Pairs of two noisy pictures of the same scene.

    Attributes
    ----------
    shape : (int, int, int)
        (C, H, W) of every picture that comes out.
    value_range : (float, float) or None
        The numbers that became 0 and 1; None for the range of their dtype.
    """

    shape: tuple[int, int, int]
    value_range: tuple[float, float] | None = None

    @property
    def channels(self) -> int:
        """C of every picture that comes out."""
        return self.shape[0]

    @abstractmethod
    def __len__(self) -> int:
        """Pairs in one epoch."""

    @abstractmethod
    def batch(self, indices: Indices, epoch: int) -> Batch:
        """The pairs of the given numbers.

        Parameters
        ----------
        indices : (N,) array of int
            Each in 0 .. len(self) - 1.
        epoch : int
            What is drawn anew for every epoch depends on it.

        Returns
        -------
        source, target : (N, C, H, W) float32 tensors
            New, contiguous, on the scale 0..1; noise may leave that range.
        """

    def resident(self, device: torch.device) -> ResidentPairs | None:
        """The same pairs in a device's memory; None where batches are made by the processor, as a
        subclass makes them that may cut others."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What this is, as JSON can hold it: for the log and the weights' header."""

    def fingerprint(self) -> str:
        """SHA-256 of what this is and of the pictures in it, 64 characters.

        A source of the user's is known by its first pairs, unless it says more in `contents`.
        """
        return sha256_of(self.contents(), json.dumps(self.describe(), default=str))

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        """The pictures that pairs are cut from."""
        for pictures in self.batch(np.arange(min(_LOOKED_AT, len(self))), 0):
            yield pictures.numpy()


class TensorPairs(PairSource):
    """Pairs that lie in memory: picture i of one tensor with picture i of the other.

    Parameters
    ----------
    first, second : (N, C, H, W) uint8 tensors
        Kept, not copied.

    Raises
    ------
    PairsError
        When they are not uint8, not four-dimensional, empty or of different shapes.

    Examples
    --------
    >>> noisy = torch.full((4, 3, 8, 8), 51, dtype=torch.uint8)
    >>> source, target = TensorPairs(noisy, noisy).batch(np.array([3, 0]), epoch=0)
    >>> tuple(source.shape), round(float(source.mean()), 6)
    ((2, 3, 8, 8), 0.2)
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        _check_pair("TensorPairs", first, second)
        self._first, self._second = first, second
        self.shape = (first.shape[1], first.shape[2], first.shape[3])

    def __len__(self) -> int:
        return len(self._first)

    def batch(self, indices: Indices, epoch: int) -> Batch:
        rows = torch.from_numpy(checked(indices, len(self)))
        return scaled(self._first.index_select(0, rows)), scaled(self._second.index_select(0, rows))

    def resident(self, device: torch.device) -> ResidentPairs | None:
        if type(self) is not TensorPairs:
            return None
        return ResidentTensors(self._first, self._second, device)

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        yield self._first.numpy()
        yield self._second.numpy()

    def describe(self) -> dict[str, Any]:
        return {"kind": "tensor pairs", "pairs": len(self), "shape": list(self.shape)}


class Augmented(PairSource):
    """A source whose pairs are turned, mirrored and swapped at random, anew in every epoch.

    Both pictures of a pair are turned alike, so each of the 8 ways a square can lie is met.

    Parameters
    ----------
    source : PairSource
        Where the pairs come from.
    flips : bool
        Mirror rows, and columns, each with probability 1/2.
    transpose : bool
        Exchange rows and columns with probability 1/2; asks for square pictures.
    swap : bool
        Exchange source and target with probability 1/2. Not for clean targets.
    seed : int
        The choices are a function of (seed, epoch, index).

    Raises
    ------
    PairsError
        When `transpose` is asked for pictures that are not square.
    """

    def __init__(
        self,
        source: PairSource,
        flips: bool = True,
        transpose: bool = True,
        swap: bool = True,
        seed: int = 0,
    ) -> None:
        height, width = source.shape[1:]
        if transpose and height != width:
            raise PairsError(
                f"Augmented: pictures are {height}x{width}, transposing expects square ones; "
                "give transpose=False"
            )
        self._source = source
        self._seed = seed
        self._options = {"flips": flips, "transpose": transpose, "swap": swap}
        flip = _FLIP_ROWS | _FLIP_COLUMNS
        self._allowed = flip * flips | _TRANSPOSE * transpose | _SWAP * swap
        self._drawn: tuple[int, npt.NDArray[np.uint8]] = -1, np.empty(0, np.uint8)
        self.shape = source.shape
        self.value_range = source.value_range

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Indices, epoch: int) -> Batch:
        source, target = self._source.batch(indices, epoch)
        choices = self._choices(epoch)[indices].tolist()
        turned = torch.empty_like(source), torch.empty_like(target)
        before, after = (source.numpy(), target.numpy()), (turned[0].numpy(), turned[1].numpy())
        for position, choice in enumerate(choices):
            first, second = (1, 0) if choice & _SWAP else (0, 1)
            after[first][position] = _turned(before[0][position], choice)
            after[second][position] = _turned(before[1][position], choice)
        return turned

    def resident(self, device: torch.device) -> ResidentPairs | None:
        pairs = self._source.resident(device) if type(self) is Augmented else None
        if pairs is None:
            return None
        bits = _FLIP_ROWS, _FLIP_COLUMNS, _TRANSPOSE, _SWAP
        return ResidentAugmented(pairs, self._choices, bits, len(self), device)

    def contents(self) -> Iterator[npt.NDArray[Any]]:
        return self._source.contents()

    def describe(self) -> dict[str, Any]:
        source = self._source.describe()
        return {"kind": "augmented", **self._options, "seed": self._seed, "source": source}

    def _choices(self, epoch: int) -> npt.NDArray[np.uint8]:
        """Four bits per pair, drawn for the whole epoch at once and kept for its batches."""
        drawn_for, choices = self._drawn
        if drawn_for != epoch:
            rng = generator(self._seed, epoch, 0, "augment")
            choices = rng.integers(0, 16, len(self), dtype=np.uint8) & np.uint8(self._allowed)
            self._drawn = epoch, choices
        return choices


def load_course_file(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor]:
    """Read the course's `train_data.pkl` (noisy, noisy) or `val_data.pkl` (noisy, clean).

    Parameters
    ----------
    path : path
        Written by `torch.save`: a tuple of two uint8 tensors of one shape (N, C, H, W).

    Returns
    -------
    first, second : (N, C, H, W) uint8 tensors
        On the CPU, contiguous.

    Raises
    ------
    PairsError
        When the file is missing, was not written by `torch.save`, holds code (which is never
        run), or holds anything but two such tensors.
    """
    path = Path(path)
    try:
        _refuse_packed(path)
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's versions: what matters raises
            pair = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise PairsError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise PairsError(f"{path}: is a folder; expected a file written by torch.save") from None
    except PairsError:
        raise
    except Exception as error:  # the unpickler raises anything on a foreign file
        if _calls_something(path):
            raise PairsError(
                f"{path}: holds code or objects beside tensors, which was not run; "
                "expected two uint8 tensors written by torch.save: get the file from its source"
            ) from error
        raise PairsError(
            f"{path}: is not a whole file written by torch.save; "
            "expected a tuple of two uint8 tensors (N, C, H, W): get the file again"
        ) from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        count = f" of {len(pair)}" if isinstance(pair, tuple | list | dict) else ""
        raise PairsError(
            f"{path}: holds a {type(pair).__name__}{count}; expected a tuple of two uint8 tensors"
        )
    _check_pair(str(path), *pair)
    return pair[0].contiguous(), pair[1].contiguous()


def sha256_of(arrays: Iterable[npt.NDArray[Any]], words: str = "") -> str:
    """SHA-256 of words, and of arrays with their dtypes and shapes; 64 characters."""
    sha = hashlib.sha256(words.encode())
    for array in arrays:
        sha.update(f"{array.dtype.str} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def scaled(levels: Tensor) -> Tensor:
    """A tensor on the scale 0..255 as new float32 on the scale 0..1."""
    return levels.to(torch.float32).div(255)


def checked(indices: Indices, length: int) -> npt.NDArray[np.int64]:
    """The indices as a contiguous int64 array; IndexError outside 0 .. length - 1."""
    rows = np.ascontiguousarray(indices, dtype=np.int64)
    if rows.ndim != 1:
        raise IndexError(f"batch: indices have shape {rows.shape}; expected (N,)")
    if rows.size and not 0 <= rows.min() <= rows.max() < length:
        raise IndexError(
            f"batch: indices from {rows.min()} to {rows.max()}; expected 0 .. {length - 1}"
        )
    return rows


def _turned(picture: npt.NDArray[np.float32], choice: int) -> npt.NDArray[np.float32]:
    """A view of (C, H, W), transposed first and mirrored then."""
    if choice & _TRANSPOSE:
        picture = picture.swapaxes(1, 2)
    if choice & _FLIP_ROWS:
        picture = picture[:, ::-1]
    if choice & _FLIP_COLUMNS:
        picture = picture[:, :, ::-1]
    return picture


def _check_pair(where: str, first: Any, second: Any) -> None:
    for name, tensor in (("first", first), ("second", second)):
        if not isinstance(tensor, Tensor):
            came = f"is a {type(tensor).__name__}"
        elif tensor.dtype != torch.uint8 or tensor.ndim != 4 or not tensor.numel():
            came = f"has shape {tuple(tensor.shape)} and dtype {tensor.dtype}"
        else:
            continue
        raise PairsError(f"{where}: the {name} of the pair {came}; expected uint8 (N, C, H, W)")
    if first.shape != second.shape:
        raise PairsError(
            f"{where}: the pair has shapes {tuple(first.shape)} and {tuple(second.shape)}; "
            "expected one shape"
        )


def _refuse_packed(path: Path) -> None:
    """Refuse a zip with a compressed file; what is wrong with a zip raises what it raises."""
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
            raise PairsError(
                f"{path}: is a packed archive, which may unpack to anything; torch.save packs "
                "nothing: get the file from its source"
            )


def _calls_something(path: Path) -> bool:
    """Whether a pickle, plain or in torch's zip, names a callable; none is run."""
    try:
        if not zipfile.is_zipfile(path):
            with open(path, "rb") as file:
                return _names_a_callable(file)
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.rsplit("/")[-1] == "data.pkl":
                    with archive.open(name) as file:
                        if _names_a_callable(file):
                            return True
    except Exception:  # not a file of pickles, or not one from here on
        pass
    return False


def _names_a_callable(file: IO[bytes]) -> bool:
    while True:  # torch's older form is several pickles in a row; the end of the file raises
        for operation, argument, _ in pickletools.genops(file):
            if operation.name == "STACK_GLOBAL":
                return True
            if operation.name in ("GLOBAL", "INST") and not _NAMES_OF_TENSORS.fullmatch(
                str(argument)
            ):
                return True
