"""Pixels that nothing can be learned from: where they are, and what stands in for them meanwhile.

NaN and infinity are no numbers; what lies far outside the range, as hot pixels do, is more than a
network can take, which then spoils all around it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from pydenoise.data.levels import levels

Mask = npt.NDArray[np.bool_]
Range = tuple[float, float]

_FAR = 3.0
_SUSPECT = 10.0
_RAREST = 0.005
_USUAL, _SEEN = (2.0, 98.0), 2**18

_SIDE = np.arange(-3, 4)
_NEAR = sorted(
    ((y, x) for y in _SIDE for x in _SIDE if 0 < y * y + x * x <= 9),
    key=lambda offset: offset[0] ** 2 + offset[1] ** 2,
)


def valid_pixels(page: npt.NDArray[Any], value_range: Range | None = None) -> Mask | None:
    """Which pixels of a page a network can look at.

    Parameters
    ----------
    page : ndarray (H, W, C)
        Without alpha.
    value_range : (float, float), optional
        The numbers that are 0 and 1 to the network; if omitted, 0 and 1 of floating point, and the
        range of the dtype of whole numbers, outside which there are none.

    Returns
    -------
    ndarray of bool (H, W), or None
        False where a channel is NaN, infinite, or lies outside the range by more than three times
        its width. None where none does.

    Notes
    -----
    A photograph of 256 x 256 pixels with noise of a tenth of its range, of which one pixel in 2000
    was hot, was denoised by the network that ships to 28.5, 27.7, 24.6 and 20.6 dB beside them
    where they were 5, 9, 15 and 30 times as far out, and to 30.2 dB without them. Nor are small
    bright objects and stars better off in the network than as they are.
    """
    valid = np.isfinite(page).all(axis=2) if page.dtype.kind == "f" else None
    far = _far(page, value_range)
    if far is not None:
        valid = ~far if valid is None else valid & ~far
    return None if valid is None or valid.all() else valid


def warn_of_far_pixels(pages: npt.NDArray[Any], value_range: Range | None) -> None:
    """Say of (pages, H, W, C) how many numbers `valid_pixels` finds too far outside the range."""
    count = 0
    for page in pages:
        far = _far(page, value_range)
        if far is not None:
            count += int(np.count_nonzero(far & np.isfinite(page).all(axis=2)))
    if count:
        low, high = value_range or (0, 1)
        warnings.warn(
            f"{count} pixels lie outside the range of {low:g} to {high:g} by more than "
            f"{_FAR:g} times its width, as hot ones do; they are left as they are. If they belong "
            "to the picture, name a wider range: --range LO HI, value_range in Python",
            stacklevel=3,
        )


def without_strays(pages: npt.NDArray[Any], found: Range) -> list[npt.NDArray[Any]] | None:
    """The pixels of each page, (N, C), without the hot ones of a sensor, where these may have set
    the range; None where it looks as it should.

    Parameters
    ----------
    pages : ndarray (P, H, W, C)
    found : (float, float)
        The range; suspect where it is ten times as wide as that from the 2 to the 98 percentile.

    Notes
    -----
    Hot are single pixels and pairs, ten such widths outside the percentiles of their page. Where
    they are more than 0.5 % of it they are no faults of a sensor, but photons.
    """
    usual = levels([pages], _SEEN, _USUAL)
    if usual is None or not 0 < _SUSPECT * (usual[1] - usual[0]) < found[1] - found[0]:
        return None
    return [_without_strays(page, levels([page], _SEEN, _USUAL) or usual) for page in pages]


def _without_strays(page: npt.NDArray[Any], usual: Range) -> npt.NDArray[Any]:
    far = _outside(page, usual, _SUSPECT)
    pixels = page.reshape(-1, page.shape[2])
    if far is None:
        return pixels
    rows, columns = np.nonzero(far)
    padded = np.pad(far, 1)
    around = [padded[rows + y, columns + x] for y in range(3) for x in range(3)]
    is_alone = np.sum(around, axis=0) <= 2
    if np.count_nonzero(is_alone) > _RAREST * far.size:
        return pixels
    far[rows[~is_alone], columns[~is_alone]] = False
    return page[~far]


def _far(page: npt.NDArray[Any], value_range: Range | None) -> Mask | None:
    if value_range is None and page.dtype.kind != "f":
        return None
    return _outside(page, value_range or (0, 1), _FAR)


def _outside(page: npt.NDArray[Any], value_range: Range, times: float) -> Mask | None:
    """(H, W), True where a channel lies outside a range by so many times its width; None if
    nowhere."""
    low, high = value_range
    ends = low - times * (high - low), high + times * (high - low)
    if page.dtype.kind == "f":  # which NumPy would take the ends as
        ends = np.clip(ends, np.finfo(page.dtype).min, np.finfo(page.dtype).max).tolist()
    if np.fmin.reduce(page, None) >= ends[0] and np.fmax.reduce(page, None) <= ends[1]:
        return None
    return np.any((page < ends[0]) | (page > ends[1]), axis=2)


def filled(page: npt.NDArray[Any], valid: Mask | None) -> npt.NDArray[Any]:
    """(H, W, C) with the nearest valid pixel in place of those that are not; zeros without any."""
    if valid is None:
        return page
    if not valid.any():
        return np.zeros_like(page)
    output = page.copy()
    rows, columns = np.nonzero(~valid)
    for y, x in _NEAR:
        near_rows, near_columns = rows + y, columns + x
        is_inside = (near_rows >= 0) & (near_rows < valid.shape[0])
        is_inside &= (near_columns >= 0) & (near_columns < valid.shape[1])
        is_found = is_inside.copy()
        is_found[is_inside] = valid[near_rows[is_inside], near_columns[is_inside]]
        found = page[near_rows[is_found], near_columns[is_found]]
        output[rows[is_found], columns[is_found]] = found
        rows, columns = rows[~is_found], columns[~is_found]
    if rows.size:  # of large gaps the inner part
        from scipy.ndimage import distance_transform_edt

        nearest = distance_transform_edt(~valid, return_distances=False, return_indices=True)
        output[rows, columns] = page[tuple(nearest[:, rows, columns])]
    return output
