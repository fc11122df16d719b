"""PNG: samples through imagecodecs; every other chunk goes from file to file byte for byte."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

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

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHANNELS_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PALETTE = 3
_XMP_KEY = b"XML:com.adobe.xmp\0"
_PROFILE_BYTES = 2**24
# Chunks that a change of the picture makes wrong, and those that hold for one colour type alone.
_OF_THE_OLD_SAMPLES = {b"hIST", b"dSIG", b"acTL", b"fcTL", b"fdAT"}
_OF_A_COLOUR_TYPE = {b"PLTE", b"tRNS", b"bKGD", b"sBIT"}
_KNOWN_BEFORE_DATA = {
    *(b"PLTE", b"cHRM", b"cICP", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"bKGD", b"pHYs", b"sPLT"),
    *(b"mDCV", b"cLLI", b"mDCv", b"cLLi", b"oFFs", b"pCAL", b"sCAL", b"sTER", b"tIME", b"eXIf"),
}


class Chunk(NamedTuple):
    """A chunk without its length and check sum."""

    kind: bytes
    body: bytes


class Form(NamedTuple):
    """The chunks before the picture's data and those behind, and what data they belong to."""

    before: tuple[Chunk, ...]
    behind: tuple[Chunk, ...]
    dropped: tuple[str, ...]


def read(file: BinaryIO, limit: Limit) -> Picture:
    import imagecodecs

    content = file.read()
    chunks = list(_chunks(content))
    width, height, depth, colour_type, _, _, _ = struct.unpack(">IIBBBBB", chunks[0].body)
    channels = _CHANNELS_OF_COLOUR_TYPE.get(colour_type)
    if channels is None:
        raise Damaged(f"colour type {colour_type}")
    limit.check(1, height, width, channels * (2 if depth == 16 else 1))
    frames = [struct.unpack_from(">I", body)[0] for kind, body in chunks if kind == b"acTL"]
    if frames and frames[0] > 1:
        raise Unfit(f"holds {frames[0]} pictures; expected one: save them one by one")
    array = imagecodecs.png_decode(content)
    is_plain = (array.shape[2:] or (1,)) == (channels,) and colour_type != _PALETTE
    changed = ["its palette"] if colour_type == _PALETTE else []
    if depth < 8 and colour_type != _PALETTE:
        changed.append(f"{depth} bit{'s' if depth > 1 else ''} a sample")
    form = _form(chunks, keeps_colour_type=is_plain)
    return one_page(array, "PNG", _metadata(form), form, (*changed, *form.dropped))


def head(file: BinaryIO, limit: Limit) -> Head | None:
    """What the chunks beside the picture's data say, which is passed over."""
    width = height = depth = colour_type = 0
    exif, place = None, len(SIGNATURE)
    while True:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == b"IHDR":
            width, height, depth, colour_type = struct.unpack(">IIBB", file.read(10))
        elif kind == b"eXIf":
            exif = exif or file.read(length)
        elif kind == b"acTL":
            return None
        place += 12 + length
        if kind == b"IEND":
            break
    if place > os.fstat(file.fileno()).st_size:
        return None
    channels = _CHANNELS_OF_COLOUR_TYPE[colour_type]
    limit.check(1, height, width, channels * (2 if depth == 16 else 1))
    dtype = np.dtype(np.uint16 if depth == 16 else np.uint8)
    return head_of((1, height, width), 1 if channels < 3 else 3, dtype, orientation_of(exif))


