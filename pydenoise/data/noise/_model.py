"""What all noise models have in common, and a level that is fixed or drawn from a range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
LossName: TypeAlias = Literal["mse", "l1", "l0", "masked"]


def unit(picture: Array) -> Array:
    """The picture on the scale 0..1: uint8 divided by 255, floating point as it is (float32)."""
    if picture.dtype == np.uint8:
        return picture.astype(np.float32) / np.float32(255)
    if picture.dtype in (np.float32, np.float64):
        return picture.astype(np.float32, copy=False)
    raise TypeError(f"noise: picture has dtype {picture.dtype}; expected uint8, float32 or float64")


class NoiseModel(ABC):
    """Noise that can be taken back out by looking at many draws: two of them are a training pair.

    Pictures are (H, W) or (H, W, C) arrays, uint8 or floating point on the scale 0..1; draws are
    float32 on that scale and are not clipped (clipping would shift the mean). `str(model)` is the
    text that `parse` reads.

    Attributes
    ----------
    loss : {"mse", "l1", "l0", "masked"}
        The loss whose minimum over many noisy targets is the clean picture: the clean picture is
        their mean, their median, their commonest value, or the mean of the pixels that are left.
    """

    loss: ClassVar[LossName] = "mse"

    def source_size(self, size: int) -> int:
        """Pixels on a side of the clean picture that a noisy picture of `size` pixels reads."""
        return size

    def expectation(self, clean: Array) -> Array:
        """What `loss` makes of infinitely many draws, float32 on the scale 0..1."""
        return unit(clean)

    def fixed(self, rng: np.random.Generator) -> NoiseModel:
        """The model at the strength of one sample, drawn from its range."""
        return self

    @abstractmethod
    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        """One noisy picture; the model is fixed."""

    def draw(self, clean: Array, rng: np.random.Generator) -> Array:
        """One noisy picture; the level is drawn first, then the noise."""
        return self.fixed(rng)._drawn(clean, rng)

    def pair(self, clean: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Two independent draws of one picture at one level."""
        fixed = self.fixed(rng)
        return fixed._drawn(clean, rng), fixed._drawn(clean, rng)


@dataclass(frozen=True)
class LevelRange(NoiseModel):
    """A level that is fixed (low == high) or drawn uniformly from [low, high] per sample."""

    low: float
    high: float

    kind: ClassVar[str]

    def fixed(self, rng: np.random.Generator) -> LevelRange:
        level = drawn_level(self.low, self.high, rng)
        return replace(self, low=level, high=level)

    def __str__(self) -> str:
        return f"{self.kind}:{range_text(self.low, self.high)}"


@dataclass(frozen=True)
class ShareRange(LevelRange):
    """A level that is the share of the pixels met, `most` at the most."""

    most: ClassVar[float] = 0.99

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= self.most:
            raise ValueError(
                f"{self.kind}: share of pixels {self.low:g}-{self.high:g}; "
                f"expected 0 <= low <= high <= {self.most:g}"
            )


def drawn_level(low: float, high: float, rng: np.random.Generator) -> float:
    """A level of the range; nothing is drawn where there is but one."""
    return low if low == high else float(rng.uniform(low, high))


def range_text(low: float, high: float) -> str:
    """`25` or `0-50`, in the shortest decimals that read back to the values."""
    ends = (low,) if low == high else (low, high)
    return "-".join(np.format_float_positional(end, trim="-") for end in ends)
