"""Pixels lost, replaced or written over: what is left says all, if the loss knows how to listen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pydenoise.data.noise._model import Array, ShareRange, unit

FAINTEST = np.float32(2**-10)
"""The least that a pixel which is left can show: a quarter of a level of 8 bits."""


@dataclass(frozen=True)
class Bernoulli(ShareRange):
    """Pixels set to zero in all channels, each on its own with probability p.

    Parameters
    ----------
    low, high : float
        p, 0 <= low <= high <= 0.99.

    Notes
    -----
    Zero says that a pixel is lost: the loss looks past it, see `pydenoise.nn.MaskedMSELoss`. So
    the pixels that are left are kept `FAINTEST` away from zero.
    """

    kind = "bernoulli"
    loss = "masked"

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        picture = unit(clean)
        noisy = np.where(np.abs(picture) < FAINTEST, FAINTEST, picture)
        noisy[_chosen(clean, self.low, rng)] = 0
        return noisy


@dataclass(frozen=True)
class Impulse(ShareRange):
    """Pixels replaced by random colours of [0, 1], each on its own with probability p.

    Parameters
    ----------
    low, high : float
        p, 0 <= low <= high <= 0.99.

    Notes
    -----
    The mean of all draws is the picture drawn towards gray, but no value is as common as the clean
    one, which is what an L0 loss looks for.
    """

    kind = "impulse"
    loss = "l0"

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        chosen = _chosen(clean, self.low, rng)
        noisy = np.array(unit(clean))
        noisy[chosen] = rng.random((int(chosen.sum()), *clean.shape[2:]), dtype=np.float32)
        return noisy


@dataclass(frozen=True)
class Text(ShareRange):
    """Random words in random colours and sizes, written over the picture here and there.

    Parameters
    ----------
    low, high : float
        Share of the pixels that is written over, 0 <= low <= high <= 0.5: an L1 loss finds the
        clean picture while it is the median.

    Notes
    -----
    Drawn by Pillow with the font that it brings along. Words are added until the share is
    reached, so it is passed by part of the last one.
    """

    kind = "text"
    loss = "l1"
    most = 0.5

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        noisy = np.array(unit(clean))
        height, width = clean.shape[:2]
        is_written = np.zeros((height, width), dtype=bool)
        while np.count_nonzero(is_written) < self.low * is_written.size:
            letters = rng.integers(ord("!"), ord("~") + 1, rng.integers(1, 11)).tolist()
            size = int(rng.integers(8, 33))
            corner = int(rng.integers(-2 * size, width)), int(rng.integers(-size, height))
            word = _word("".join(map(chr, letters)), size, corner, (width, height))
            noisy[word] = rng.random(clean.shape[2:], dtype=np.float32)
            is_written |= word
        return noisy


def _chosen(clean: Array, share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    chosen: npt.NDArray[np.bool_] = rng.random(clean.shape[:2], dtype=np.float32) < share
    return chosen


def _word(
    text: str, size: int, corner: tuple[int, int], picture_size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """The pixels of a picture (width, height) that a word covers, its corner at (left, top)."""
    from PIL import Image, ImageDraw

    picture = Image.new("1", picture_size)
    ImageDraw.Draw(picture).text(corner, text, 1, _font(size))
    return np.array(picture)


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
