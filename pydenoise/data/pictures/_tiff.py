"""TIFF: one picture or one stack, any depth; samples through tifffile and imagecodecs.

Everything a directory says that is not about how the samples are stored goes from file to file
byte for byte, page by page: tifffile writes the samples, the directories are then written again
behind them with the source's tags.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pydenoise.data.pictures._ifd import (
    Entry,
    Order,
    pack_directory,
    read_directory,
    refuse_circle,
    stream_of,
)
from pydenoise.data.pictures._jpeg import frame_size
from pydenoise.data.pictures._picture import (
    Damaged,
    Head,
    Layout,
    Limit,
    Picture,
    Samples,
    Unfit,
    head_of,
)
from pydenoise.data.pictures._tiff_tags import STRUCTURE, fresh_entries, metadata_of, without_maker

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}
_NONE, _JPEG, _DEFLATE = 1, 7, 8
# With LZW, PackBits, LZMA and Zstandard.
_LOSSLESS = {_NONE, 5, _DEFLATE, 32946, 32773, 34925, 34926, 50000}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_LARGEST_CLASSIC = 2**32 - 2**26
# Kinds of TIFF whose directories stand for one page each.
_PLAIN_KINDS = {"generic", "uniform", "shaped", "imagej", "ome", "mmstack", "scanimage", "sis"}
_DESCRIPTION = 270


class Form(NamedTuple):
    """How the samples are stored, and what each page's directory says besides."""

    order: Order
    is_big: bool
    photometric: int
    extra_samples: tuple[int, ...]
    is_planar: bool
    compression: int
    predictor: int
    tile: tuple[int, int] | None
    rows_per_strip: int | None
    directories: tuple[tuple[Entry, ...], ...]


def read(file: BinaryIO, limit: Limit, axes: str | None = None) -> Picture:
    import tifffile

    refuse_circle(stream_of(file))
    file.seek(0)
    with _complaints() as complaints, tifffile.TiffFile(file, _multifile=False) as tiff:
        series = _only_series(tiff)
        page = series.keyframe
        layout = _layout(series, axes)
        _refuse_colours(page)
        if series.dtype is None or np.dtype(series.dtype).kind not in "biuf":
            raise Unfit(f"holds {series.dtype or 'samples of several kinds'}; expected numbers")
        for offset, count in _check_size(series, layout, limit):
            if page.compression == _JPEG:
                _refuse_larger(file, offset, count, page.chunks)
        array = series.asarray()
        form, changed = _form(file, tiff, series)
        if complaints:
            raise Damaged("its tags do not hold together")
        array, layout, depth = _as_seen(array, layout, page)
    samples = layout.pages(array)
    channels = samples.shape[3]
    extra = channels - (1 if form.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) else 3)
    is_alpha = extra == 1 and (
        form.photometric == _RGB or form.extra_samples in ((_ASSOCIATED,), (_UNASSOCIATED,))
    )
    return Picture(
        np.ascontiguousarray(samples),
        channels - 1 if is_alpha else None,
        layout,
        metadata_of(form.directories[0], form.order),
        "TIFF",
        form,
        (*changed, *depth),
    )


def write(file: BinaryIO, picture: Picture) -> list[str]:
    import tifffile

    is_ours = picture.format == "TIFF"
    form, lost = (picture.form, []) if is_ours else _fresh_form(picture)
    inner = picture.samples.shape[1:]
    samples = picture.samples
    if form.photometric == _WHITE_IS_ZERO:
        samples = np.iinfo(samples.dtype).max - samples
    if form.is_planar:
        samples, inner = samples.transpose(0, 3, 1, 2), (inner[2], *inner[:2])
    elif inner[2] == 1:
        inner = inner[:2]
    page_axes = "".join(picture.axes[axis] for axis in picture.layout.page_axes)
    outer = tuple(picture.layout.shape[axis] for axis in picture.layout.page_axes)
    is_new_stack = not is_ours and bool(outer)
    is_big = form.is_big or samples.nbytes > _LARGEST_CLASSIC
    with tifffile.TiffWriter(file, bigtiff=is_big, byteorder=form.order, ome=False) as writer:
        writer.write(
            samples.reshape(*outer, *inner),
            photometric=form.photometric,
            planarconfig=(2 if form.is_planar else 1) if len(inner) > 2 else None,
            extrasamples=form.extra_samples or None,
            compression=form.compression,
            predictor=form.predictor,
            tile=form.tile,
            rowsperstrip=form.rows_per_strip,
            metadata={"axes": page_axes + "YXS"[: len(inner)]} if is_new_stack else None,
            software=False,
            truncate=is_ours and picture.pages > len(form.directories) == 1,
        )
    _carry(file, form.directories, keeps_description=is_new_stack)
    return lost


