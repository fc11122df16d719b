"""Pictures of 8 bits as plain arrays, lists of files, and arrays to tensors and back.

Files with all they hold, every depth, stacks and metadata, go through `pydenoise.data.pictures`;
folders to learn from through `pydenoise.data.folders`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pydenoise.data.noise import unit
from pydenoise.data.pictures import (
    SUFFIXES,
    ImageError,
    PathLike,
    Picture,
    read_picture,
    reason_of,
    upright,
    write_picture,
)

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.uint8]

_FARTHEST = 2.0**24

_SUFFIXES = ", ".join(SUFFIXES)


def read(path: PathLike, *, max_pixels: int | None = None) -> Pixels:
    """Read a picture file of one picture with 8 bits or fewer a channel as an array.

    Parameters
    ----------
    path : path
        Any file that `read_picture` reads. What it holds counts, not its suffix.
    max_pixels : int, optional
        As in `read_picture`.

    Returns
    -------
    numpy.ndarray
        uint8, new: (H, W) for gray, (H, W, 2) gray and alpha, (H, W, 3) RGB, (H, W, 4) RGB and
        alpha. Palettes become RGB, bits become 0 and 255, a transparent colour becomes alpha.

    Raises
    ------
    ImageError
        As `read_picture`, and when the file has several pages or more than 8 bits a channel.

    Notes
    -----
    The picture is turned as its EXIF orientation says, so it looks as a viewer shows it. Colour
    profiles are not applied: the numbers are the file's own.
    """
    picture = read_picture(path, max_pixels=max_pixels)
    dtype = picture.samples.dtype
    if picture.pages > 1:
        raise ImageError(
            f"{path}: holds {picture.pages} pictures; expected one: save them one by one"
        )
    if dtype.kind != "u":
        raise ImageError(f"{path}: holds signed or floating point numbers; expected 0 .. 255")
    if dtype != np.uint8:
        bits = 8 * dtype.itemsize
        raise ImageError(
            f"{path}: {bits} bits a channel; expected 8: save it with 8 bits a channel"
        )
    if picture.samples.shape[3] > 4:
        raise ImageError(f"{path}: has {picture.samples.shape[3]} channels; expected 4 at most")
    page = picture.samples[0]
    turned = upright(page[:, :, 0] if page.shape[2] == 1 else page, picture.metadata.orientation)
    return np.array(turned, order="C")


def write(path: PathLike, array: npt.NDArray[Any], *, overwrite: bool = False) -> None:
    """Write an array as a picture file; it appears whole or not at all.

    Parameters
    ----------
    path : path
        Its suffix names the format. Its folder exists. JPEG loses a little; WebP loses nothing,
        but knows no gray: it comes back as RGB.
    array : numpy.ndarray
        (H, W) or (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha), of a
        dtype that the format holds: uint8 goes with all of them.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ImageError
        When the suffix is unknown, the array has another shape, the format has no place for its
        dtype or its alpha, the file exists and may not be replaced, or the folder cannot be
        written to.
    """
    array = np.asarray(array)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise ImageError(
            f"{path}: array has shape {array.shape}; expected (H, W) or (H, W, C), C from 1 to 4"
        )
    if not array.size:
        raise ImageError(f"{path}: array has shape {array.shape}; expected at least one pixel")
    write_picture(path, Picture.of(array), overwrite=overwrite)


def list_pictures(folder: PathLike) -> tuple[list[Path], list[Path]]:
    """The picture files of a folder, by suffix, and what else lies there.

    Returns
    -------
    paths, skipped : list of Path
        Both sorted by name. Sub-folders and hidden files are among the skipped.

    Raises
    ------
    ImageError
        When the folder is missing, is no folder, or holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"{folder}: {what}; expected a folder of pictures ({_SUFFIXES})")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({reason_of(error)})") from error
    paths = [entry for entry in entries if is_picture(entry)]
    if not paths:
        folders = sum(entry.is_dir() for entry in entries)
        found = f"holds no picture, but {len(entries)} other entries" if entries else "is empty"
        cure = f" (or name one of its {folders} sub-folders)" if folders else ""
        raise ImageError(f"{folder}: {found}; expected pictures ({_SUFFIXES}){cure}")
    return paths, [entry for entry in entries if not is_picture(entry)]


