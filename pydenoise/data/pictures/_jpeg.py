"""JPEG: samples through Pillow, written with the source's quantisation tables and subsampling.

APP and comment segments go from file to file byte for byte.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from pydenoise.data.pictures._ifd import orientation_of
from pydenoise.data.pictures._picture import (
    Damaged,
    Head,
    Limit,
    Metadata,
    Picture,
    Unfit,
    head_of,
    one_page,
    plain,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.JpegImagePlugin import JpegImageFile

WITHOUT_SOURCE: dict[str, Any] = {"quality": 95, "subsampling": 0}

_END, _START_OF_SCAN, _COMMENT = 0xD9, 0xDA, 0xFE
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_ANY_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # tables and extensions
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_PROGRESSIVE = {0xC2, 0xCA}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_JFIF, _FURTHER_PICTURES, _ADOBE = b"JFIF\0", b"MPF\0", b"Adobe"
_MOST_IN_A_SEGMENT = 65533
_BEFORE_SCANS, _LAST = 2**16, 64  # bytes
_DOTS_PER_METRE = {1: 1 / 0.0254, 2: 100.0}


class Segment(NamedTuple):
    """A marker and what stands behind its length."""

    marker: int
    body: bytes


class Form(NamedTuple):
    """What is said beside the picture, and how the picture is coded, in Pillow's words."""

    segments: tuple[Segment, ...]
    coding: dict[str, Any]


def read(file: BinaryIO, limit: Limit) -> Picture:
    from PIL.JpegImagePlugin import JpegImageFile, get_sampling

    content = file.read()
    segments = list(_segments(content))
    frame, _, _, channels = _frame(segments, limit)
    image = JpegImageFile(io.BytesIO(content))
    coding: dict[str, Any] = {
        "qtables": _tables(image),
        "progressive": frame.marker in _PROGRESSIVE,
        "subsampling": max(0, get_sampling(image)),
        "keep_rgb": channels == 3 and _is_rgb(segments, frame),
    }
    kept, dropped = _kept(segments)
    end = content.find(b"\xff\xd9", len(content) - len(segments[-1].body))
    if len(content) - end > 64:
        dropped.append("data behind the picture")
    return one_page(
        np.array(image), "JPEG", _metadata(kept), Form(tuple(kept), coding), tuple(dropped)
    )


def head(file: BinaryIO, limit: Limit) -> Head:
    """What stands before the scans, of which the last bytes alone are read where that suffices."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(_BEFORE_SCANS)
    file.seek(max(len(start), size - _LAST))
    try:
        segments = list(_segments(start + file.read()))
    except Damaged:
        file.seek(0)
        segments = list(_segments(file.read()))
    _, height, width, channels = _frame(segments, limit)
    orientation = _metadata(segments).orientation
    return head_of((1, height, width), channels, np.dtype(np.uint8), orientation)


def write(file: BinaryIO, picture: Picture) -> list[str]:
    from PIL.Image import fromarray

    form: Form | None = picture.form if picture.format == "JPEG" else None
    image = fromarray(plain(picture))
    coded, lost = _coded(image, form.coding if form else WITHOUT_SOURCE)
    said = form.segments if form else tuple(_general(picture, lost))
    *segments, (_, scans) = _segments(coded)
    file.write(b"\xff\xd8")
    for marker, body in (*said, *(s for s in segments if s.marker != _APP0)):
        file.write(struct.pack(">BBH", 0xFF, marker, len(body) + 2))
        file.write(body)
    file.write(scans)
    return lost


def frame_size(content: bytes) -> tuple[int, int] | None:
    """Height and width that a JPEG stream says; None where it says none."""
    with suppress(Damaged, struct.error):
        for marker, body in _segments(content):
            if marker in _ANY_FRAME:
                _, height, width = struct.unpack_from(">BHH", body)
                return height, width
    return None


def _frame(segments: list[Segment], limit: Limit) -> tuple[Segment, int, int, int]:
    """The frame of a picture that we read, its height, width and channels."""
    frame = next((s for s in segments if s.marker in _ANY_FRAME), None)
    if frame is None:
        raise Damaged("no frame before the scans")
    depth, height, width, channels = struct.unpack_from(">BHHB", frame.body)
    if depth != 8 or frame.marker not in _FRAMES:
        raise Unfit(f"is a JPEG of a rare kind ({depth} bits a sample); save it as PNG or TIFF")
    if channels not in (1, 3):
        found = "CMYK" if channels == 4 else channels
        raise Unfit(f"colours are {found}; expected gray or RGB: convert the file first")
    limit.check(1, height, width, channels)
    return frame, height, width, channels


def _coded(image: Image, coding: dict[str, Any]) -> tuple[bytes, list[str]]:
    """The picture as a whole file, and what of the coding was given up."""
    coded = io.BytesIO()
    try:
        image.save(coded, format="JPEG", **coding)
    except OSError:  # Pillow has 2 bytes a pixel for progressive files, too few for fine noise
        if not coding.get("progressive"):
            raise
        plainer, lost = _coded(image, coding | {"progressive": False})
        return plainer, [*lost, "its progressive order"]
    return coded.getvalue(), []


def _segments(content: bytes) -> Iterator[Segment]:
    """All segments before the first scan; the scans themselves, marker and all, as the last."""
    place = 2
    while True:
        while content[place : place + 2] == b"\xff\xff":  # padding
            place += 1
        if len(content) < place + 4 or content[place] != 0xFF:
            raise Damaged("it breaks off")
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker in _ALONE:
            place += 2
            continue
        if marker == _START_OF_SCAN:
            if b"\xff\xd9" not in content[place:]:
                raise Damaged("it breaks off")
            yield Segment(marker, content[place:])
            return
        if marker == _END or length < 2 or place + 2 + length > len(content):
            raise Damaged("it breaks off")
        yield Segment(marker, content[place + 4 : place + 2 + length])
        place += 2 + length


def _is_rgb(segments: list[Segment], head: Segment) -> bool:
    """Whether the samples are red, green and blue, which is rare: the usual is YCbCr."""
    for marker, body in segments:
        if marker == _APP14 and body.startswith(_ADOBE) and len(body) >= 12:
            return body[11] == 0
    return head.body[6:15:3] == b"RGB"


def _tables(image: JpegImageFile) -> list[list[int]]:
    """A quantisation table for each component, as far as the last that differs."""
    numbers = [number for *_, number in image.layer]
    while len(numbers) > 1 and numbers[-1] == numbers[-2]:
        numbers.pop()
    return [image.quantization[number] for number in numbers]


def _kept(segments: list[Segment]) -> tuple[list[Segment], list[str]]:
    """What goes into the next file; the coder writes Adobe's segment itself where it needs one."""
    kept, dropped = [], []
    for segment in segments:
        if segment.marker == _APP2 and segment.body.startswith(_FURTHER_PICTURES):
            dropped.append("the further pictures")
        elif segment.marker == _COMMENT or (
            _APP0 <= segment.marker <= _APP15 and segment.marker != _APP14
        ):
            kept.append(segment)
    return kept, dropped


