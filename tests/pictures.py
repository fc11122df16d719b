"""Pictures for the tests of `pydenoise.data`, what stands beside them, and how refusals look."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pydenoise.data import ImageError, MetadataWarning, read_picture, write_picture

XMP = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'/><?xpacket end='w'?>"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def random_picture(layers: int | None = 3, height: int = 13, width: int = 17) -> np.ndarray:
    shape = (height, width) if layers is None else (height, width, layers)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def smooth_picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 3 * y, 60 + x + y], axis=2).astype(np.uint8)


def exif_stream(order: str = "<", orientation: int = 6) -> bytes:
    """An EXIF stream with a camera, an orientation, an exposure time and a place."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x829A] = 0.005  # exposure time
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def rewritten(path: Path, name: str = "", *, quiet: bool = True) -> Path:
    """The file read and written again, in the same format or as another name says."""
    out = path.with_name(name or f"again{path.suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error" if quiet else "ignore")
        write_picture(out, read_picture(path), overwrite=True)
    return out


def lost(path: Path, name: str) -> str:
    """What the warning says that a file of another format is written without."""
    with pytest.warns(MetadataWarning) as found:
        write_picture(path.with_name(name), read_picture(path), overwrite=True)
    assert len(found) == 1
    return str(found[0].message).split("written without ")[1]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def one_line(caught: pytest.ExceptionInfo[ImageError], path: Path) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message
