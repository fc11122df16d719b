"""What a picture file holds, as one value: samples, how the file lays them out, what else it says.

The families of formats beside this file make it and write it; they raise `Unfit`, and the door to
them puts the file's name in front.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pydenoise.data.levels import levels

Samples = npt.NDArray[Any]

EXPANDED_BYTES = 2**27  # what any file may expand to
EXPANSION = 32  # what a larger file may expand to, in its own size

_LYING = 5, 6, 7, 8  # orientations by which rows and columns change places


class ImageError(ValueError):
    """A picture file that cannot be read or written; one line: the file, what came, the cure."""


class MetadataWarning(UserWarning):
    """What a picture file said beside its samples and the file written from it does not say."""


class Unfit(Exception):
    """Why a file is not read or written, in words that go behind its name."""


class Damaged(Exception):
    """Where a file breaks off or contradicts itself."""


@dataclass(frozen=True)
class Layout:
    """The order of a file's dimensions, a letter for each.

    Y and X are height and width. S, or a C behind them, are the samples of one pixel: gray or
    colours, and alpha. All other letters (T time, Z depth, C channels, Q unknown) count pages,
    which are pictures of their own.
    """

    axes: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise Unfit(
                f"axes {self.axes!r} name {len(self.axes)} dimensions, the file has shape "
                f"{self.shape}; give one letter for each"
            )
        if not (self.axes.isascii() and self.axes.isalpha() and self.axes.isupper()):
            raise Unfit(f"axes {self.axes!r}; expected capital letters, such as TYX")
        if len(set(self.axes)) != len(self.axes) or not {"Y", "X"} <= set(self.axes):
            raise Unfit(f"axes {self.axes!r}; expected Y and X among them, each letter once")

    @property
    def _samples_axis(self) -> int | None:
        if "S" in self.axes:
            return self.axes.index("S")
        behind = "C" in self.axes and self.axes.index("C") > max(map(self.axes.index, "YX"))
        return self.axes.index("C") if behind else None

    @property
    def page_axes(self) -> tuple[int, ...]:
        """The dimensions that count pages, in the file's order."""
        inner = {self.axes.index("Y"), self.axes.index("X"), self._samples_axis}
        return tuple(index for index in range(len(self.axes)) if index not in inner)

    @property
    def sides(self) -> tuple[int, int, int]:
        """How many pages, their height and width."""
        height, width = (self.shape[self.axes.index(axis)] for axis in "YX")
        return math.prod(self.shape[index] for index in self.page_axes), height, width

    def pages(self, array: Samples) -> Samples:
        """An array of the file's shape as (pages, height, width, channels), shared if possible."""
        channels = self._samples_axis
        order = [*self.page_axes, self.axes.index("Y"), self.axes.index("X")]
        if channels is not None:
            order.append(channels)
        return array.transpose(order).reshape(
            *self.sides, 1 if channels is None else self.shape[channels]
        )

    def array(self, samples: Samples) -> Samples:
        """The other way round: (pages, height, width, channels) in the file's shape."""
        channels = self._samples_axis
        order = [*self.page_axes, self.axes.index("Y"), self.axes.index("X")]
        if channels is not None:
            order.append(channels)
        unfolded = samples.reshape([self.shape[index] for index in order])
        return unfolded.transpose(np.argsort(order))


