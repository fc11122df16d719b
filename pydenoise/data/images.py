"""Picture files to arrays and back, and arrays to tensors and back.

8 bits a channel for now. A file that cannot be kept exactly (16 bits, several pages, print
colours) is refused by name: nothing is silently made smaller. Pillow and torch load when needed.
"""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pydenoise.atomic import new_file
from pydenoise.data.noise import unit

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile
    from torch import Tensor

Picture: TypeAlias = npt.NDArray[np.uint8]
PathLike: TypeAlias = str | os.PathLike[str]

FORMAT_OF = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WEBP",
}
SUFFIXES = tuple(FORMAT_OF)
MAX_PIXELS = 2**27
SAVING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},  # exact: colours under full transparency too
}

_LAYERS_OF_MODE = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_MODE_OF_LAYERS = {layers: mode for mode, layers in _LAYERS_OF_MODE.items()}
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_UNSIGNED = 1
_SIGNATURES = {
    b"\x89PNG": "a damaged PNG",
    b"\xff\xd8": "a damaged JPEG",
    b"GIF8": "a GIF",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"8BPS": "a Photoshop file",
    b"\x93NUMPY": "a numpy array",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML file",
    b"\x1f\x8b": "a gzip archive",
}


class ImageError(ValueError):
    """A picture file that cannot be read or written; one line: the file, what came, the cure."""


def read(path: PathLike, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file.

    Parameters
    ----------
    path : path
        PNG, JPEG, WebP, BMP or TIFF of one picture with 8 bits or fewer a channel. What the file
        holds counts, not its suffix.
    max_pixels : int
        Larger pictures are refused before they are decoded: a small file can hold a huge one.

    Returns
    -------
    numpy.ndarray
        uint8, new: (H, W) for gray, (H, W, 2) gray and alpha, (H, W, 3) RGB, (H, W, 4) RGB and
        alpha. Palettes become RGB, bits become 0 and 255, a transparent colour becomes alpha.

    Raises
    ------
    ImageError
        When the file is missing, empty, no picture, truncated, too large, animated, has several
        pages, has more than 8 bits a channel, or colours other than gray and RGB.

    Notes
    -----
    The picture is turned as its EXIF orientation says, so it looks as a viewer shows it. Colour
    profiles are not applied: the numbers are the file's own.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    start = _first_bytes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes and odd tags, judged below
            with Image.open(path, formats=sorted(set(FORMAT_OF.values()))) as file:
                _refuse_what_would_lose(file, path, max_pixels)
                picture = ImageOps.exif_transpose(_plain(file))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path}: the picture is larger than Pillow ever decodes; crop or shrink it first"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: {_looks_like(start)}; expected a whole picture file ({_listed(SUFFIXES)})"
        ) from error
    except Exception as error:  # decoders raise anything on a foreign file
        raise ImageError(
            f"{path}: truncated or damaged ({_reason(error)}); get the file again"
        ) from error
    if picture.mode not in _LAYERS_OF_MODE:
        raise ImageError(
            f"{path}: colours are {picture.mode}; expected gray or RGB, 8 bits a channel: "
            "convert the file first"
        )
    return np.array(picture)


def write(path: PathLike, array: npt.NDArray[Any], *, overwrite: bool = False) -> None:
    """Write a picture file; it appears whole or not at all.

    Parameters
    ----------
    path : path
        Its suffix names the format. Its folder exists. JPEG loses a little; WebP loses nothing,
        but knows no gray: it comes back as RGB.
    array : numpy.ndarray
        uint8, (H, W) or (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha).
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ImageError
        When the suffix is unknown, the array has another shape or dtype, the format has no alpha
        (JPEG, BMP), the file exists and may not be replaced, or the folder cannot be written to.
    """
    from PIL import Image

    path = Path(path)
    array = np.asarray(array)
    layers = 1 if array.ndim == 2 else array.shape[-1]
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or layers not in _MODE_OF_LAYERS:
        raise ImageError(
            f"{path}: array has shape {array.shape} and dtype {array.dtype}; "
            "expected uint8 (H, W) or (H, W, C) with C from 1 to 4"
        )
    if not array.size:
        raise ImageError(f"{path}: array has shape {array.shape}; expected at least one pixel")
    kind = format_for(path, layers)
    planes = array.reshape(array.shape[:2]) if layers == 1 else array
    picture = Image.fromarray(np.ascontiguousarray(planes))
    try:
        with new_file(path, overwrite=overwrite) as file:
            picture.save(file, format=kind, **SAVING.get(kind, {}))
    except FileExistsError as error:
        raise ImageError(
            f"{path}: exists already; choose another name, or allow overwriting"
        ) from error
    except (OSError, ValueError) as error:  # Pillow's on a size that the format cannot hold
        raise ImageError(f"{path}: cannot be written ({_reason(error)})") from error


def format_for(path: Path, layers: int) -> str:
    """The format that a suffix names, in Pillow's word; ImageError where it cannot hold them."""
    kind = FORMAT_OF.get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"{path}: suffix {path.suffix!r}; expected one of {_listed(SUFFIXES)}")
    if layers in (2, 4) and kind in ("JPEG", "BMP"):
        raise ImageError(f"{path}: {kind} has no alpha channel; write a .png, or 1 or 3 channels")
    return kind


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
        raise ImageError(f"{folder}: {what}; expected a folder of pictures ({_listed(SUFFIXES)})")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed ({_reason(error)})") from error
    paths = [entry for entry in entries if _is_picture(entry)]
    if not paths:
        folders = sum(entry.is_dir() for entry in entries)
        found = f"holds no picture, but {len(entries)} other entries" if entries else "is empty"
        cure = f" (or name one of its {folders} sub-folders)" if folders else ""
        raise ImageError(f"{folder}: {found}; expected pictures ({_listed(SUFFIXES)}){cure}")
    return paths, [entry for entry in entries if not _is_picture(entry)]


