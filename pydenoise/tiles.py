"""Large pictures in tiles whose results are, bit for bit, those of the whole picture.

A tile takes as many of its neighbours' pixels along as its result depends on, and begins where the
network's strides do. Which tiles, is a matter of what they cost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import product
from math import lcm
from typing import NamedTuple

import torch
from torch import Tensor

from pydenoise import memory
from pydenoise.meter import Meter
from pydenoise.nn import Conv2d, ConvTranspose2d, Module, no_backward
from pydenoise.nn.containers import interior
from pydenoise.nn.window import FAR, Window

_MAX_BYTES = 2 << 30
_BYTES_IN_CACHE = 48 << 20
"""Of a tile's work that stays in the last cache of a usual machine."""
_WORK_OUTSIDE = 1.3
"""What a pixel costs beyond that, in pixels."""
_PIXELS_UNCOUNTED = 1 << 20
"""Of a picture so small that it goes through whole where nothing bounds its memory."""
_PIXELS_AT_ONCE = 1 << 18
"""Of several pictures that go through together, where memory is not counted."""
_PROBE = 32
"""Side of the picture by which memory is counted."""
_BAND_PIXELS = 1 << 23
"""Of a band of a page, read and written as floating point numbers."""


class TooFewBytes(ValueError):
    """The memory allowed does not hold a model's smallest tile; `least` bytes do."""

    def __init__(self, message: str, least: int = 0) -> None:  # pickle sets `least` afterwards
        super().__init__(message)
        self.least = least


class Cut(NamedTuple):
    """Rows, or columns, of a picture that go through together, and those that come out right."""

    start: int
    stop: int
    first: int
    end: int

    @classmethod
    def whole(cls, size: int) -> Cut:
        """All of them."""
        return cls(0, size, 0, size)

    @property
    def read(self) -> slice:
        """What goes in, of the picture."""
        return slice(self.start, self.stop)

    @property
    def kept(self) -> slice:
        """What comes out, of the picture."""
        return slice(self.first, self.end)

    @property
    def inside(self) -> slice:
        """The same, of what went in."""
        return slice(self.first - self.start, self.end - self.start)


