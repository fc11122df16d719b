"""BMP: read through Pillow, written here, so that alpha and a colour profile have a place.

Gray is written with a palette of 256 grays, RGB with 24 bits a pixel; the long head (version 5) is
for alpha and profiles alone.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from pydenoise.data.pictures._picture import Damaged, Limit, Metadata, Picture, Samples, one_page

if TYPE_CHECKING:
    from PIL.Image import Image

SIGNATURE = b"BM"

_FILE_HEAD, _INFO_HEAD, _LONG_HEAD = 14, 40, 124
_BIT_FIELDS = 3
_MASKS = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)  # red, green, blue, alpha
_SRGB, _EMBEDDED = 0x73524742, 0x4D424544
_INTENT_FOR_PICTURES = 4
_GRAYS = (np.arange(256, dtype="<u4") * 0x010101).tobytes()


class Form(NamedTuple):
    """Dots per metre, horizontal and vertical, as the file has them."""

    dots: tuple[int, int]


def read(file: BinaryIO, limit: Limit) -> Picture:
    from PIL.BmpImagePlugin import BmpImageFile

    content = file.read()
    head = struct.unpack_from("<I", content, _FILE_HEAD)[0]
    if head < _INFO_HEAD:
        (width, height, _, bits), dots = struct.unpack_from("<HHHH", content, 18), (0, 0)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", content, 18)
        dots = struct.unpack_from("<II", content, 38)
    limit.check(1, abs(height), abs(width), 4)
    icc = _profile(content) if head == _LONG_HEAD else None
    image: Image = BmpImageFile(io.BytesIO(content))
    changed = []
    if image.mode == "P":
        image, changed = image.convert("RGB"), ["its palette"]
    elif image.mode == "1":
        image, changed = image.convert("L"), ["1 bit a sample"]
    elif bits == 16:
        changed = ["16 bits a pixel"]
    per_metre = (float(dots[0]), float(dots[1])) if all(dots) else None
    metadata = Metadata(icc=icc, dots_per_metre=per_metre)
    return one_page(np.array(image), "BMP", metadata, Form(dots), tuple(changed))


def write(file: BinaryIO, picture: Picture) -> list[str]:
    metadata = picture.metadata
    icc = metadata.icc
    if picture.format == "BMP":
        dots = picture.form.dots
    else:
        icc = metadata.icc_for(picture.colours)
        dots = tuple(map(round, metadata.dots_per_metre or (0, 0)))
    rows = _rows(picture.samples[0])
    height, width, channels = picture.samples.shape[1:]
    is_long = channels == 4 or bool(icc)
    palette = _GRAYS if channels == 1 else b""
    head = _LONG_HEAD if is_long else _INFO_HEAD
    start = _FILE_HEAD + head + len(palette)
    end = start + len(rows)
    file.write(struct.pack("<2sIII", SIGNATURE, end + len(icc or b""), 0, start))
    kind = _BIT_FIELDS if channels == 4 else 0
    file.write(struct.pack("<IiiHHII", head, width, height, 1, 8 * channels, kind, len(rows)))
    file.write(struct.pack("<IIII", *dots, len(palette) // 4, 0))
    if is_long:
        file.write(struct.pack("<IIII", *(_MASKS if channels == 4 else (0, 0, 0, 0))))
        file.write(struct.pack("<I48x", _EMBEDDED if icc else _SRGB))
        place = (end - _FILE_HEAD, len(icc)) if icc else (0, 0)
        file.write(struct.pack("<IIII", _INTENT_FOR_PICTURES, *place, 0))
    file.write(palette + rows + (icc or b""))
    lost = list(metadata.beyond("icc", "dots_per_metre"))
    return lost + (["the ICC profile"] if metadata.icc and not icc else [])


def _profile(content: bytes) -> bytes | None:
    kind = struct.unpack_from("<I", content, _FILE_HEAD + 56)[0]
    start, size = struct.unpack_from("<II", content, _FILE_HEAD + 112)
    if kind != _EMBEDDED:
        return None
    if _FILE_HEAD + start + size > len(content):
        raise Damaged("it breaks off")
    return content[_FILE_HEAD + start : _FILE_HEAD + start + size]


def _rows(page: Samples) -> bytes:
    """Bottom row first, blue before red, each row filled up to whole words of four bytes."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[page.shape[2]]
    rows = page[::-1, :, order].reshape(len(page), -1)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
