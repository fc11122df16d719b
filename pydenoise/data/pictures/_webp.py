"""WebP: samples through imagecodecs and Pillow; the container's other chunks byte for byte.

A lossless file stays lossless, a lossy one is written at the source's quality. Gray is held as
RGB: WebP knows no other.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from pydenoise.data.pictures._ifd import orientation_of
from pydenoise.data.pictures._picture import (
    Damaged,
    Limit,
    Metadata,
    Picture,
    Unfit,
    one_page,
    plain,
)
from pydenoise.data.pictures._vp8 import quality_of

WITHOUT_SOURCE: dict[str, Any] = {"lossless": True}

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
_HAS_ICC, _HAS_ALPHA, _HAS_EXIF, _HAS_XMP = 0x20, 0x10, 0x08, 0x04
_EXIF_PREFIX = b"Exif\0\0"  # not asked for, yet some write it


class Chunk(NamedTuple):
    kind: bytes
    body: bytes


class Form(NamedTuple):
    """The chunks beside the picture, and how it is coded, in Pillow's words."""

    chunks: tuple[Chunk, ...]
    coding: dict[str, Any]


def read(file: BinaryIO, limit: Limit) -> Picture:
    import imagecodecs

    content = file.read()
    chunks = list(_chunks(content))
    frames = sum(kind == b"ANMF" for kind, _ in chunks)
    if frames:
        raise Unfit(f"holds {frames} pictures; expected one: save them one by one")
    coding: dict[str, Any]
    kind, frame = next(((k, b) for k, b in chunks if k in _PIXELS[:2]), (b"", b""))
    if kind == b"VP8 " and frame[3:6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", frame, 6))
        bits, coding = 0, {"quality": quality_of(frame)}
    elif kind == b"VP8L" and frame[:1] == b"\x2f":
        bits = struct.unpack_from("<I", frame, 1)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        coding = WITHOUT_SOURCE
    else:
        raise Damaged("no picture in it")
    for _, body in (c for c in chunks if c.kind == b"VP8X"):
        if _canvas(body) != (width, height):
            raise Damaged("canvas and picture differ in size")
    limit.check(1, height, width, 4)
    kept = tuple(c for c in chunks if c.kind not in (*_PIXELS, b"VP8X"))
    flags = [body[0] for kind, body in chunks if kind == b"VP8X"]
    has_alpha = bool(flags[0] & _HAS_ALPHA) if flags else kind == b"VP8L" and bool(bits >> 28 & 1)
    array = imagecodecs.webp_decode(content, hasalpha=has_alpha)
    return one_page(array, "WEBP", _metadata(kept), Form(kept, coding))


def write(file: BinaryIO, picture: Picture) -> list[str]:
    from PIL import Image

    form: Form | None = picture.form if picture.format == "WEBP" else None
    image = Image.fromarray(plain(picture))
    image = image.convert("RGB" if picture.alpha is None else "RGBA")
    coded = io.BytesIO()
    # exact: colours under full transparency too
    image.save(coded, format="WEBP", exact=True, **(form.coding if form else WITHOUT_SOURCE))
    lost: list[str] = []
    said = list(form.chunks if form else _general(picture, lost))
    pixels = [chunk for chunk in _chunks(coded.getvalue()) if chunk.kind in _PIXELS]
    chunks = pixels
    if said or picture.alpha is not None:
        profile = [chunk for chunk in said if chunk.kind == b"ICCP"]
        others = [chunk for chunk in said if chunk.kind != b"ICCP"]
        chunks = [_head(image.size, said, picture.alpha is not None), *profile, *pixels, *others]
    body = b"".join(
        kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for kind, body in chunks
    )
    file.write(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
    return lost


def _chunks(content: bytes) -> Iterator[Chunk]:
    """All chunks of the container."""
    end = 8 + struct.unpack_from("<I", content, 4)[0]
    if end > len(content):
        raise Damaged("it breaks off")
    place = 12
    while place + 8 <= end:
        kind, length = struct.unpack_from("<4sI", content, place)
        if place + 8 + length > end:
            raise Damaged("it breaks off")
        yield Chunk(kind, content[place + 8 : place + 8 + length])
        place += 8 + length + length % 2


def _canvas(body: bytes) -> tuple[int, int]:
    width, height = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
    return width, height


def _head(size: tuple[int, int], said: list[Chunk], has_alpha: bool) -> Chunk:
    kinds = {chunk.kind for chunk in said}
    flags = _HAS_ALPHA * has_alpha
    for kind, flag in ((b"ICCP", _HAS_ICC), (b"EXIF", _HAS_EXIF), (b"XMP ", _HAS_XMP)):
        flags |= flag * (kind in kinds)
    sides = b"".join((side - 1).to_bytes(3, "little") for side in size)
    return Chunk(b"VP8X", struct.pack("<I", flags) + sides)


def _metadata(chunks: tuple[Chunk, ...]) -> Metadata:
    found = dict(reversed(chunks))
    exif = found.get(b"EXIF", b"").removeprefix(_EXIF_PREFIX) or None
    known = (b"ICCP", b"EXIF", b"XMP ")
    others = tuple(c.kind.decode("latin-1").strip() for c in chunks if c.kind not in known)
    return Metadata(
        icc=found.get(b"ICCP"),
        exif=exif,
        xmp=found.get(b"XMP "),
        orientation=orientation_of(exif),
        others=others,
    )


def _general(picture: Picture, lost: list[str]) -> Iterator[Chunk]:
    """Chunks for what another format has said; what does not fit is named in `lost`."""
    metadata = picture.metadata
    lost += metadata.beyond("icc", "exif", "xmp")
    icc = metadata.icc_for(3)
    if icc:
        yield Chunk(b"ICCP", icc)
    elif metadata.icc:
        lost.append("the ICC profile")
    if metadata.exif:
        yield Chunk(b"EXIF", metadata.exif)
    if metadata.xmp:
        yield Chunk(b"XMP ", metadata.xmp)