def head(file: BinaryIO, limit: Limit) -> Head | None:
    """Of files whose samples are the numbers seen: gray or RGB, whole bytes, nothing lost."""
    import tifffile

    stream = stream_of(file)
    refuse_circle(stream)
    file.seek(0)
    with _complaints() as complaints, tifffile.TiffFile(file, _multifile=False) as tiff:
        series = _only_series(tiff)
        page, layout = series.keyframe, _layout(series, None)
        _check_size(series, layout, limit)
        dtype, sides = np.dtype(series.dtype), layout.sides
        colours = math.prod(layout.shape) // math.prod(sides)
        is_plain = (page.photometric, colours) in ((_BLACK_IS_ZERO, 1), (_RGB, 3))
        is_whole = page.bitspersample == 8 * dtype.itemsize and page.compression in _LOSSLESS
        if complaints or not (is_plain and is_whole):
            return None
        entries = read_directory(stream, page.offset)[0]
    orientation = metadata_of(tuple(entries), stream.order).orientation
    return head_of(sides, colours, dtype, orientation)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile would say on stderr; a fault that it passes over is among it."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and record.thread == threading.get_ident():
                found.append(record.getMessage())

    handler = Handler()
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def _only_series(tiff: Any) -> Any:
    """The picture or stack, smaller versions of it aside."""
    series = [s for s in tiff.series if not s.keyframe.is_reduced] or list(tiff.series)
    if not series:
        raise Damaged("no picture in it")
    if len(series) > 1:
        raise Unfit(
            f"holds {len(series)} pictures of different sizes or kinds; expected one picture or "
            "one stack: save them one by one"
        )
    if any(page is None for page in series[0].pages):
        raise Unfit("is one of several files of a stack; save the stack in one file")
    return series[0]


def _layout(series: Any, axes: str | None) -> Layout:
    """The file's own dimensions; a caller's axes give the pages other names."""
    spare = iter("QRIPWVUKNO")
    own = ""
    for axis in series.axes:
        is_free = axis.isalpha() and axis.isupper() and axis not in own
        own += axis if is_free else next(s for s in spare if s not in series.axes + own)
    layout = Layout(own, tuple(series.shape))
    if axes is None:
        return layout
    named = Layout(axes, layout.shape)
    if named.page_axes != layout.page_axes or axes.index("Y") != own.index("Y"):
        raise Unfit(f"axes {axes!r} move its height, width or samples; they are {own!r}")
    return named


def _refuse_colours(page: Any) -> None:
    if page.bitspersample < 8 and page.samplesperpixel > 1:
        raise Unfit(f"holds colours of {page.bitspersample} bits; save it with 8 bits a channel")
    is_decoded = page.photometric != _YCBCR or page.compression == _JPEG
    if page.photometric not in _COLOURS or not is_decoded:
        name = getattr(page.photometric, "name", page.photometric)
        raise Unfit(f"colours are {name}; expected gray or RGB: convert the file first")
    if page.photometric in (_PALETTE, _WHITE_IS_ZERO) and page.samplesperpixel > 1:
        raise Unfit(f"holds {page.photometric.name} with alpha; save it as gray or RGB with alpha")
    if page.samplesperpixel < _COLOURS[page.photometric]:
        raise Damaged("fewer samples a pixel than colours")


def _refuse_larger(file: BinaryIO, offset: int, count: int, sides: tuple[int, ...]) -> None:
    """Refuse a strip or tile that a JPEG of more pixels lies in, before that is decoded."""
    file.seek(offset)
    size = frame_size(file.read(count))
    if size is not None and any(n > side + 15 for n, side in zip(size, sides, strict=False)):
        raise Damaged(f"a JPEG of {size[1]}x{size[0]} pixels lies in a piece of it")


def _check_size(series: Any, layout: Layout, limit: Limit) -> list[tuple[int, int]]:
    """Before a sample is decoded: not too large, and all there; returns where what is, in bytes."""
    pages, height, width = layout.sides
    total = math.prod(layout.shape)
    if total == 0:
        raise Damaged("it has no pixels")
    size = np.dtype(series.dtype).itemsize
    page = series.keyframe
    channels = total // (pages * height * width)
    shown = 3 * 2 if page.photometric == _PALETTE else channels * size
    limit.check(pages, height, width, shown)
    if page.is_tiled:
        limit.check(1, page.tilelength, page.tilewidth, channels * size)
    if series.dataoffset is not None:
        segments = [(series.dataoffset, total * size)]
    else:
        segments = [
            s for p in series.pages for s in zip(p.dataoffsets, p.databytecounts, strict=True)
        ]
    if any(offset + count > limit.file_bytes for offset, count in segments):
        raise Damaged("it breaks off")
    return segments