@dataclass(frozen=True)
class Metadata:
    """What formats have in common to say about a picture; the rest is named in `others`.

    `exif` is a TIFF stream without the prefix that JPEG puts before it; `dots_per_metre` is
    horizontal, vertical; `orientation` is EXIF's, 1 to 8, and part of `exif` too.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dots_per_metre: tuple[float, float] | None = None
    orientation: int = 1
    others: tuple[str, ...] = ()

    def beyond(self, *held: str) -> Iterator[str]:
        """What is there and is not among the fields that a format holds, by name."""
        for name, words in (
            ("icc", "the ICC profile"),
            ("exif", "EXIF" if self.orientation == 1 else "EXIF with its orientation"),
            ("xmp", "XMP"),
            ("dots_per_metre", "the resolution"),
        ):
            if getattr(self, name) is not None and name not in held:
                yield words
        yield from self.others

    def icc_for(self, colours: int) -> bytes | None:
        """The ICC profile if it is one of so many colours."""
        space = b"GRAY" if colours == 1 else b"RGB "
        return self.icc if self.icc is not None and self.icc[16:20] == space else None


class Head(NamedTuple):
    """What a picture file says of its samples before any is decoded: pages, the size of each when
    it is turned as its orientation says, channels without alpha, and the dtype."""

    pages: int
    height: int
    width: int
    colours: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, or a stack of them, as a file holds it.

    Attributes
    ----------
    samples : numpy.ndarray, (pages, height, width, channels)
        In the file's depth and in this machine's byte order; gray or colours first, then alpha.
    alpha : int, optional
        The channel that says how opaque a pixel is; always the last.
    layout : Layout
        How the file orders its dimensions; `array` has its shape.
    metadata : Metadata
        What the file says beside the samples and another format may be able to hold.
    format : str
        PNG, JPEG, TIFF, WEBP, BMP or NPY.
    form : object
        What only files of this format say; goes into the next file of the same format unchanged.
    changed : tuple of str
        What of the file's kind was given up in reading: its palette, its single bits.

    Notes
    -----
    Samples are as stored: not turned by the EXIF orientation, which survives as metadata.
    """

    samples: Samples
    alpha: int | None = None
    layout: Layout = field(default=None)  # type: ignore[assignment]  # set below
    metadata: Metadata = Metadata()
    format: str = ""
    form: Any = None
    changed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.samples.ndim != 4 or not self.samples.size:
            raise ValueError(
                f"Picture: samples have shape {self.samples.shape}; expected "
                "(pages, height, width, channels), none of them 0"
            )
        if self.layout is None:
            pages, height, width, channels = self.samples.shape
            axes, shape = ("YX", (height, width)) if pages == 1 else ("QYX", (pages, height, width))
            if channels > 1:
                axes, shape = axes + "S", (*shape, channels)
            object.__setattr__(self, "layout", Layout(axes, shape))

    @property
    def pages(self) -> int:
        return int(self.samples.shape[0])

    @property
    def colours(self) -> int:
        """Channels without alpha."""
        return int(self.samples.shape[3]) - (self.alpha is not None)

    @property
    def axes(self) -> str:
        return self.layout.axes

    @property
    def array(self) -> Samples:
        """The samples in the file's own shape, shared if possible."""
        return self.layout.array(self.samples)

    def check_numbers(self) -> None:
        """Refuse, with a TypeError, samples that nothing can be computed with: true and false."""
        if self.samples.dtype.kind not in "uif":
            raise TypeError(
                f"picture must be whole numbers or floating point, got {self.samples.dtype}: "
                "save it with 0 and 255"
            )

    def with_samples(self, samples: Samples) -> Picture:
        """The same file with other samples of the same shape and dtype."""
        if samples.shape != self.samples.shape or samples.dtype != self.samples.dtype:
            raise ValueError(
                f"with_samples: samples have shape {samples.shape} and dtype {samples.dtype}; "
                f"expected {self.samples.shape} and {self.samples.dtype}"
            )
        return replace(self, samples=samples)

    def shrunk(self, factor: int) -> Picture:
        """A smaller picture of the means of its cells of factor x factor pixels.

        Whole numbers are rounded; rows and columns that fill no cell are dropped. What files of
        its format alone say is dropped too, since it may tell of the size.

        Raises
        ------
        ValueError
            When no cell fits in.
        """
        pages, height, width, channels = self.samples.shape
        height, width = height // factor, width // factor
        if not height or not width:
            raise ValueError(
                f"shrunk: picture has {self.samples.shape[2]}x{self.samples.shape[1]} pixels; "
                f"expected {factor}x{factor} at least"
            )
        dtype = self.samples.dtype
        samples = np.empty((pages, height, width, channels), dtype)
        for page, target in zip(self.samples, samples, strict=True):
            cells = page[: height * factor, : width * factor]
            cells = cells.reshape(height, factor, width, factor, channels)
            mean = cells.mean(axis=(1, 3), dtype=np.float64)
            target[:] = mean if dtype.kind == "f" else np.rint(mean)
        sizes = {"Y": height, "X": width}
        shape = tuple(map(sizes.get, self.axes, self.layout.shape))
        dots = self.metadata.dots_per_metre
        metadata = replace(
            self.metadata,
            dots_per_metre=None if dots is None else (dots[0] / factor, dots[1] / factor),
        )
        layout = Layout(self.axes, shape)
        return Picture(samples, self.alpha, layout, metadata, changed=self.changed)

    @classmethod
    def of(cls, array: Samples, axes: str | None = None) -> Picture:
        """An array as a picture that no file has said anything about.

        Parameters
        ----------
        array : ndarray
            (H, W) or (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        axes : str, optional
            A letter for each dimension of an array of another shape, see `Layout`.

        Raises
        ------
        ValueError
            For another shape, or axes that do not suit it.
        """
        if axes is None and array.ndim not in (2, 3):
            raise ValueError(
                f"Picture.of: array has shape {array.shape}; expected (H, W) or (H, W, C), or axes "
                "that say what its dimensions are, such as 'TYX'"
            )
        try:
            layout = Layout(axes or "YXS"[: array.ndim], array.shape)
        except Unfit as error:
            raise ValueError(f"Picture.of: {error}") from error
        samples = layout.pages(array)
        if samples.shape[3] not in (1, 2, 3, 4):
            raise ValueError(
                f"Picture.of: array has shape {array.shape}, {samples.shape[3]} samples a pixel; "
                "expected C from 1 to 4"
            )
        return cls(samples, alpha_of(samples.shape[3]), layout)

    def _repr_png_(self) -> bytes:
        """The first page as a PNG of 8 bits, which is how Jupyter shows it: deeper numbers from
        their 0.1 to their 99.9 percentile."""
        from io import BytesIO

        from PIL import Image

        page = self.samples[0]
        if page.dtype != np.uint8:
            seen = page[..., : self.colours].astype(np.float64)
            low, high = levels([seen], seen.size) or (0.0, 1.0)
            unit = np.nan_to_num((seen - low) / (high - low if high > low else 1))
            page = np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
        file = BytesIO()
        Image.fromarray(page[..., 0] if page.shape[2] == 1 else page).save(file, "PNG")
        return file.getvalue()