def _metadata(segments: list[Segment]) -> Metadata:
    exif = xmp = dots = None
    profile: list[tuple[int, bytes]] = []
    others = []
    for marker, body in segments:
        if marker == _APP1 and body.startswith(_EXIF):
            exif = exif or body.removeprefix(_EXIF)
        elif marker == _APP1 and body.startswith(_XMP):
            xmp = xmp or body.removeprefix(_XMP)
        elif marker == _APP2 and body.startswith(_ICC) and len(body) > 14:
            profile.append((body[12], body[14:]))
        elif marker == _APP0 and body.startswith(_JFIF) and len(body) >= 12:
            unit, x, y = struct.unpack_from(">BHH", body, 7)
            factor = _DOTS_PER_METRE.get(unit)
            dots = (x * factor, y * factor) if factor else None
        else:
            others.append("a comment" if marker == _COMMENT else f"APP{marker - _APP0}")
    icc = b"".join(part for _, part in sorted(profile)) or None
    return Metadata(icc, exif, xmp, dots, orientation_of(exif), tuple(dict.fromkeys(others)))


def _general(picture: Picture, lost: list[str]) -> Iterator[Segment]:
    """Segments for what another format has said; what does not fit is named in `lost`."""
    metadata = picture.metadata
    lost += metadata.beyond("icc", "exif", "xmp", "dots_per_metre")
    density = (0, 1, 1)
    if metadata.dots_per_metre:
        x, y = (round(dots * 0.0254) for dots in metadata.dots_per_metre)
        if min(x, y) >= 1 and max(x, y) < 65536:
            density = (1, x, y)
        else:
            lost.append("the resolution")
    yield Segment(_APP0, _JFIF + struct.pack(">HBHHBB", 0x0101, *density, 0, 0))
    for name, head, body in (("EXIF", _EXIF, metadata.exif), ("XMP", _XMP, metadata.xmp)):
        if body and len(head + body) <= _MOST_IN_A_SEGMENT:
            yield Segment(_APP1, head + body)
        elif body:
            lost.append(name)
    icc = metadata.icc_for(picture.colours)
    step = _MOST_IN_A_SEGMENT - len(_ICC) - 2
    parts = [icc[start : start + step] for start in range(0, len(icc), step)] if icc else []
    if len(parts) < 256:
        for number, part in enumerate(parts, 1):
            yield Segment(_APP2, _ICC + bytes((number, len(parts))) + part)
    if metadata.icc and not 0 < len(parts) < 256:
        lost.append("the ICC profile")
