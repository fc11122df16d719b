"""Folders of pictures to learn from: every depth, of one kind, and the range of their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pydenoise.data.images import list_pictures
from pydenoise.data.levels import levels
from pydenoise.data.noise import Array
from pydenoise.data.pairs import PairsError
from pydenoise.data.pictures import ImageError, PathLike, read_picture, upright

ValueRange: TypeAlias = tuple[float, float] | None
"""Numbers of a file that become 0 and 1; None: the range of their dtype, others as they are."""

_SAMPLED = 2**22


class Folder(NamedTuple):
    """What a folder holds.

    Attributes
    ----------
    pictures : list of numpy.ndarray
        Each (H, W, C), C = 1 or 3, of one C and one dtype for all; every page is one.
    paths : list of Path
        The file of each.
    skipped : dict from Path to str
        What else is there, and why it was left out: pictures that cannot be read, and those of
        another kind. The reason is empty for what is no picture.
    """

    pictures: list[Array]
    paths: list[Path]
    skipped: dict[Path, str]


def read_folder(folder: PathLike, smallest: int = 1) -> Folder:
    """All pictures of a folder that are of one kind, to learn from.

    Alpha is dropped, and pictures are turned as their EXIF orientation says. If one has colours,
    gray ones among them become RGB. The kind is the dtype that most files have.

    Parameters
    ----------
    folder : path
        Listed by `list_pictures`.
    smallest : int
        Pixels that every picture must have on both sides.

    Returns
    -------
    Folder

    Raises
    ------
    ImageError
        As `list_pictures`, when no picture can be read, and when one is too small.
    """
    paths, skipped = list_pictures(folder)
    files: dict[Path, list[Array]] = {}
    refused: dict[Path, ImageError] = {}
    for path in paths:
        try:
            files[path] = read_pages(path)
        except ImageError as error:
            refused[path] = error
    if not files:
        raise refused[paths[0]]
    kinds = Counter(pages[0].dtype for pages in files.values())
    dtype = max(kinds, key=lambda kind: kinds[kind])
    taken = {path: pages for path, pages in files.items() if pages[0].dtype == dtype}
    pictures = [page for pages in taken.values() for page in pages]
    of_pictures = [path for path, pages in taken.items() for _ in pages]
    for path, picture in zip(of_pictures, pictures, strict=True):
        height, width = picture.shape[:2]
        if min(height, width) < smallest:
            raise too_small(path, height, width, smallest)
    if len({picture.shape[2] for picture in pictures}) > 1:
        pictures = [np.repeat(p, 3, axis=2) if p.shape[2] == 1 else p for p in pictures]
    reasons = dict.fromkeys(skipped, "") | {path: str(error) for path, error in refused.items()}
    for path in files.keys() - taken.keys():
        reasons[path] = f"{path}: holds {files[path][0].dtype}; most files there hold {dtype}"
    return Folder(pictures, of_pictures, dict(sorted(reasons.items())))


def too_small(path: Path, height: int, width: int, smallest: int) -> ImageError:
    """What to say of a picture that is."""
    return ImageError(
        f"{path}: is {height}x{width} pixels; expected at least {smallest}x{smallest}: "
        "take smaller crops or blocks, or leave it out"
    )


def read_pages(path: PathLike) -> list[Array]:
    """The pages of a picture file, each (H, W, C), C = 1 or 3, upright and without alpha.

    Raises
    ------
    ImageError
        As `read_picture`, and for true and false, other channels than gray or RGB, NaN or infinity.
    """
    picture = read_picture(path)
    try:
        picture.check_numbers()
    except TypeError as error:
        raise ImageError(f"{path}: {error}") from error
    if picture.colours not in (1, 3):
        raise ImageError(f"{path}: has {picture.colours} channels; expected gray or RGB")
    colours = picture.samples[..., : picture.colours]
    if not np.isfinite(colours).all():
        raise ImageError(f"{path}: holds NaN or infinity; expected numbers to learn from")
    return [np.ascontiguousarray(upright(page, picture.metadata.orientation)) for page in colours]


def value_range(pictures: Iterable[Array], where: object = "pictures") -> ValueRange:
    """The numbers of a folder that shall become 0 and 1.

    Parameters
    ----------
    pictures : iterable of numpy.ndarray
        Of one dtype.
    where : object
        Where they come from, for the message.

    Returns
    -------
    (float, float) or None
        None, the range of the dtype, for 8 bits, and for 16 or more if the upper half of them is
        in use. Else, as for 12 bits in 16, signed numbers and floating point, the 0.1 and 99.9
        percentiles.

    Raises
    ------
    PairsError
        For pictures of one single number.

    Examples
    --------
    >>> low, high = value_range([np.arange(-1000, 1001, dtype=np.int16)])
    >>> round(low), round(high)
    (-998, 998)
    """
    pictures = list(pictures)
    dtype = pictures[0].dtype
    if dtype == np.uint8:
        return None
    if dtype.kind == "u" and max(int(p.max()) for p in pictures) > np.iinfo(dtype).max // 2:
        return None
    low, high = levels((p.reshape(*p.shape[:2], -1) for p in pictures), _SAMPLED) or (0.0, 0.0)
    if not low < high:
        raise PairsError(
            f"{where}: nearly all numbers are {low:g}; expected pictures that show something: take "
            "others, or name the numbers that are black and white (--range LO HI)"
        )
    return low, high


def scale_of(dtype: np.dtype[Any], bounds: ValueRange) -> tuple[float, float]:
    """Gain and offset that take the numbers of a dtype to the scale 0..1 of a value range."""
    low, high = bounds or (0.0, 1.0)
    if bounds is None and dtype.kind != "f":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return 1 / (high - low), -low / (high - low)


def on_scale(pictures: Sequence[Array], bounds: ValueRange) -> list[Array]:
    """Pictures as float32 on the scale 0..1; uint8 in the range of its dtype stays as it is."""
    dtype = pictures[0].dtype
    if dtype == np.uint8 and bounds is None:
        return list(pictures)
    gain, offset = scale_of(dtype, bounds)
    return [(picture.astype(np.float64) * gain + offset).astype(np.float32) for picture in pictures]


class Matched(NamedTuple):
    """The pictures of two folders that share their names: `first[i]` and `second[i]` are one."""

    first: list[Array]
    second: list[Array]
    names: list[str]
    skipped: dict[Path, str]


def matching_pictures(folder_a: PathLike, folder_b: PathLike, smallest: int = 1) -> Matched:
    """The pictures of two folders that share their names without suffix, page by page.

    Parameters
    ----------
    folder_a, folder_b : path
        `a/cat.png` and `b/cat.jpg` are one scene. Both have the same size and as many pages.
    smallest : int
        As in `read_folder`.

    Returns
    -------
    Matched

    Raises
    ------
    ImageError
        As `read_folder`.
    PairsError
        When a picture has no partner, or one of another size.
    """
    first, second = (read_folder(folder, smallest) for folder in (folder_a, folder_b))
    names, partners = _by_name(folder_a, first), _by_name(folder_b, second)
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
    matched = Matched([], [], [], first.skipped | second.skipped)
    for name in sorted(names):
        a, b = names[name], partners[name]
        if [page.shape for page in a] != [page.shape for page in b]:
            raise PairsError(
                f"{folder_a} and {folder_b}: {name!r} is {_size(a)} in one and {_size(b)} in "
                "the other; expected one size and one number of channels"
            )
        matched.first.extend(a)
        matched.second.extend(b)
        matched.names.extend([name] * len(a))
    return matched


def _by_name(folder: PathLike, content: Folder) -> dict[str, list[Array]]:
    """The pages of each picture of a folder by its file's name without suffix."""
    files: dict[str, Path] = {}
    pages: dict[str, list[Array]] = {}
    for path, page in zip(content.paths, content.pictures, strict=True):
        if files.setdefault(path.stem, path) != path:
            raise PairsError(
                f"{folder}: two pictures are named {path.stem!r}; expected one a scene"
            )
        pages.setdefault(path.stem, []).append(page)
    return pages


def _size(pages: Sequence[Array]) -> str:
    count = f"{len(pages)} pages of " if pages[1:] else ""
    return count + "x".join(str(side) for side in pages[0].shape)
