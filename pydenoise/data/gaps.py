"""Pixels that are no numbers: where they are, and what stands in for them meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def valid_pixels(page: npt.NDArray[Any]) -> Mask | None:
    """(H, W), True where all channels of (H, W, C) are finite; None where all pixels are."""
    if page.dtype.kind != "f":
        return None
    valid: Mask = np.isfinite(page).all(axis=2)
    return None if valid.all() else valid


def filled(page: npt.NDArray[Any], valid: Mask | None) -> npt.NDArray[Any]:
    """(H, W, C) with the nearest valid pixel in place of those that are not; zeros without any."""
    if valid is None:
        return page
    if not valid.any():
        return np.zeros_like(page)
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return page[tuple(nearest)]
