"""NumPy's .npy: any numbers, any order of dimensions; byte order and memory order are kept."""

from __future__ import annotations

import math
import os
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from pydenoise.data.pictures._picture import (
    Damaged,
    Head,
    Layout,
    Limit,
    Picture,
    Samples,
    Unfit,
    alpha_of,
    head_of,
)

_CHANNELS_UP_TO = 16
_PAGES = "QRI"  # letters for what nobody has named


class Form(NamedTuple):
    """The dtype with its byte order, and whether columns lie together."""

    dtype: np.dtype[Any]
    is_fortran: bool


class _Found(NamedTuple):
    """What the head of a file says: pages, height and width, samples of a pixel, and the form."""

    layout: Layout
    sides: tuple[int, int, int]
    channels: int
    form: Form


def read(file: BinaryIO, limit: Limit, axes: str | None = None) -> Picture:
    layout, sides, channels, form = _found(file, limit, axes)
    flat = np.fromfile(file, form.dtype, math.prod(sides) * channels)
    array = flat.reshape(layout.shape, order="F" if form.is_fortran else "C")
    samples = layout.pages(array.astype(form.dtype.newbyteorder("="), copy=False))
    return Picture(samples, alpha_of(channels), layout, format="NPY", form=form)


def head(file: BinaryIO, limit: Limit) -> Head:
    _, sides, channels, form = _found(file, limit, None)
    return head_of(sides, channels - (alpha_of(channels) is not None), form.dtype)


def _found(file: BinaryIO, limit: Limit, axes: str | None) -> _Found:
    version = np.lib.format.read_magic(file)
    read_head = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_head is None:
        raise Unfit(f"has version {version} of the format; expected (1, 0) or (2, 0)")
    shape, is_fortran, dtype = read_head(file)
    if dtype.kind not in "biuf":
        raise Unfit(f"holds {dtype}; expected whole numbers or floating point")
    layout = Layout(axes or _axes(shape), shape)
    if any(side < 0 for side in shape):
        raise Damaged(f"its shape is {shape}")
    if 0 in shape:
        raise Unfit(f"has shape {shape}; expected at least one pixel")
    count = int(np.prod(shape, dtype=object))
    if file.tell() + count * dtype.itemsize > os.fstat(file.fileno()).st_size:
        raise Damaged("it breaks off")
    pages, height, width = layout.sides
    channels = count // (pages * height * width)
    limit.check(pages, height, width, channels * dtype.itemsize)
    return _Found(layout, (pages, height, width), channels, Form(dtype, is_fortran))


def write(file: BinaryIO, picture: Picture) -> list[str]:
    array = picture.array
    if picture.format == "NPY":
        array = array.astype(picture.form.dtype, copy=False)
        if picture.form.is_fortran:
            array = np.asfortranarray(array)
    np.lib.format.write_array(file, _in_order(array), allow_pickle=False)
    return list(picture.metadata.beyond())


def _in_order(array: Samples) -> Samples:
    return array if array.flags.c_contiguous or array.flags.f_contiguous else array.copy("C")


def _axes(shape: tuple[int, ...]) -> str:
    """Pages before height and width; behind them up to four samples of one pixel."""
    if len(shape) == 3 and 4 < shape[-1] <= _CHANNELS_UP_TO < min(shape[:-1]):
        raise Unfit(
            f"has shape {shape}, pages of narrow pictures or a picture of many channels; name its "
            "dimensions: --axes TYX or YXS"
        )
    behind = "S" if len(shape) > 2 and shape[-1] <= 4 else ""
    pages = len(shape) - len(behind) - 2
    if not 0 <= pages <= len(_PAGES):
        raise Unfit(f"has shape {shape}; expected height and width, and pages before them")
    return _PAGES[:pages] + "YX" + behind
