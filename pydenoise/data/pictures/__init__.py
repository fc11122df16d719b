"""Picture files of every kind in, the same kind out.

`read_picture` gives a `Picture`: samples in the file's depth, pages, alpha, and all that the file
says beside them; `write_picture` makes the same kind of file of it, with other samples. One file
beside this for each family of formats; their decoders load when needed.
"""

from __future__ import annotations

import os
import struct
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pydenoise.atomic import new_file
from pydenoise.data.pictures._picture import (
    Damaged,
    Head,
    ImageError,
    Layout,
    Limit,
    Metadata,
    MetadataWarning,
    Picture,
    Unfit,
    upright,
)

if TYPE_CHECKING:
    from io import BufferedReader

__all__ = [
    "Head",
    "ImageError",
    "Layout",
    "Metadata",
    "MetadataWarning",
    "PathLike",
    "Picture",
    "SUFFIXES",
    "check_writable",
    "read_head",
    "read_picture",
    "reason_of",
    "upright",
    "write_picture",
]

PathLike: TypeAlias = str | os.PathLike[str]


class Format(NamedTuple):
    """What files of a format may hold: the first suffix is the usual one."""

    suffixes: tuple[str, ...]
    module: str
    dtypes: tuple[str, ...] | None  # None: any number
    has_pages: bool = False
    alpha: str = "any"  # or "none", or "colour": beside colours alone


_TIFF_DTYPES = (
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
FORMATS = {
    "PNG": Format((".png",), "_png", ("uint8", "uint16")),
    "JPEG": Format((".jpg", ".jpeg"), "_jpeg", ("uint8",), alpha="none"),
    "TIFF": Format((".tif", ".tiff"), "_tiff", _TIFF_DTYPES, has_pages=True),
    "BMP": Format((".bmp",), "_bmp", ("uint8",), alpha="colour"),
    "WEBP": Format((".webp",), "_webp", ("uint8",)),
    "NPY": Format((".npy",), "_npy", None, has_pages=True),
}
SUFFIXES = tuple(suffix for format in FORMATS.values() for suffix in format.suffixes)

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"\x93NUMPY": "NPY",
}
_FOREIGN = {
    b"\x89PNG": "a damaged PNG",
    b"\xff\xd8": "a damaged JPEG",
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"8BPS": "a Photoshop file",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"\x1f\x8b": "a gzip archive",
}


