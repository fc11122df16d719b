"""The range that the numbers of pictures fill, but for a few at its ends."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd
from typing import Any

import numpy as np
import numpy.typing as npt

_PERCENTILES = 0.1, 99.9


def levels(
    pictures: Iterable[npt.NDArray[Any]], most: int, at: tuple[float, float] = _PERCENTILES
) -> tuple[float, float] | None:
    """Two percentiles of all finite numbers together; None where there are none.

    Parameters
    ----------
    pictures : iterable of ndarray (..., W, C)
    most : int
        Pixels to look at; of more, an even sample that goes through all columns.
    at : (float, float)
        Which percentiles.
    """
    pictures = list(pictures)
    pixels = sum(picture[..., 0].size for picture in pictures)
    samples = []
    for picture in pictures:
        apart = max(1, -(-pixels // most))
        while gcd(apart, picture.shape[-2]) > 1:
            apart += 1
        sample = picture.reshape(-1, picture.shape[-1])[::apart].astype(np.float64)
        samples.append(sample[np.isfinite(sample)])
    every = np.concatenate(samples)
    if not every.size:
        return None
    low, high = np.percentile(every, at).tolist()
    return low, high
