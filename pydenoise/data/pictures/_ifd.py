"""TIFF directories as lists of entries, read and packed again at another place, byte for byte.

EXIF is one too. Values are kept as raw bytes in the stream's byte order; entries that point to a
directory hold its entries. Picture data is none of this file's business.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

from pydenoise.data.pictures._picture import Damaged

ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
SHORT, LONG, RATIONAL, LONG8 = 3, 4, 5, 16
SUB_DIRECTORIES = {400, 34665, 34853, 40965}  # global parameters, EXIF, GPS, interoperability
METRES_PER_UNIT = {2: 0.0254, 3: 0.01}

Order: TypeAlias = Literal["<", ">"]

_BYTES_OF_TYPE = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
_DEEPEST = 4


class Entry(NamedTuple):
    """One tag: its type's number, how many values, and those; or the directory pointed to."""

    code: int
    type: int
    length: int
    value: bytes | tuple[Entry, ...]


class Stream(NamedTuple):
    """A file of directories: where to read, `<` or `>`, and whether it is a BigTIFF."""

    file: BinaryIO
    order: Order
    is_big: bool
    first: int

    @property
    def word(self) -> str:
        """The format of an offset."""
        return self.order + ("Q" if self.is_big else "I")


def stream_of(file: BinaryIO) -> Stream:
    """Read the head of a TIFF stream."""
    file.seek(0)
    head = file.read(16)
    orders: dict[bytes, Order] = {b"II": "<", b"MM": ">"}
    order = orders.get(head[:2])
    if order is None or len(head) < 8:
        raise Damaged("no TIFF stream")
    version = struct.unpack_from(order + "H", head, 2)[0]
    if version not in (42, 43):
        raise Damaged("no TIFF stream")
    is_big = version == 43
    if is_big and len(head) < 16:
        raise Damaged("the head is cut off")
    first = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)[0]
    return Stream(file, order, is_big, first)


def read_directory(stream: Stream, offset: int, depth: int = 0) -> tuple[list[Entry], int]:
    """The entries of the directory at an offset, and the offset of the next one or 0."""
    length = stream.file.seek(0, io.SEEK_END)
    entry_form = stream.order + ("HHQ8s" if stream.is_big else "HHI4s")
    size = struct.calcsize(entry_form)
    start, count = _start_and_count(stream, offset)
    if count * size > length:
        raise Damaged("a directory is longer than the file")
    table = _bytes_at(stream, start, count * size + struct.calcsize(stream.word))
    entries = []
    for index in range(count):
        code, kind, number, inline = struct.unpack_from(entry_form, table, index * size)
        needed = _BYTES_OF_TYPE.get(kind, 0) * number
        if needed > length:
            raise Damaged(f"tag {code} is longer than the file")
        value = inline[:needed]
        if needed > len(inline):
            value = _bytes_at(stream, struct.unpack(stream.word, inline)[0], needed)
        if code in SUB_DIRECTORIES and kind in (4, 13, 16, 18) and number == 1:
            place = integers(stream.order, Entry(code, kind, 1, value))[0]
            with suppress(Damaged):  # a pointer to nowhere leads nowhere in the next file too
                if depth < _DEEPEST:
                    below = tuple(read_directory(stream, place, depth + 1)[0])
                    entries.append(Entry(code, LONG, 1, below))
        elif needed:
            entries.append(Entry(code, kind, number, value))
    return entries, struct.unpack_from(stream.word, table, count * size)[0]


def refuse_circle(stream: Stream) -> None:
    """Refuse directories that follow each other in a circle, which one would read for ever.

    A chain that breaks off is none.
    """
    size = 20 if stream.is_big else 12
    seen: set[int] = set()
    offset = stream.first
    while offset not in seen:
        seen.add(offset)
        try:
            start, count = _start_and_count(stream, offset)
            place = _bytes_at(stream, start + count * size, struct.calcsize(stream.word))
        except Damaged:
            return
        offset = struct.unpack(stream.word, place)[0]
        if offset == 0:
            return
    raise Damaged("its pages follow each other in a circle")


def _start_and_count(stream: Stream, offset: int) -> tuple[int, int]:
    """Where the entries of a directory begin, and how many it says it has."""
    form = stream.order + ("Q" if stream.is_big else "H")
    size = struct.calcsize(form)
    return offset + size, struct.unpack(form, _bytes_at(stream, offset, size))[0]