def read_picture(
    path: PathLike, *, axes: str | None = None, max_pixels: int | None = None
) -> Picture:
    """Read a picture file whole: samples, pages, alpha, and what it says beside them.

    Parameters
    ----------
    path : path
        PNG, JPEG, WebP, BMP, TIFF (also BigTIFF, stacks, any compression that imagecodecs knows)
        or .npy. What the file holds counts, not its suffix.
    axes : str, optional
        A letter for each dimension of a TIFF or .npy: Y and X are height and width, S the samples
        of one pixel, all others count pages (TYX, TZYX, ...). The file's own names if omitted; a
        .npy has none: its last dimension counts as S if it is 4 or less, those before the last
        two as pages.
    max_pixels : int, optional
        More pixels, all pages together, are refused before they are decoded: a small file can
        hold a huge picture. If omitted, a file may expand to 128 MiB, or to 32 times its own
        size if that is more.

    Returns
    -------
    Picture
        Samples as the file has them, in no other depth, colours or orientation. Palettes become
        colours, fewer than 8 bits become 8, a transparent colour becomes alpha, and white at zero
        becomes white at the top.

    Raises
    ------
    ImageError
        When the file is missing, empty, no picture, truncated, damaged or too large, when it
        holds several pictures that are no stack, or colours other than gray and RGB.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(file, axes, max_pixels)
    except Unfit as error:
        raise ImageError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder; expected a picture file") from None
    except PermissionError as error:
        raise ImageError(
            f"{path}: cannot be opened ({reason_of(error)}); check its permissions"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: needs more memory than there is; crop it first") from error
    except Exception as error:  # decoders raise anything on a foreign file
        raise ImageError(
            f"{path}: truncated or damaged ({reason_of(error)}); get the file again"
        ) from error


def read_head(path: PathLike) -> Head | None:
    """What a picture file says of its samples, without decoding them.

    Returns
    -------
    Head or None
        None where only `read_picture` can tell: kinds of file that are rare or say little, and
        whatever looks damaged. A file whose samples alone are damaged has a head.
    """
    with suppress(Exception), open(path, "rb") as file:
        name = _format_of(file.read(64))
        if name is not None and hasattr(_family(name), "head"):
            limit = Limit(None, os.fstat(file.fileno()).st_size)
            file.seek(0)
            head: Head | None = _family(name).head(file, limit)
            return head if head is not None and head.dtype.kind in "uif" else None
    return None


def write_picture(path: PathLike, picture: Picture, *, overwrite: bool = False) -> None:
    """Write a picture file; it appears whole or not at all.

    Parameters
    ----------
    path : path
        Its suffix names the format; its folder exists. In the format that the picture was read
        from, all is kept that the file said: compression, resolution, profile, EXIF, text, tags.
    picture : Picture
        As it was read, or with other samples (`Picture.with_samples`), or made (`Picture.of`).
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ImageError
        When the format cannot hold the picture, the file exists and may not be replaced, or the
        folder cannot be written to.

    Warns
    -----
    MetadataWarning
        When the source said something that the new file cannot say, or that is no longer true.

    Notes
    -----
    JPEG and lossy WebP are written at the quality of their source; what was lossless stays so,
    and what comes from another format is written as WebP without loss, as JPEG with quality 95.
    """
    path = Path(path)
    format = check_writable(path, picture)
    try:
        with new_file(path, overwrite=overwrite) as file:
            lost = [*picture.changed, *_family(format).write(file, picture)]
    except FileExistsError as error:
        raise ImageError(
            f"{path}: exists already; choose another name, or allow overwriting"
        ) from error
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be written ({reason_of(error)}); make room or choose another place"
        ) from error
    except (ValueError, RuntimeError, struct.error, Damaged) as error:
        raise ImageError(f"{path}: cannot be written ({reason_of(error)})") from error
    if lost:
        words = ", ".join(dict.fromkeys(lost))
        warnings.warn(f"{path}: written without {words}", MetadataWarning, stacklevel=2)


def check_writable(path: PathLike, picture: Picture) -> str:
    """The name of the format that a suffix names; ImageError where it cannot hold the picture."""
    path = Path(path)
    name = next((n for n, f in FORMATS.items() if path.suffix.lower() in f.suffixes), None)
    if name is None:
        listed = ", ".join(SUFFIXES)
        raise ImageError(f"{path}: suffix {path.suffix!r}; expected one of {listed}")
    format = FORMATS[name]
    if format.dtypes is not None and picture.samples.dtype.name not in format.dtypes:
        raise ImageError(
            f"{path}: samples have dtype {picture.samples.dtype}; expected "
            f"{' or '.join(format.dtypes)} for {name}: write a .tif or .npy"
        )
    if picture.pages > 1 and not format.has_pages:
        raise ImageError(
            f"{path}: {name} holds one picture, this has {picture.pages} pages; write a .tif"
        )
    if picture.colours not in (1, 3) and not format.has_pages:
        raise ImageError(
            f"{path}: {name} holds gray or RGB, this has {picture.colours} channels; write a .tif"
        )
    is_refused = format.alpha == "none" or (format.alpha == "colour" and picture.colours == 1)
    if picture.alpha is not None and is_refused:
        beside = "" if format.alpha == "none" else " beside gray"
        raise ImageError(
            f"{path}: {name} has no alpha channel{beside}; write a .png, or 1 or 3 channels"
        )
    return name


def reason_of(error: BaseException) -> str:
    """The error's own words on one line."""
    if isinstance(error, struct.error):
        return "a field of the file is cut off"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _read(file: BufferedReader, axes: str | None, max_pixels: int | None) -> Picture:
    start = file.read(64)
    if not start:
        raise Unfit("the file is empty (0 bytes); get it again")
    name = _format_of(start)
    if name is None:
        raise Unfit(f"{_looks_like(start)}; expected a whole picture file ({', '.join(SUFFIXES)})")
    if axes is not None and not FORMATS[name].has_pages:
        raise Unfit(f"is a {name}, which holds one picture; axes name those of TIFF and .npy")
    limit = Limit(max_pixels, os.fstat(file.fileno()).st_size)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd tags; what matters is judged here
        if FORMATS[name].has_pages:
            return _family(name).read(file, limit, axes)
        return _family(name).read(file, limit)


def _format_of(start: bytes) -> str | None:
    """The name of a file's format, from its first bytes."""
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WEBP"
    return next((n for signature, n in _SIGNATURES.items() if start.startswith(signature)), None)


def _family(name: str) -> Any:
    return import_module(f"{__name__}.{FORMATS[name].module}")


def _looks_like(start: bytes) -> str:
    """What a file is that is no picture we read, from its first bytes."""
    for signature, name in _FOREIGN.items():
        if start.startswith(signature):
            return f"is {name}"
    if all(byte in b"\t\n\r\f" or (byte >= 32 and byte != 127) for byte in start):
        return "is a text file"
    return "is no picture"
