"""What the picture files of a folder hold, found once and kept: for folders larger than memory.

Most files say it in their first bytes. The index lies in the user's cache folder, never beside the
pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pydenoise.atomic import new_file
from pydenoise.data.folders import read_pages
from pydenoise.data.images import is_name_of_picture, list_pictures
from pydenoise.data.pictures import Head, ImageError, PathLike, read_head, reason_of

DTYPES = tuple(
    np.dtype(name)
    for name in (
        *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64", "longdouble"),
    )
)

ROW = np.dtype(
    [
        ("size", "<i8"),
        ("changed", "<i8"),  # nanoseconds
        ("pages", "<u4"),  # 0: no picture to learn from
        ("height", "<u4"),
        ("width", "<u4"),
        ("colours", "u1"),
        ("dtype", "u1"),  # in DTYPES
    ]
)

_FORM = "pydenoise index 1"
_UNKNOWN = -1
_SETTLED_NS = 2 * 10**9  # clocks of file systems tick at least that often
_READERS = 8
_LOOKED_AT = 256


@dataclass(frozen=True)
class Index:
    """The picture files of a folder.

    Attributes
    ----------
    folder : Path
        Absolute, without symbolic links.
    changed : int
        When files last came or went, in nanoseconds; -1 where some may have come since.
    names : numpy.ndarray of uint8
        Those of the files, sorted, each with a zero byte behind.
    rows : numpy.ndarray of `ROW`
        What each file holds.
    reasons : dict from str to str
        What cannot be learned from, by name, and why; empty for what is no picture.
    """

    folder: Path
    changed: int
    names: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.void]
    reasons: dict[str, str]

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, row: int) -> Path:
        """The file of a row."""
        start, end = self._ends[row : row + 2].tolist()
        return self.folder / os.fsdecode(self.names[start + 1 : end].tobytes())

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[-1], np.flatnonzero(self.names == 0)])

    @property
    def is_current(self) -> bool:
        """Whether no file came or went since; whether one was changed, shows when it is read."""
        return self.changed == _changed(self.folder)

    @property
    def decoded_bytes(self) -> int:
        """What all pictures take in memory."""
        of_a_number = np.array([dtype.itemsize for dtype in DTYPES], np.int64)
        numbers = self.rows["colours"].astype(np.int64)
        for name in ("pages", "height", "width"):
            numbers = numbers * self.rows[name]
        return int(numbers @ of_a_number[self.rows["dtype"]])


def index_of(folder: PathLike) -> Index:
    """The index of a folder: the one that was kept, brought up to date.

    Only files that are new or changed are looked at. Floating point is read whole, since NaN and
    infinity are not to be learned from.

    Raises
    ------
    ImageError
        As `pydenoise.data.list_pictures`.

    Warns
    -----
    RuntimeWarning
        Where the index cannot be kept.
    """
    place = Path(folder).resolve()
    kept = kept_index(place)
    if kept is not None and kept.is_current:
        return kept
    index = _indexed(place, kept)
    try:
        _keep(index)
    except OSError as error:
        warnings.warn(
            f"{_file_of(place)}: cannot be written ({reason_of(error)}); {folder} is indexed "
            "again next time",
            RuntimeWarning,
            stacklevel=2,
        )
    return index


def kept_index(folder: PathLike) -> Index | None:
    """The index of a folder that was kept, however old; None where there is no whole one."""
    place = Path(folder).resolve()
    with suppress(Exception), np.load(_file_of(place), allow_pickle=False) as file:
        told = json.loads(file["told"].tobytes())
        index = Index(place, told["changed"], file["names"], file["rows"], told["reasons"])
        if (told["form"], told["folder"]) == (_FORM, str(place)) and _is_whole(index):
            return index
    return None


def forget(index: Index) -> None:
    """Have a folder indexed anew the next time, since it is not as its index says."""
    with suppress(OSError):
        _file_of(index.folder).unlink(missing_ok=True)


def decoded_bytes(folder: PathLike) -> int:
    """About what the pictures of a folder take in memory, from its index or some of its files.

    Raises
    ------
    ImageError
        As `pydenoise.data.list_pictures`.
    """
    kept = kept_index(folder)
    if kept is not None and kept.is_current:
        return kept.decoded_bytes
    files, _ = _listed(Path(folder))
    apart = -(-len(files) // _LOOKED_AT)
    heads = [read_head(Path(folder) / file.name) for file in files[::apart]]
    known = [h.pages * h.height * h.width * h.colours * h.dtype.itemsize for h in heads if h]
    return len(files) * sum(known) // max(1, len(known))


def cache_folder() -> Path:
    """Where indexes are kept: `$XDG_CACHE_HOME/pydenoise`, or `~/.cache/pydenoise`."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "pydenoise"


