"""Noise models, and the one place where random streams are made.

Nothing here keeps state: every draw takes a generator, and `generator` makes it from the seed,
the epoch, the sample and the purpose alone. Numpy only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Purpose: TypeAlias = Literal[
    "order", "crop", "noise", "augment", "init", "validation", "picture", "neighbors"
]

PURPOSES: tuple[str, ...] = get_args(Purpose)
_WORD = 2**64


def generator(seed: int, epoch: int, index: int, purpose: Purpose) -> np.random.Generator:
    """A random stream that depends on these four values and on nothing else.

    Parameters
    ----------
    seed, epoch, index : int
        Each in 0 .. 2**64 - 1. `index` is the sample; 0 for what is drawn once per epoch.
    purpose : {"order", "crop", "noise", "augment", "init", "validation", "picture", "neighbors"}
        Streams of different purposes never meet.

    Returns
    -------
    numpy.random.Generator
        New; over Philox with key (seed, epoch) and counter (0, 0, index, purpose). The two low
        words count 2**128 blocks before one sample's stream reaches the next one's.

    Raises
    ------
    ValueError
        For a value outside its range or an unknown purpose.

    Examples
    --------
    >>> a = generator(seed=1, epoch=0, index=7, purpose="noise")
    >>> b = generator(seed=1, epoch=0, index=7, purpose="noise")
    >>> bool(a.random() == b.random())
    True
    """
    if purpose not in PURPOSES:
        raise ValueError(
            f"generator: unknown purpose {purpose!r}; expected one of {', '.join(PURPOSES)}"
        )
    for name, value in (("seed", seed), ("epoch", epoch), ("index", index)):
        if not 0 <= value < _WORD:
            raise ValueError(f"generator: {name} is {value}; expected 0 .. 2**64 - 1")
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, index, PURPOSES.index(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def unit(picture: Array) -> Array:
    """The picture on the scale 0..1: uint8 divided by 255, floating point as it is (float32)."""
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    if picture.dtype in (np.float32, np.float64):
        return picture.astype(np.float32, copy=False)
    raise TypeError(f"noise: picture has dtype {picture.dtype}; expected uint8, float32 or float64")


class NoiseModel(ABC):
    """Noise that averages to the clean picture: two draws of it are a training pair.

    Pictures are (H, W) or (H, W, C) arrays, uint8 or floating point on the scale 0..1; draws are
    float32 on that scale and are not clipped (clipping would shift the mean). `str(model)` is the
    text that `parse` reads.
    """

    def source_size(self, size: int) -> int:
        """Pixels on a side of the clean picture that a noisy picture of `size` pixels reads."""
        return size

    def expectation(self, clean: Array) -> Array:
        """The mean of infinitely many draws, float32 on the scale 0..1."""
        return unit(clean)

    @abstractmethod
    def level(self, rng: np.random.Generator) -> float:
        """The strength of one sample's noise, drawn from the model's range."""

    @abstractmethod
    def draw_at(self, clean: Array, level: float, rng: np.random.Generator) -> Array:
        """One noisy picture of the given strength."""

    def draw(self, clean: Array, rng: np.random.Generator) -> Array:
        """One noisy picture; the level is drawn first, then the noise."""
        return self.draw_at(clean, self.level(rng), rng)

    def pair(self, clean: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Two independent draws of one picture at one level."""
        level = self.level(rng)
        return self.draw_at(clean, level, rng), self.draw_at(clean, level, rng)


@dataclass(frozen=True)
class _Range(NoiseModel):
    """A level that is fixed (low == high) or drawn uniformly from [low, high] per sample."""

    low: float
    high: float

    def level(self, rng: np.random.Generator) -> float:
        return self.low if self.low == self.high else float(rng.uniform(self.low, self.high))

    def _text(self, kind: str) -> str:
        upper = "" if self.low == self.high else f"-{_number(self.high)}"
        return f"{kind}:{_number(self.low)}{upper}"


@dataclass(frozen=True)
class Gaussian(_Range):
    """Additive white noise: `x + N(0, (sigma/255)^2)`, unclipped.

    Parameters
    ----------
    low, high : float
        Sigma in units of 0..255, 0 <= low <= high <= 1e4.
    """

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1e4:
            raise ValueError(
                f"gauss: sigma {self.low:g}-{self.high:g}; expected 0 <= low <= high <= 1e4"
            )

    def draw_at(self, clean: Array, level: float, rng: np.random.Generator) -> Array:
        noisy = rng.standard_normal(clean.shape, dtype=np.float32)
        noisy *= np.float32(level / 255)
        noisy += unit(clean)
        return noisy

    def __str__(self) -> str:
        return self._text("gauss")


