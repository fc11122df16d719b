"""Pictures less the noise that a network finds in them, on a scale by their own percentiles."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pydenoise.data import Picture
from pydenoise.data.gaps import warn_of_far_pixels, without_strays
from pydenoise.data.levels import levels
from pydenoise.inference import apply, check_terms, map_pages
from pydenoise.meter import Meter, Progress
from pydenoise.nn import Module
from pydenoise.tiles import bands, device, reflected

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


def subtract(
    network: Module,
    picture: Picture,
    *,
    value_range: tuple[float, float],
    turns: int,
    strength: float,
    max_bytes: int | None,
    progress: Progress | None = None,
) -> Picture:
    """Take from every page the noise that a network predicts.

    Parameters
    ----------
    network : Module
        Noisy pages in, their noise out. It computes where its weights lie.
    picture : Picture
    value_range : (float, float)
        The numbers that are 0 and 1 to the network.
    turns : int
        How many of the eight turned and mirrored versions of a page the noise is the mean of.
    strength, max_bytes, progress
        As in `pydenoise.inference.denoise_pages`.

    Returns
    -------
    Picture
        As `pydenoise.inference.map_pages` gives it.
    """
    meter = Meter(turns * picture.samples[..., : picture.colours].size, progress)
    return map_pages(
        _less_noise(network, turns, max_bytes, meter),
        picture,
        value_range=value_range,
        strength=strength,
        bands=partial(bands, network),
        device=device(network),
    )


def _less_noise(
    network: Module, turns: int, max_bytes: int | None, meter: Meter
) -> Callable[[Tensor], Tensor]:
    def run(page: Tensor) -> Tensor:
        height, width = page.shape[2:]
        # before it is turned: what is added would else come before the first row, and a network's
        # strides begin elsewhere than in a band that needs nothing added
        rows, columns = (reflected(n, network.size_multiple, page.device) for n in (height, width))
        even = page[:, :, rows[:, None], columns]
        total = torch.zeros_like(even)
        for turn in range(turns):
            quarters, is_mirrored = turn // 2, turn % 2 == 1
            turned = even.rot90(quarters, (2, 3))
            turned = turned.flip(3) if is_mirrored else turned
            noise = apply(network, turned.contiguous(), max_bytes=max_bytes, meter=meter)
            noise = noise.flip(3) if is_mirrored else noise
            total += noise.rot90(-quarters, (2, 3))
        return page - total[:, :, :height, :width].div_(turns)

    return run
