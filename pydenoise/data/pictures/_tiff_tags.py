"""Which tags of a TIFF say how samples are stored, and what the others mean to other formats."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pydenoise.data.pictures._ifd import (
    ORIENTATION,
    RESOLUTION_UNIT,
    X_RESOLUTION,
    Y_RESOLUTION,
    Entry,
    Order,
    first_number,
    pack_stream,
    read_stream,
    resolution_entries,
    resolution_of,
)
from pydenoise.data.pictures._picture import Damaged, Metadata

_UNDEFINED, _BYTE = 7, 1
_XMP, _ICC = 700, 34675
_RESOLUTION = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
# ImageDescription, Make, Model, Orientation, Software, DateTime, Artist, Copyright, EXIF, GPS
_EXIF = {270, 271, 272, ORIENTATION, 305, 306, 315, 33432, 34665, 34853}
_OF_NO_MEANING_ALONE = {254, 255, 297}  # which version, which page
_OWNED_BY_NOBODY = _EXIF | {_XMP, _ICC}

STRUCTURE = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 288, 289, 292, 293, 317, 320),
    *(322, 323, 324, 325, 330, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521),
    *(529, 530, 531, 532, 32997, 32998),
}
"""Size, depth, colours, strips, tiles, compression: written anew for the samples as they are."""


def metadata_of(entries: tuple[Entry, ...], order: Order) -> Metadata:
    """What a directory says that other formats can hold."""
    from tifffile import TIFF

    found = {entry.code: entry.value for entry in entries if isinstance(entry.value, bytes)}
    exif = [entry for entry in entries if entry.code in _EXIF]
    known = _EXIF | _RESOLUTION | {_XMP, _ICC} | _OF_NO_MEANING_ALONE
    others = [TIFF.TAGS.get(e.code, f"tag {e.code}") for e in entries if e.code not in known]
    orientation = first_number(entries, order, ORIENTATION) or 1
    return Metadata(
        found.get(_ICC),
        pack_stream(exif, order) if exif else None,
        found.get(_XMP),
        resolution_of(entries, order),
        orientation if orientation in range(1, 9) else 1,
        tuple(dict.fromkeys(others)),
    )


def fresh_entries(metadata: Metadata) -> tuple[Order, tuple[Entry, ...], list[str]]:
    """Entries for what another format has said, their byte order, and what has no place there."""
    entries: list[Entry] = []
    order: Order = "<"
    lost = list(metadata.others)
    try:
        if metadata.exif:
            entries, order = read_stream(metadata.exif)
    except (Damaged, struct.error):
        lost.append("EXIF, which is damaged")
    special = STRUCTURE | {_XMP, _ICC} | (_RESOLUTION if metadata.dots_per_metre else set())
    entries = [entry for entry in entries if entry.code not in special]
    if metadata.dots_per_metre:
        entries += resolution_entries(metadata.dots_per_metre, order)
    for code, kind, value in ((_ICC, _UNDEFINED, metadata.icc), (_XMP, _BYTE, metadata.xmp)):
        if value:
            entries.append(Entry(code, kind, len(value), value))
    return order, tuple(entries), lost


def without_maker(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries without those that a maker of instruments or software reserved for itself."""
    return tuple(e for e in entries if e.code < 32768 or e.code in _OWNED_BY_NOBODY)