class _File(NamedTuple):
    name: str
    size: int
    changed: int


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0  # which nothing was kept for


def _listed(folder: Path) -> tuple[list[_File], dict[str, str]]:
    """The picture files of a folder by name, and what else is there."""
    files, others = [], {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_name_of_picture(entry.name) and entry.is_file():
                    now = entry.stat()
                    files.append(_File(entry.name, now.st_size, now.st_mtime_ns))
                else:
                    others[entry.name] = ""
    except OSError:
        list_pictures(folder)  # which says it in words
        raise
    if not files:
        list_pictures(folder)
    return sorted(files), others


def _indexed(folder: Path, kept: Index | None) -> Index:
    """A new index, which takes over what is known of files that are the same."""
    began, changed = time.time_ns(), _changed(folder)
    files, reasons = _listed(folder)
    rows = np.zeros(len(files), ROW)
    rows["size"] = [file.size for file in files]
    rows["changed"] = [file.changed for file in files]
    known = {} if kept is None else {file: row for row, file in enumerate(_files(kept))}
    places = np.array([known.get(file, _UNKNOWN) for file in files])
    if kept is not None:
        rows[places >= 0] = kept.rows[places[places >= 0]]
        for place in np.flatnonzero((places >= 0) & (rows["pages"] == 0)).tolist():
            reasons[files[place].name] = kept.reasons[files[place].name]
    todo = np.flatnonzero(places < 0).tolist()
    for place, found in zip(todo, _looked_at(folder / files[i].name for i in todo), strict=True):
        if isinstance(found, str):
            reasons[files[place].name] = found
        else:
            rows[list(Head._fields)][place] = (*found[:-1], DTYPES.index(found.dtype))
    names = b"".join(os.fsencode(file.name) + b"\0" for file in files)
    settled = changed if began - changed > _SETTLED_NS else _UNKNOWN
    return Index(folder, settled, np.frombuffer(names, np.uint8), rows, reasons)


def _files(index: Index) -> list[_File]:
    names = map(os.fsdecode, index.names.tobytes().split(b"\0")[:-1])
    sizes, changed = index.rows["size"].tolist(), index.rows["changed"].tolist()
    return list(map(_File, names, sizes, changed))


def _looked_at(paths: Iterable[Path]) -> list[Head | str]:
    """What each file holds, or why it cannot be learned from."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(_found_in, paths))


def _found_in(path: Path) -> Head | str:
    head = read_head(path)
    if head is not None and head.colours in (1, 3) and head.dtype.kind != "f":
        return head
    try:
        pages = read_pages(path)
    except ImageError as error:
        return str(error)
    height, width, colours = pages[0].shape
    return Head(len(pages), height, width, colours, pages[0].dtype)


def _file_of(folder: Path) -> Path:
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()
    return cache_folder() / f"{key[:32]}.npz"


def _keep(index: Index) -> None:
    told = {
        "form": _FORM,
        "folder": str(index.folder),
        "changed": index.changed,
        "reasons": index.reasons,
    }
    words = np.frombuffer(json.dumps(told).encode(), np.uint8)
    place = _file_of(index.folder)
    place.parent.mkdir(parents=True, exist_ok=True)
    with new_file(place, overwrite=True) as file:
        np.savez(file, told=words, names=index.names, rows=index.rows)


def _is_whole(index: Index) -> bool:
    """Whether the parts of what was kept belong together."""
    rows, names = index.rows, index.names
    return bool(
        (rows.dtype, rows.ndim, names.dtype, names.ndim) == (ROW, 1, np.dtype(np.uint8), 1)
        and len(rows) == np.count_nonzero(names == 0) > 0
        and names[-1] == 0
        and ord("/") not in names
        and (rows["dtype"] < len(DTYPES)).all()
        and isinstance(index.changed, int)
        and isinstance(index.reasons, dict)
    )