def pack_directory(
    entries: Iterable[Entry], at: int, order: Order, is_big: bool, is_last: bool = True
) -> bytes:
    """A directory with all it holds, to stand at the even offset `at`.

    Unless it is the last, it points behind itself, where the next one is to stand.
    """
    entries = sorted(entries, key=lambda entry: entry.code)
    word, room = order + ("Q" if is_big else "I"), 8 if is_big else 4
    head = struct.pack(order + ("Q" if is_big else "H"), len(entries))
    behind = at + len(head) + len(entries) * (20 if is_big else 12) + room
    table, values = [head], b""
    for code, kind, count, value in entries:
        place = behind + len(values)
        if isinstance(value, tuple):
            values += pack_directory(value, place, order, is_big)
            pointer = struct.pack(order + "I", place)
        elif len(value) <= room:
            pointer = value
        else:
            values += value + b"\0" * (len(value) % 2)
            pointer = struct.pack(word, place)
        table.append(struct.pack(order + ("HHQ" if is_big else "HHI"), code, kind, count))
        table.append(pointer.ljust(room, b"\0"))
    following = 0 if is_last else behind + len(values)
    return b"".join(table) + struct.pack(word, following) + values


def pack_stream(entries: Iterable[Entry], order: Order) -> bytes:
    """Entries as a TIFF stream of their own, as EXIF is kept in other formats."""
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + pack_directory(entries, 8, order, is_big=False)


def read_stream(content: bytes) -> tuple[list[Entry], Order]:
    """The entries of such a stream's first directory, and its byte order."""
    stream = stream_of(io.BytesIO(content))
    return read_directory(stream, stream.first)[0], stream.order


def _bytes_at(stream: Stream, offset: int, size: int) -> bytes:
    try:
        stream.file.seek(offset)
    except (OSError, OverflowError):
        raise Damaged("it points far beyond its end") from None
    content = stream.file.read(size)
    if len(content) < size:
        raise Damaged("it breaks off")
    return content


def integers(order: Order, entry: Entry) -> tuple[int, ...]:
    """The numbers of an entry of whole numbers; of rationals two for each."""
    letter = {1: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q", 18: "Q"}.get(entry.type)
    if letter is None or isinstance(entry.value, tuple):
        return ()
    return struct.unpack(order + letter * entry.length, entry.value)


def first_number(entries: Iterable[Entry], order: Order, code: int) -> int | None:
    """The first number under a code, None if there is none."""
    for entry in entries:
        if entry.code == code:
            return next(iter(integers(order, entry)), None)
    return None


def orientation_of(exif: bytes | None) -> int:
    """The orientation that EXIF tells, 1 if none or if it cannot be read."""
    try:
        told = first_number(*read_stream(exif), ORIENTATION) if exif else None
    except (Damaged, struct.error):
        return 1
    return told if told is not None and 1 <= told <= 8 else 1


def resolution_of(entries: Iterable[Entry], order: Order) -> tuple[float, float] | None:
    """Dots per metre, horizontal and vertical, where the unit is one of length."""
    found = {entry.code: integers(order, entry) for entry in entries}
    metres = METRES_PER_UNIT.get((found.get(RESOLUTION_UNIT) or (2,))[0])
    pair = [found.get(code) or (0, 0) for code in (X_RESOLUTION, Y_RESOLUTION)]
    if metres is None or any(len(ratio) != 2 or 0 in ratio for ratio in pair):
        return None
    (x, x_below), (y, y_below) = pair
    return x / x_below / metres, y / y_below / metres


def resolution_entries(dots_per_metre: tuple[float, float], order: Order) -> list[Entry]:
    """The three entries that say so, in hundredths of a dot per metre."""
    unit = struct.pack(order + "H", 3)
    ratios = [struct.pack(order + "II", round(dots * 100), 10_000) for dots in dots_per_metre]
    return [
        Entry(X_RESOLUTION, RATIONAL, 1, ratios[0]),
        Entry(Y_RESOLUTION, RATIONAL, 1, ratios[1]),
        Entry(RESOLUTION_UNIT, SHORT, 1, unit),
    ]
