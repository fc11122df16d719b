"""Noise models, and the one place where random streams are made.

Nothing here keeps state: every draw takes a generator, and `generator` makes it from the seed,
the epoch, the sample and the purpose alone. Numpy only, but for words, which Pillow draws.
"""

from __future__ import annotations

import re

from pydenoise.data.noise._model import Array, LossName, NoiseModel, unit
from pydenoise.data.noise._point import PointSample
from pydenoise.data.noise._replaced import Bernoulli, Impulse, Text
from pydenoise.data.noise._sensor import Gaussian, Poisson, PoissonGaussian, Speckle
from pydenoise.data.noise._streams import PURPOSES, Purpose, generator

__all__ = [
    "FORMS",
    "PURPOSES",
    "Array",
    "Bernoulli",
    "Gaussian",
    "Impulse",
    "LossName",
    "NoiseModel",
    "PointSample",
    "Poisson",
    "PoissonGaussian",
    "Purpose",
    "Speckle",
    "Text",
    "generator",
    "parse",
    "unit",
]

FORMS = (
    "gauss:SIGMA, poisson:LAM, poisson-gauss:LAM,SIGMA, speckle:SIGMA, bernoulli:P, impulse:P, "
    "text:P, with LOW-HIGH for any number, or point:BLOCK"
)
"""The texts that `parse` reads."""

_OF_ONE_RANGE = {
    model.kind: model for model in (Gaussian, Poisson, Speckle, Bernoulli, Impulse, Text)
}
_RANGE = r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?"
_PATTERN = re.compile(rf"([a-z-]+):{_RANGE}(?:,{_RANGE})?", re.ASCII)


def parse(text: str) -> NoiseModel:
    """The noise model that a short text names.

    Parameters
    ----------
    text : str
        `gauss:25` (sigma in units of 0..255), `gauss:0-50` (one sigma per sample), `poisson:30`,
        `poisson:5-50` (lam), `poisson-gauss:30,10` (lam, sigma), `speckle:40` (sigma at white),
        `bernoulli:0.5`, `impulse:0-0.9`, `text:0.25` (share of the pixels), `point:8` (block).

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
    >>> str(parse("poisson-gauss:5-50,10"))
    'poisson-gauss:5-50,10'
    """
    match = _PATTERN.fullmatch(text.strip())
    kind, *ends = match.groups() if match else ("",)
    if kind == "point" and ends[0].isdecimal() and not any(ends[1:]):
        return PointSample(int(ends[0]))
    if kind == "poisson-gauss" and ends[2]:
        return PoissonGaussian(*_range(*ends[:2]), *_range(*ends[2:]))
    if kind in _OF_ONE_RANGE and not ends[2]:
        return _OF_ONE_RANGE[kind](*_range(*ends[:2]))
    raise ValueError(f"noise: cannot read {text!r}; expected {FORMS}")


def _range(low: str, high: str | None) -> tuple[float, float]:
    return float(low), float(low if high is None else high)