def to_tensor(array: npt.NDArray[Any], value_range: tuple[float, float] | None = None) -> Tensor:
    """(H, W) or (H, W, C) numbers to a new (1, C, H, W) float32 tensor.

    Parameters
    ----------
    array : ndarray of whole numbers or floating point
    value_range : (float, float), optional
        The numbers that become 0 and 1; none are clipped. If omitted whole numbers go from the
        range of their dtype to 0..1, and floating point stays as it is.

    Raises
    ------
    ValueError
        When the array is neither, or has another shape, or when a number lies so far from the
        range that a float32 beside it does not see the range any more.
    """
    import torch

    array = np.asarray(array)
    if array.dtype.kind not in "uif" or array.ndim not in (2, 3):
        raise ValueError(
            f"to_tensor: array has shape {array.shape} and dtype {array.dtype}; "
            "expected whole numbers or floating point, (H, W) or (H, W, C)"
        )
    layers = array[:, :, None] if array.ndim == 2 else array
    is_plain = array.dtype == np.uint8 and value_range is None
    scaled = unit(layers) if is_plain else _scaled(layers, value_range)
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1)[None]))


def _scaled(
    layers: npt.NDArray[Any], value_range: tuple[float, float] | None
) -> npt.NDArray[np.float32]:
    """The numbers as float32 on the scale where the range is 0 to 1."""
    is_plain = value_range is None and layers.dtype.kind == "f"
    low, high = value_range or ((0.0, 1.0) if is_plain else _range(layers.dtype))
    wide = _exact(layers.dtype)
    try:
        with np.errstate(over="raise"):
            if not is_plain:
                layers = (layers.astype(wide) - wide(low)) / wide(np.subtract(high, low))
            scaled = layers.astype(np.float32)
        is_far = bool((np.abs(scaled) > _FARTHEST).any())
    except FloatingPointError:
        is_far = True
    if is_far:
        raise ValueError(
            f"numbers lie more than {_FARTHEST:.0e} times as far out as the range {low:g} to "
            f"{high:g}; put NaN where they stand for missing pixels, or name another range"
        )
    return scaled


def to_array(
    tensor: Tensor,
    dtype: npt.DTypeLike = np.uint8,
    value_range: tuple[float, float] | None = None,
) -> npt.NDArray[Any]:
    """(1, C, H, W) or (C, H, W) to (H, W, C), or (H, W) if C is 1, the other way round.

    Whole numbers are rounded and clipped to the range of the dtype; floating point is neither, but
    what is beyond all numbers of the dtype becomes the last of them.

    Raises
    ------
    ValueError
        When the tensor has another shape, is not floating point, or holds NaN that whole numbers
        cannot say.
    """
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or not tensor.is_floating_point():
        raise ValueError(
            f"to_array: tensor has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; "
            "expected floating point (1, C, H, W) or (C, H, W)"
        )
    dtype = np.dtype(dtype)
    planes = tensor.detach().cpu().float().numpy()
    if value_range is not None or dtype.kind != "f":
        low, high = value_range or _range(dtype)
        wide = _exact(dtype)
        planes = planes.astype(wide) * wide(high - low) + wide(low)
    if dtype.kind != "f":
        if np.isnan(planes).any():
            raise ValueError("to_array: tensor holds NaN; expected numbers")
        planes = np.rint(planes).clip(*_range(dtype))
    elif dtype.itemsize < planes.itemsize:  # infinity is no number of the picture's
        planes = planes.clip(np.finfo(dtype).min, np.finfo(dtype).max)
    planes = planes.astype(dtype)
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _exact(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """A floating point type that holds every number of a dtype, whole ones up to 32 bits."""
    return np.float32 if dtype.itemsize < 4 else np.float64


def is_picture(entry: Path) -> bool:
    """Whether a file's suffix is one of ours, and it is not hidden."""
    return is_name_of_picture(entry.name) and entry.is_file()


def is_name_of_picture(name: str) -> bool:
    """`is_picture`, of a file's name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