@dataclass(frozen=True)
class Poisson(_Range):
    """Photon counting: `Poisson(lam x) / lam` with x in [0, 1]; variance `x / lam`.

    Parameters
    ----------
    low, high : float
        lam, the mean count at x = 1; 0 < low <= high <= 1e9. Small is noisy.

    Notes
    -----
    Values of a floating point picture outside [0, 1] are clipped before counting: there is no
    negative number of photons.
    """

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1e9:
            raise ValueError(
                f"poisson: lam {self.low:g}-{self.high:g}; expected 0 < low <= high <= 1e9"
            )

    def expectation(self, clean: Array) -> Array:
        return np.clip(unit(clean), 0, 1)

    def draw_at(self, clean: Array, level: float, rng: np.random.Generator) -> Array:
        counts = rng.poisson(self.expectation(clean) * np.float64(level))
        return (counts / level).astype(np.float32)

    def __str__(self) -> str:
        return self._text("poisson")


@dataclass(frozen=True)
class PointSample(NoiseModel):
    """One random pixel of each block for the block's mean: noise of a render with few samples.

    The clean picture is cut into blocks of `block` x `block` pixels. The clean value of a block is
    its mean, the noisy one a uniformly drawn pixel of it, the same position in all channels. So
    the noise is zero in flat areas, strongest at texture, uncorrelated in space and strongly
    correlated between channels. A draw is `block` times smaller than the picture it reads.

    Parameters
    ----------
    block : int
        Pixels on a side of a block, 2 .. 64.
    """

    block: int

    def __post_init__(self) -> None:
        if not 2 <= self.block <= 64:
            raise ValueError(f"point: block {self.block}; expected 2 .. 64")

    def source_size(self, size: int) -> int:
        return self.block * size

    def level(self, rng: np.random.Generator) -> float:
        return float(self.block)

    def expectation(self, clean: Array) -> Array:
        height, width = self._blocks(clean)
        shape = (height, self.block, width, self.block, *clean.shape[2:])
        return unit(clean).reshape(shape).mean(axis=(1, 3), dtype=np.float32)

    def draw_at(self, clean: Array, level: float, rng: np.random.Generator) -> Array:
        return unit(self.pick(clean, rng))

    def pick(self, clean: Array, rng: np.random.Generator) -> Array:
        """One random pixel of each block, in the picture's own dtype."""
        height, width = self._blocks(clean)
        row, column = np.divmod(rng.integers(0, self.block**2, (height, width)), self.block)
        row += np.arange(0, clean.shape[0], self.block)[:, None]
        column += np.arange(0, clean.shape[1], self.block)
        picked: Array = clean[row, column]
        return picked

    def _blocks(self, clean: Array) -> tuple[int, int]:
        height, width = clean.shape[:2]
        if height % self.block or width % self.block or not clean.size:
            raise ValueError(
                f"point: picture is {height}x{width}; expected multiples of the block {self.block}"
            )
        return height // self.block, width // self.block

    def __str__(self) -> str:
        return f"point:{self.block}"


_FORMS = "gauss:SIGMA, gauss:LOW-HIGH, poisson:LAM, poisson:LOW-HIGH or point:BLOCK"
_PATTERN = re.compile(r"(gauss|poisson|point):(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?", re.ASCII)


def parse(text: str) -> NoiseModel:
    """The noise model that a short text names.

    Parameters
    ----------
    text : str
        `gauss:25` (sigma in units of 0..255), `gauss:0-50` (one sigma per sample), `poisson:30`,
        `poisson:5-50` (lam), `point:8` (block).

    Returns
    -------
    NoiseModel
        `str()` of it parses back to an equal one.

    Raises
    ------
    ValueError
        When the text has none of these forms or a level is out of range.

    Examples
    --------
    >>> parse("gauss:0-50")
    Gaussian(low=0.0, high=50.0)
    >>> str(parse("point:8"))
    'point:8'
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"noise: cannot read {text!r}; expected {_FORMS}")
    kind, low, high = match.groups()
    if kind == "point":
        if high is not None or "." in low:
            raise ValueError(f"noise: {text!r} has no single whole block; expected point:BLOCK")
        return PointSample(int(low))
    model = Gaussian if kind == "gauss" else Poisson
    return model(float(low), float(low if high is None else high))


def _number(value: float) -> str:
    """The shortest decimal text that reads back to the value."""
    return np.format_float_positional(value, trim="-")