def read_folder(
    folder: PathLike, smallest: int = 1
) -> tuple[list[Picture], list[Path], list[Path]]:
    """All pictures of a folder with one number of channels, to learn from.

    Alpha is dropped. If one picture has colours, gray ones among them become RGB.

    Parameters
    ----------
    folder : path
        Listed by `list_pictures`.
    smallest : int
        Pixels that every picture must have on both sides.

    Returns
    -------
    pictures : list of numpy.ndarray
        uint8, each (H, W, C), C = 1 or 3 for all of them.
    paths, skipped : list of Path
        As `list_pictures` gives them; `paths` in the order of `pictures`.

    Raises
    ------
    ImageError
        As `list_pictures` and `read`, and when a picture is too small.
    """
    paths, skipped = list_pictures(folder)
    pictures = [_without_alpha(read(path)) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        height, width = picture.shape[:2]
        if min(height, width) < smallest:
            raise ImageError(
                f"{path}: is {height}x{width} pixels; expected at least {smallest}x{smallest}: "
                "take smaller crops or blocks, or leave it out"
            )
    if len({picture.shape[2] for picture in pictures}) > 1:
        pictures = [np.repeat(p, 3, axis=2) if p.shape[2] == 1 else p for p in pictures]
    return pictures, paths, skipped


def to_tensor(array: npt.NDArray[Any]) -> Tensor:
    """(H, W) or (H, W, C) uint8 to a new (1, C, H, W) float32 tensor on the scale 0..1."""
    import torch

    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            f"to_tensor: array has shape {array.shape} and dtype {array.dtype}; "
            "expected uint8 (H, W) or (H, W, C)"
        )
    layers = array[:, :, None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(unit(layers).transpose(2, 0, 1)[None]))


def to_array(tensor: Tensor) -> Picture:
    """(1, C, H, W) or (C, H, W) on the scale 0..1 to uint8 (H, W, C), or (H, W) if C is 1.

    Values are clipped to [0, 1] and rounded to the nearest of 256 levels.

    Raises
    ------
    ValueError
        When the tensor has another shape, is not floating point, or holds NaN.
    """
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or not tensor.is_floating_point():
        raise ValueError(
            f"to_array: tensor has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; "
            "expected floating point (1, C, H, W) or (C, H, W)"
        )
    if bool(tensor.isnan().any()):
        raise ValueError("to_array: tensor holds NaN; expected numbers on the scale 0..1")
    levels = tensor.detach().cpu().float().clamp(0, 1).mul(255).round()
    planes = levels.numpy().astype(np.uint8)
    return planes[0] if len(planes) == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def _first_bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder; expected a picture file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({_reason(error)})") from error
    if not start:
        raise ImageError(f"{path}: the file is empty (0 bytes); get it again")
    return start


def _refuse_what_would_lose(file: ImageFile, path: Path, max_pixels: int) -> None:
    """Read from the header alone, before a pixel is decoded."""
    width, height = file.size
    if width * height > max_pixels:
        raise ImageError(
            f"{path}: {width}x{height} pixels are more than the limit of {max_pixels}; "
            "crop it, or raise max_pixels if you trust the file"
        )
    frames = getattr(file, "n_frames", 1)
    if frames > 1 and file.format in ("PNG", "TIFF", "WEBP"):
        raise ImageError(f"{path}: holds {frames} pictures; expected one: save them one by one")
    tags = getattr(file, "tag_v2", {}) if file.format == "TIFF" else {}
    if set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
        raise ImageError(f"{path}: holds signed or floating point numbers; expected 0 .. 255")
    bits = _bits_per_channel(file, max(tags.get(_BITS_PER_SAMPLE, (8,))))
    if bits > 8:
        raise ImageError(
            f"{path}: {bits} bits a channel; expected 8: save it with 8 bits a channel"
        )


def _bits_per_channel(file: ImageFile, bits_told: int) -> int:
    """As the file has it: Pillow would cut 16-bit colours down to 8 without a word."""
    if file.mode in ("I", "F"):
        return 32
    if any(";16" in str(tile.args) for tile in file.tile):
        return 16
    return bits_told


def _plain(file: ImageFile) -> Image:
    """Decode; the picture without palette, single bits and transparent colour."""
    has_transparent_colour = "transparency" in file.info
    if file.mode in ("P", "PA"):
        return file.convert("RGBA" if has_transparent_colour or file.mode == "PA" else "RGB")
    if file.mode == "1":
        return file.convert("L")
    if has_transparent_colour and file.mode in ("L", "RGB"):
        return file.convert(file.mode + "A")
    return file


def _without_alpha(picture: Picture) -> Picture:
    layers = picture[:, :, None] if picture.ndim == 2 else picture
    return np.ascontiguousarray(layers[:, :, : 1 if layers.shape[2] < 3 else 3])


def _is_picture(entry: Path) -> bool:
    return entry.suffix.lower() in FORMAT_OF and not entry.name.startswith(".") and entry.is_file()


def _looks_like(start: bytes) -> str:
    """What a file is that is no picture we read, from its first bytes."""
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return f"is {name}"
    if all(byte in b"\t\n\r\f" or (byte >= 32 and byte != 127) for byte in start):
        return "is a text file"
    return "is no picture"


def _reason(error: BaseException) -> str:
    """The error's own words on one line."""
    if isinstance(error, struct.error):
        return "a field of the file is cut off"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(words)