def write(file: BinaryIO, picture: Picture) -> list[str]:
    import imagecodecs

    encoded = list(_chunks(bytes(imagecodecs.png_encode(plain(picture)))))
    if picture.format == "PNG":
        before, behind, _ = picture.form
        lost = []
    else:
        before, behind = tuple(_general(picture)), ()
        lost = list(picture.metadata.beyond("icc", "exif", "xmp", "dots_per_metre"))
        if picture.metadata.icc and not picture.metadata.icc_for(picture.colours):
            lost.append("the ICC profile")
    file.write(SIGNATURE)
    for chunk in (encoded[0], *before, *_data(encoded), *behind, Chunk(b"IEND", b"")):
        check = zlib.crc32(chunk.kind + chunk.body)
        file.write(struct.pack(">I4s", len(chunk.body), chunk.kind))
        file.write(chunk.body)
        file.write(struct.pack(">I", check))
    return lost


def _chunks(content: bytes) -> Iterator[Chunk]:
    """All chunks up to the end, each with the right check sum."""
    place, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if len(content) < place + 12:
            raise Damaged("it breaks off")
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise Damaged("it breaks off")
        body = content[place + 8 : end]
        if zlib.crc32(kind + body) != struct.unpack_from(">I", content, end)[0]:
            raise Damaged(f"the check sum of chunk {kind.decode('latin-1')!r} is wrong")
        if (place == len(SIGNATURE)) != (kind == b"IHDR"):
            raise Damaged("the head is missing or comes twice")
        yield Chunk(kind, body)
        place = end + 4


def _data(chunks: list[Chunk]) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.kind == b"IDAT"]


def _form(chunks: list[Chunk], keeps_colour_type: bool) -> Form:
    """Sort the chunks; drop what no longer fits, as the standard asks of what it does not name."""
    sides: tuple[list[Chunk], list[Chunk]] = ([], [])
    dropped = []
    is_behind = False
    for chunk in chunks[1:-1]:
        kind = chunk.kind
        if kind == b"IDAT":
            is_behind = True
        elif kind in _OF_A_COLOUR_TYPE and not keeps_colour_type:
            dropped += [kind.decode()] if kind in (b"bKGD", b"sBIT") else []
        elif kind in _OF_THE_OLD_SAMPLES or not (
            kind in _KNOWN_BEFORE_DATA or kind[3:].islower()  # "safe to copy"
        ):
            dropped += [kind.decode("latin-1")]
        else:
            sides[is_behind].append(chunk)
    return Form(tuple(sides[0]), tuple(sides[1]), tuple(dict.fromkeys(dropped)))


def _metadata(form: Form) -> Metadata:
    chunks = form.before + form.behind
    found = dict(reversed(chunks))
    exif, xmp, others = found.get(b"eXIf"), None, []
    for kind, body in chunks:
        if kind == b"iTXt" and body.startswith(_XMP_KEY + b"\0\0\0\0"):
            xmp = body.removeprefix(_XMP_KEY + b"\0\0\0\0")
        elif kind not in (b"iCCP", b"eXIf", b"pHYs", b"PLTE", b"tRNS"):
            others.append(kind.decode("latin-1"))
    return Metadata(
        _profile(found.get(b"iCCP")),
        exif,
        xmp,
        _dots(found.get(b"pHYs")),
        orientation_of(exif),
        tuple(dict.fromkeys(others)),
    )


def _profile(body: bytes | None) -> bytes | None:
    """The profile itself, if it is one and no bomb."""
    _, _, packed = (body or b"").partition(b"\0")
    expander = zlib.decompressobj()
    try:
        profile = expander.decompress(packed[1:], _PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if profile and expander.eof else None


def _dots(body: bytes | None) -> tuple[float, float] | None:
    if body is None or len(body) != 9 or body[8] != 1:
        return None
    x, y = struct.unpack_from(">II", body)
    return float(x), float(y)


def _general(picture: Picture) -> Iterator[Chunk]:
    """Chunks for what another format has said."""
    metadata = picture.metadata
    icc = metadata.icc_for(picture.colours)
    if icc:
        yield Chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if metadata.dots_per_metre:
        yield Chunk(b"pHYs", struct.pack(">IIB", *map(round, metadata.dots_per_metre), 1))
    if metadata.exif:
        yield Chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield Chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0" + metadata.xmp)
