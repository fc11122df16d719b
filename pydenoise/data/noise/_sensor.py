"""Noise of sensors, of mean zero: the clean picture is the mean of all draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydenoise.data.noise._model import Array, LevelRange, drawn_level, range_text, unit


@dataclass(frozen=True)
class Gaussian(LevelRange):
    """Additive white noise: `x + N(0, (sigma/255)^2)`, unclipped.

    Parameters
    ----------
    low, high : float
        Sigma in units of 0..255, 0 <= low <= high <= 1e4.
    """

    kind = "gauss"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1e4:
            raise ValueError(
                f"gauss: sigma {self.low:g}-{self.high:g}; expected 0 <= low <= high <= 1e4"
            )

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        noisy = _normal(clean.shape, self.low, rng)
        noisy += unit(clean)
        return noisy


@dataclass(frozen=True)
class Poisson(LevelRange):
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

    kind = "poisson"

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1e9:
            raise ValueError(
                f"poisson: lam {self.low:g}-{self.high:g}; expected 0 < low <= high <= 1e9"
            )

    def expectation(self, clean: Array) -> Array:
        return np.clip(unit(clean), 0, 1)

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        counts = rng.poisson(self.expectation(clean) * np.float64(self.low))
        return (counts / self.low).astype(np.float32)


@dataclass(frozen=True)
class PoissonGaussian(Poisson):
    """Photon counting and then a reading error: `Poisson(lam x) / lam + N(0, (sigma/255)^2)`.

    Parameters
    ----------
    low, high : float
        lam, as in `Poisson`.
    read_low, read_high : float
        Sigma, as in `Gaussian`; drawn on its own.

    Notes
    -----
    A. Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image
    raw-data", IEEE Transactions on Image Processing 17, 2008.
    """

    read_low: float
    read_high: float

    kind = "poisson-gauss"

    def __post_init__(self) -> None:
        super().__post_init__()
        Gaussian(self.read_low, self.read_high)

    def fixed(self, rng: np.random.Generator) -> PoissonGaussian:
        lam = drawn_level(self.low, self.high, rng)
        sigma = drawn_level(self.read_low, self.read_high, rng)
        return PoissonGaussian(lam, lam, sigma, sigma)

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        counted = super()._drawn(clean, rng)
        counted += _normal(clean.shape, self.read_low, rng)
        return counted

    def __str__(self) -> str:
        return f"{super().__str__()},{range_text(self.read_low, self.read_high)}"


@dataclass(frozen=True)
class Speckle(LevelRange):
    """Noise in proportion to the light, as coherent light gives it: `x + x N(0, (sigma/255)^2)`.

    Parameters
    ----------
    low, high : float
        Sigma where the picture is white, in units of 0..255; 0 <= low <= high <= 1e4.
    """

    kind = "speckle"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1e4:
            raise ValueError(
                f"speckle: sigma {self.low:g}-{self.high:g}; expected 0 <= low <= high <= 1e4"
            )

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        picture = unit(clean)
        noisy = _normal(clean.shape, self.low, rng)
        noisy *= picture
        noisy += picture
        return noisy


def _normal(shape: tuple[int, ...], sigma_255: float, rng: np.random.Generator) -> Array:
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(sigma_255 / 255)
    return noise