class Side(NamedTuple):
    """Height or width of a picture, and what a model says about cutting it.

    Attributes
    ----------
    size, padded : int
        Before and after it is continued to a multiple of the model's `size_multiple`.
    multiple : int
        Of the rows at which a tile may begin.
    before, behind : int
        Rows beyond those that come out right that a tile takes along, multiples of `multiple`.
    """

    size: int
    padded: int
    multiple: int
    before: int
    behind: int

    @classmethod
    def of(cls, model: Module, size: int, axis: int) -> Side:
        """What a model of the package says; about a user's own nothing is known."""
        padded = _up(size, model.size_multiple)
        if not model.stays_inside():
            return cls(size, padded, 1, FAR, FAR)
        multiple = lcm(model.reads(Window(0, 0), axis).multiple, model.size_multiple)
        window = model.reads(Window(0, multiple - 1), axis)
        before = _up(max(0, -window.first), multiple)
        behind = _up(max(0, window.last + 1 - multiple), multiple)
        return cls(size, padded, multiple, before, behind)

    @classmethod
    def turned(cls, model: Module, size: int) -> Side:
        """A height that serves the turned and mirrored versions of a picture, too: along either
        axis, from either end."""
        both = cls.of(model, size, 0), cls.of(model, size, 1)
        multiple = lcm(*(side.multiple for side in both))
        padded = both[0].padded
        margin = _up(max(max(side.before, side.behind) for side in both), multiple)
        margin += multiple if padded % multiple else 0  # from the far end strides begin elsewhere
        return cls(size, padded, multiple, margin, margin)

    @property
    def lost(self) -> int:
        """What each further tile goes through in addition to the picture's own rows."""
        return self.before + self.behind + self.padded % self.multiple

    @property
    def can_be_cut(self) -> bool:
        """Whether there are tiles shorter than the picture."""
        return self.length(FAR) < self.padded

    def length(self, tiles: int) -> int:
        """The shortest length with which so many tiles cover the picture; at most the picture's.

        All tiles of a picture are of one length, so that they share their memory.
        """
        least = max(-(-(self.padded + (tiles - 1) * self.lost) // tiles), self.lost + self.multiple)
        return min(self.padded, least + (self.padded - least) % self.multiple)

    def lengths(self) -> Iterator[int]:
        """All lengths that some number of tiles takes, the longest first."""
        shortest, length, tiles = self.length(FAR), self.padded, 1
        yield length
        while length > shortest:
            tiles += 1
            before, length = length, self.length(tiles)
            if length < before:
                yield length

    def work(self, length: int) -> int:
        """Rows that go through in tiles of a length."""
        if length == self.padded:
            return length
        return length * -(-(self.padded - self.lost) // (length - self.lost))

    def cuts(self, length: int) -> Iterator[Cut]:
        """The tiles of a length, side by side."""
        start = end = 0
        while True:
            first, stop = end, start + length
            right = (stop - self.behind) // self.multiple * self.multiple
            end = self.size if stop == self.padded else right
            yield Cut(start, min(stop, self.size), first, end)
            if end == self.size:
                return
            start = min(end - self.before, self.padded - length)


class Tiling(NamedTuple):
    """How pictures of one size go through: rows times columns, and pictures at a time."""

    rows: list[Cut]
    columns: list[Cut]
    pixels: int  # of a tile
    pictures: int = 1

    @property
    def work(self) -> int:
        """Pixels of a picture that go through, those that tiles share counted in each."""
        return len(self.rows) * len(self.columns) * self.pixels


def tiling(rows: Side, columns: Side, pixels: int) -> Tiling:
    """Of the tilings into tiles of so many pixels at most, the one with the least work.

    Where all tiles are larger, the smallest tiles.
    """
    heights, widths = sorted(rows.lengths()), sorted(columns.lengths())
    sizes = [
        (heights[fitting - 1], width)
        for width in reversed(widths)
        if (fitting := bisect_right(heights, pixels // width))
    ]
    height, width = min(
        sizes or [(heights[0], widths[0])],
        key=lambda size: rows.work(size[0]) * columns.work(size[1]),
    )
    return Tiling([*rows.cuts(height)], [*columns.cuts(width)], height * width)


def bands(model: Module, size: tuple[int, int], turns: int = 1) -> Iterator[Cut]:
    """The rows in which a page of (height, width) goes through a model, few enough to be floats,
    where each is turned as often as `pydenoise.inference.denoise` says."""
    side = Side.of(model, size[0], 0) if turns == 1 else Side.turned(model, size[0])
    lengths = list(side.lengths())
    most = _BAND_PIXELS // max(1, size[1])
    return side.cuts(next((length for length in lengths if length <= most), lengths[-1]))


def plan(model: Module, size: Sequence[int], like: Tensor, max_bytes: int | None) -> Tiling:
    """How pictures of a size (N, C, H, W), of the kind and place of a tensor, go through."""
    taken = check_size(model, size)
    pixels = _up(size[2], model.size_multiple) * _up(size[3], model.size_multiple)
    at_once = max(1, _PIXELS_AT_ONCE // pixels)
    whole = Tiling([Cut.whole(size[2])], [Cut.whole(size[3])], pixels, at_once)
    if max_bytes is None and pixels <= _PIXELS_UNCOUNTED:
        return whole
    rows, columns = Side.of(model, size[2], 0), Side.of(model, size[3], 1)
    if max_bytes is None and not (rows.can_be_cut or columns.can_be_cut):
        return whole
    if not model.stays_inside():
        raise ValueError(
            f"denoise: max_bytes={max_bytes} cannot be kept, for the model holds a module that is "
            "not pydenoise's own and takes pictures whole; leave max_bytes out"
        )
    each = _bytes_per_pixel(model, min(size[1], taken), max(rows.multiple, columns.multiple), like)
    most = (_MAX_BYTES if max_bytes is None else max_bytes) // each
    in_cache = min(most, _BYTES_IN_CACHE // each)
    small, large = tiling(rows, columns, in_cache), tiling(rows, columns, most)
    chosen = small if small.work <= _WORK_OUTSIDE * large.work else large
    if max_bytes is not None and chosen.pixels > most:
        least = chosen.pixels * each
        raise TooFewBytes(
            f"denoise: max_bytes={max_bytes} does not hold the model's smallest tile, "
            f"{chosen.pixels} pixels; allow at least {least}",
            least,
        )
    return chosen._replace(pictures=max(1, in_cache // chosen.pixels))


def run(
    model: Module, input: Tensor, max_bytes: int | None = None, meter: Meter | None = None
) -> Tensor:
    """What a model makes of pictures (N, C, H, W), in tiles if they are large; new."""
    tiled = plan(model, input.shape, input[:0], max_bytes)
    output = torch.empty_like(input)
    if input.shape[1] == 3 and channels(model) == 1:
        for to, channel in zip(output.split(1, 1), input.split(1, 1), strict=True):
            _run(model, tiled, to, channel, meter)
    else:
        _run(model, tiled, output, input, meter)
    return output


def _run(model: Module, tiled: Tiling, output: Tensor, input: Tensor, meter: Meter | None) -> None:
    pictures = range(0, len(input), tiled.pictures)
    with no_backward(), interior(model):
        for rows, columns, start in product(tiled.rows, tiled.columns, pictures):
            batch = slice(start, start + tiled.pictures)
            part = through(model, input[batch, :, rows.read, columns.read])
            part = part[:, :, rows.inside, columns.inside]
            to = output[batch, :, rows.kept, columns.kept]
            if part.shape == to.shape:
                to.copy_(part)
            else:
                torch.mean(part, 1, keepdim=True, out=to)
            if meter is not None:
                meter.add(to.numel())


def check(
    model: Module, size: Sequence[int], like: Tensor, max_bytes: int | None, turns: int
) -> None:
    """Refuse, as `plan`, a size (N, C, H, W) of pictures that go through in so many turns."""
    check_size(model, size)
    *batch, height, width = size
    ways = [(height, width), (width, height)][: 2 if turns > 2 else 1]
    refused = []
    for way in ways:
        try:
            plan(model, (*batch, *way), like, max_bytes)
        except TooFewBytes as error:
            refused.append(error)
    if refused:
        raise max(refused, key=lambda error: error.least)


def check_size(model: Module, size: Sequence[int]) -> int:
    """Refuse sizes of pictures that do not suit a model; returns the channels that it takes."""
    size = tuple(size)
    if len(size) != 4 or 0 in size[1:]:
        raise ValueError(f"denoise: input must be (N, C, H, W) and hold pixels, got {size}")
    taken = channels(model) or size[1]
    if taken != size[1] and {taken, size[1]} != {1, 3}:
        raise ValueError(f"denoise: the model takes pictures of {taken} channels, got {size}")
    return taken


def _bytes_per_pixel(model: Module, channels: int, multiple: int, like: Tensor) -> int:
    """What the layers of a model of the package hold at a time, for each pixel of a picture."""
    side = -(-_PROBE // multiple) * multiple
    probe = like.new_zeros(1, channels, side, side)
    with memory.private(), memory.recycling(), no_backward():
        through(model, probe)
        return -(-memory.pooled_bytes() // side**2)


def through(model: Module, part: Tensor) -> Tensor:
    """Pictures, continued to the model's multiple and gray for each of its channels, through it."""
    batch, given, height, width = part.shape
    rows = reflected(height, model.size_multiple, part.device)
    columns = reflected(width, model.size_multiple, part.device)
    taken = 3 if given == 1 and channels(model) == 3 else given
    size = (batch, taken, len(rows), len(columns))
    tile = memory.empty(
        size, dtype=part.dtype, device=part.device, memory_format=memory.format_of(part)
    )
    tile[:, :, :height, :width] = part
    if len(rows) > height:
        tile[:, :, height:, :width] = tile[:, :, rows[height:], :width]
    if len(columns) > width:
        tile[:, :, :, width:] = tile[:, :, :, columns[width:]]
    output: Tensor = model(tile)
    return output


def channels(model: Module) -> int | None:
    """Channels of the pictures that the model takes: those that it says, or of its first
    convolution if all of its modules are the package's; None where it cannot be said."""
    said: int | None = (model.architecture or {}).get("in_channels")
    if said is not None or not model.stays_inside():
        return said
    layers = (m for m in model.modules() if isinstance(m, (Conv2d, ConvTranspose2d)))
    return next((layer.in_channels for layer in layers), None)


def device(model: Module) -> torch.device:
    """Where the model's weights lie, and the pictures have to; the CPU for one without weights."""
    return next((each.data.device for each in model.parameters()), torch.device("cpu"))


def reflected(size: int, multiple: int, device: torch.device) -> Tensor:
    """Indices that continue 0..size-1 by reflection, without repeating the edge, to a multiple."""
    index = torch.arange(-(-size // multiple) * multiple, device=device)
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.minimum(index, period - index)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
