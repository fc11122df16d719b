"""The scale of a picture whose numbers say nothing of their own: by its percentiles."""

from __future__ import annotations

import warnings

import numpy as np

from pydenoise.data import Picture
from pydenoise.data.gaps import warn_of_far_pixels, without_strays
from pydenoise.data.levels import levels
from pydenoise.inference import check_terms

_SAMPLED = 2**23


def scale(
    picture: Picture, value_range: tuple[float, float] | None, strength: float
) -> tuple[float, float] | None:
    """The numbers that are 0 and 1 to a network: those given, or the picture's `percentiles`.

    Returns
    -------
    (float, float) or None
        None where nothing is to be done: at strength 0, and for a picture of one value or none
        of which no range is given.

    Warns
    -----
    UserWarning
        When that is because of the picture; when some pixels will be left as they are, being far
        outside the range.

    Raises
    ------
    ValueError
        As `pydenoise.inference.map_pages`.
    """
    check_terms(picture, value_range, strength)
    if not strength:
        return None
    found = value_range or percentiles(picture)
    if found is None:
        warnings.warn(
            "holds no two different numbers, so that no noise can be found in it; its pixels are "
            "kept as they came",
            stacklevel=3,
        )
    else:
        warn_of_far_pixels(picture.samples[..., : picture.colours], found)
    return found


def percentiles(picture: Picture) -> tuple[float, float] | None:
    """The 0.1 and 99.9 percentiles of a picture's finite colours, all pages together.

    Returns
    -------
    (float, float) or None
        The smallest and the largest number where the two percentiles are the same; None where
        these are, too, or nothing is finite.

    Notes
    -----
    Of more than 8 million pixels an even sample is looked at; the hot pixels of a sensor are left
    out where they would set the range (`pydenoise.data.gaps.without_strays`).
    """
    colours = picture.samples[..., : picture.colours]
    bounds = levels([colours], _SAMPLED)
    kept = without_strays(colours, bounds) if bounds else None
    if kept is not None:
        bounds = levels(kept, _SAMPLED)
    if bounds is not None and bounds[0] == bounds[1]:
        finite = colours[np.isfinite(colours)]
        bounds = float(finite.min()), float(finite.max())
    return bounds if bounds is not None and bounds[0] < bounds[1] else None