def _as_seen(array: Samples, layout: Layout, page: Any) -> tuple[Samples, Layout, tuple[str, ...]]:
    """Black at zero, no palette, no depth below 8 bits; and what was given up for it."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    bits = page.bitspersample
    if page.photometric == _PALETTE:
        colours = _colour_map(page.colormap)
        axes, shape = layout.axes, layout.shape
        return colours[array], Layout(axes + "S", (*shape, 3)), ("its palette",)
    if page.photometric == _WHITE_IS_ZERO:
        array = _largest(page) - array if array.dtype != bool else ~array
    if bits < 8:
        array = array.astype(np.uint8) * np.uint8(255 // (2**bits - 1))
    is_odd = bits != 8 * array.dtype.itemsize
    return array, layout, (f"{bits} bit{'s'[: bits > 1]} a sample",) if is_odd else ()


def _colour_map(table: Samples) -> Samples:
    """(levels, 3), 8 bits where the 16 of a TIFF say no more."""
    for unit in (257, 256):
        if not (table % unit).any():
            return (table // unit).astype(np.uint8).T
    return np.ascontiguousarray(table.T)


def _largest(page: Any) -> Any:
    """White of the samples as the file has them, in their own type; 0 for other than unsigned."""
    dtype = np.dtype(page.dtype)
    return dtype.type(2**page.bitspersample - 1 if dtype.kind == "u" else 0)


def _form(file: BinaryIO, tiff: Any, series: Any) -> tuple[Form, list[str]]:
    page, changed = series.keyframe, []
    stream = stream_of(file)
    offsets = [p.offset for p in series.pages]
    directories = [tuple(read_directory(stream, offset)[0]) for offset in offsets]
    carried = [tuple(e for e in entries if e.code not in STRUCTURE) for entries in directories]
    if series.kind not in _PLAIN_KINDS:
        carried = [without_maker(entries) for entries in carried]
        changed.append(f"what {series.kind.upper()} says of its own")
    if len(series.levels) > 1:
        changed.append("its smaller versions")
    compression, predictor = int(page.compression), int(page.predictor)
    if compression not in _LOSSLESS:
        changed.append(f"its {page.compression.name} compression")
        compression, predictor = _DEFLATE, 1
    photometric = int(page.photometric)
    if photometric in (_PALETTE, _YCBCR):
        photometric, predictor = _RGB, 1
    elif page.bitspersample < 8:
        compression, predictor = _DEFLATE, 1
    is_unsigned = np.dtype(page.dtype).kind in "bu"
    if photometric == _WHITE_IS_ZERO and not is_unsigned:
        raise Unfit("holds signed or floating point numbers with white at zero; save it otherwise")
    return Form(
        tiff.byteorder,
        stream.is_big,
        photometric,
        tuple(map(int, page.extrasamples)),
        int(page.planarconfig) == 2 and page.samplesperpixel > 1,
        compression,
        predictor,
        (page.tilelength, page.tilewidth) if page.is_tiled else None,
        None if page.is_tiled else page.rowsperstrip,
        tuple(carried),
    ), changed


def _fresh_form(picture: Picture) -> tuple[Form, list[str]]:
    """The form of a picture that comes from elsewhere: not compressed, so that all can read it.

    And what its source said that has no place in it.
    """
    is_rgb = picture.colours == 3
    extra = picture.samples.shape[3] - (3 if is_rgb else 1)
    order, entries, lost = fresh_entries(picture.metadata)
    return Form(
        order,
        False,
        _RGB if is_rgb else _BLACK_IS_ZERO,
        (0 if picture.alpha is None else _UNASSOCIATED,) * extra,
        False,
        _NONE,
        1,
        None,
        None,
        (entries,),
    ), lost


def _carry(
    file: BinaryIO, directories: tuple[tuple[Entry, ...], ...], keeps_description: bool
) -> None:
    """Write the directories again behind all else, with tags from the source's.

    Where the source has fewer, as files of one directory for a whole stack, the first page gets
    the description, and all get the rest.
    """
    stream = stream_of(file)
    pages, offset = [], stream.first
    while offset:
        entries, offset = read_directory(stream, offset)
        pages.append(entries)
    at = file.seek(0, os.SEEK_END)
    file.write(b"\0" * (at % 2))
    at += at % 2
    first = at
    for index, written in enumerate(pages):
        kept = [e for e in written if e.code in STRUCTURE]
        if keeps_description:
            kept += [e for e in written if e.code == _DESCRIPTION]
        taken = directories[index if len(directories) == len(pages) else 0]
        is_first = index == 0 or len(directories) == len(pages)
        kept += [e for e in taken if is_first or e.code != _DESCRIPTION]
        packed = pack_directory(
            kept, at, stream.order, stream.is_big, is_last=index + 1 == len(pages)
        )
        file.write(packed)
        at += len(packed)
    file.seek(8 if stream.is_big else 4)
    file.write(struct.pack(stream.word, first))
    file.seek(0, os.SEEK_END)