def head_of(
    layout: tuple[int, int, int], colours: int, dtype: np.dtype[Any], orientation: int = 1
) -> Head:
    """The head of pages, height and width as stored, to be turned."""
    pages, height, width = layout
    sides = (width, height) if orientation in _LYING else (height, width)
    return Head(pages, *sides, colours, dtype.newbyteorder("="))


def alpha_of(channels: int) -> int | None:
    """The alpha channel where gray or colours have one more."""
    return channels - 1 if channels in (2, 4) else None


@dataclass(frozen=True)
class Limit:
    """How much a file may expand to, asked before anything is decoded.

    Without a limit of the caller's: what any file may, or a multiple of its own size.
    """

    max_pixels: int | None
    file_bytes: int

    def check(self, pages: int, height: int, width: int, bytes_per_pixel: int) -> None:
        allowed = self.max_pixels
        if allowed is None:
            expanded = max(EXPANDED_BYTES, EXPANSION * self.file_bytes)
            allowed = expanded // max(1, bytes_per_pixel)
        if pages * height * width > allowed:
            size = f"{width}x{height}" if pages == 1 else f"{pages} x {width}x{height}"
            raise Unfit(
                f"{size} pixels are more than the limit of {allowed}; "
                "crop it, or raise max_pixels if you trust the file"
            )


def one_page(
    array: Samples, format: str, metadata: Metadata, form: Any, changed: tuple[str, ...] = ()
) -> Picture:
    """A decoded (H, W) or (H, W, C) as the picture of a file."""
    return replace(Picture.of(array), metadata=metadata, format=format, form=form, changed=changed)


def upright(array: Samples, orientation: int) -> Samples:
    """An array (H, W, ...) turned as an EXIF orientation, 1 to 8, says; shared."""
    if orientation in _LYING:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array[::-1] if orientation in (3, 4, 7, 8) else array


def plain(picture: Picture) -> Samples:
    """The only page, (H, W) for gray, (H, W, C) else, contiguous, as encoders take it."""
    page = picture.samples[0]
    return np.ascontiguousarray(page[:, :, 0] if page.shape[2] == 1 else page)
