"""What a noisy picture says about its noise, where no clean one is there to ask.

How strong it is, whether neighbouring pixels share it, whether it was cut off; and what was taken
out, if that is known.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[Any]
Planes: TypeAlias = npt.NDArray[np.float64]

_LARGEST_SIDE = 1024
_LARGEST = 1e150
_BLOCK, _STEP = 8, 4
_FLATTEST = 0.03  # share of the blocks that the noise is looked at in
_FEWEST_BLOCKS = 64
_CUT_OFF_UP_TO = 0.25  # share of a block
_WHITE_UP_TO = 0.15
_ALTERNATES_FROM = -0.4
_UNCLIPPED_UP_TO = 0.01
_UNSEEN_UP_TO_255 = 5.0

_FREQUENCY = np.arange(_BLOCK)
_COSINES = np.cos(np.pi / _BLOCK * np.outer(_FREQUENCY, _FREQUENCY + 0.5))
_COSINES *= np.where(_FREQUENCY == 0, 1, math.sqrt(2))[:, None] / math.sqrt(_BLOCK)
_OVERLAP = (_COSINES[:, 1:] * _COSINES[:, :-1]).sum(axis=1)  # of each wave with its neighbour
_ORDER = np.add.outer(_FREQUENCY, _FREQUENCY)
_IS_SLOW = (_ORDER >= 1) & (_ORDER <= 3)
_IS_FAST = _ORDER >= 5


@dataclass(frozen=True)
class Diagnosis:
    """Measures of a noisy picture, None where it does not allow one.

    Attributes
    ----------
    noise, noise_left : float, optional
        Standard deviation of the noise before and after, in the picture's numbers.
    noise_255, noise_left_255 : float, optional
        The same as if the picture's range were 0 to 255.
    noise_correlation : tuple of two floats, optional
        How alike the noise of horizontal and of vertical neighbours is; 0 when it is independent.
    removed_correlation : tuple of two floats, optional
        Lag-1 autocorrelation, horizontal and vertical, of noisy - denoised; near 0 when noise that
        was independent from pixel to pixel, and nothing else, has been taken out.
    clipped : float
        Share of the values that lie on a plateau at the darkest or brightest end.
    """

    noise: float | None
    noise_left: float | None
    noise_255: float | None
    noise_left_255: float | None
    noise_correlation: tuple[float, float] | None
    removed_correlation: tuple[float, float] | None
    clipped: float

    @property
    def is_correlated(self) -> bool:
        """Whether neighbouring pixels share so much noise that one picture cannot teach."""
        return self.noise_correlation is not None and sum(self.noise_correlation) > 2 * _WHITE_UP_TO

    @property
    def is_pattern(self) -> bool:
        """Whether what was taken out alternates from pixel to pixel, which noise does not."""
        removed = self.removed_correlation
        return removed is not None and min(removed) < _ALTERNATES_FROM

    @property
    def is_clipped(self) -> bool:
        """Whether noise that can be seen was cut off, so that its mean there is no longer zero."""
        is_seen = self.noise_255 is not None and self.noise_255 > _UNSEEN_UP_TO_255
        return is_seen and self.clipped > _UNCLIPPED_UP_TO

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the noise and what to do about it, a line each."""
        found = []
        if self.is_correlated:
            found.append(
                "neighbouring pixels share their noise, as JPEG, demosaicing and in-camera "
                "processing make it; what learns from one picture, or from independent noise, "
                "takes little of it out: try --shrink 2, or a model trained on pairs of captures "
                "(pydenoise train --pairs)"
            )
        if self.is_pattern:
            found.append(
                "what was taken out alternates from pixel to pixel, as fine patterns do and noise "
                "does not: compare the two, and keep the noisy one, or train a model on pictures "
                "of this kind (pydenoise train)"
            )
        if self.is_clipped:
            found.append(
                f"{self.clipped:.1%} of the values are cut off at the darkest or brightest one, "
                "where the result will be off: use a capture that is less bright or less dark, "
                "or the raw data"
            )
        return tuple(found)


def diagnose(noisy: Pixels, denoised: Pixels | None = None) -> Diagnosis:
    """Measure the noise of a picture, and what was taken out of it.

    Parameters
    ----------
    noisy : ndarray of whole numbers or floating point
        (H, W), or (H, W, C) with C colours, without alpha, in the numbers of a file. NaN and
        infinity are left out.
    denoised : ndarray, optional
        The same picture without noise, of the same shape and on the same scale.

    Returns
    -------
    Diagnosis
        Of the middle 1024 x 1024 pixels if there are more.

    Raises
    ------
    ValueError
        When a shape is none of the above, or the two differ in it.

    Notes
    -----
    The level is scikit-image's `estimate_sigma` (the median of the finest wavelet coefficients,
    Donoho and Johnstone 1994), the mean over the colours. The range taken for 0 to 255 is that of
    8-bit numbers, else from the 0.1 to the 99.9 percentile of `noisy`.

    Correlation is looked for where the picture is flat: of all 8 x 8 blocks, the 3 % with the
    least energy in the slow waves of their cosine transform. Noise that is independent from pixel
    to pixel has the same power `P(u, v)` in all fast waves there, `u + v >= 5`, whatever the
    choice was (Colom and Buades, Image Processing On Line 3, 2013, estimate its level so). With
    `r(u)`, the sum over a block's row of a wave times its neighbour's,

        correlation = sum P(u, v) r(u) / sum P(u, v) - mean r(u)

    over the fast waves, `P` being a median over the blocks, is 0 for such noise and 0.25 for noise
    smoothed over 3 x 3 pixels. More than 0.15, the mean of both directions, is called correlated.

    Values count as clipped when their darkest (brightest) level holds more than twice as many as
    the level beside it.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(100, 10, (200, 200))
    >>> diagnosis = diagnose(noise)
    >>> round(diagnosis.noise), diagnosis.is_correlated
    (10, False)
    >>> diagnose(noise[1:, 1:] + noise[1:, :-1] + noise[:-1, 1:] + noise[:-1, :-1]).is_correlated
    True
    """
    before = _middle(noisy)
    after = None if denoised is None else _middle(denoised)
    if denoised is not None and denoised.shape != noisy.shape:
        raise ValueError(
            f"diagnose: noisy has shape {noisy.shape}, denoised {denoised.shape}; "
            "expected one shape"
        )
    unit = _range(before, noisy.dtype) / 255
    noise, left = _noise(before), None if after is None else _noise(after)
    return Diagnosis(
        noise=noise,
        noise_left=left,
        noise_255=None if noise is None or not unit else noise / unit,
        noise_left_255=None if left is None or not unit else left / unit,
        noise_correlation=_noise_correlation(before),
        removed_correlation=None if after is None else _autocorrelation(before - after),
        clipped=_clipped(before),
    )


def _middle(picture: Pixels) -> Planes:
    """(C, H, W) float64 of the middle, new; NaN for what cannot be squared."""
    if picture.ndim not in (2, 3) or not picture.size:
        raise ValueError(
            f"diagnose: picture has shape {picture.shape}; expected (H, W) or (H, W, C)"
        )
    rows, columns = (
        slice(start, start + _LARGEST_SIDE)
        for start in (max(0, (side - _LARGEST_SIDE) // 2) for side in picture.shape[:2])
    )
    planes = np.atleast_3d(picture[rows, columns]).astype(np.float64).transpose(2, 0, 1)
    planes[~(np.abs(planes) < _LARGEST)] = np.nan
    return planes


def _range(planes: Planes, dtype: np.dtype[Any]) -> float:
    if dtype == np.uint8:
        return 255.0
    known = planes[np.isfinite(planes)]
    return float(np.subtract(*np.percentile(known, (99.9, 0.1)))) if known.size else 0.0


def _noise(planes: Planes) -> float | None:
    from skimage.restoration import estimate_sigma

    known = np.isfinite(planes)
    if not known.any() or min(planes.shape[1:]) < _BLOCK:
        return None
    filled = np.where(known, planes, np.median(planes[known]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of planes without any fine detail
        levels = [estimate_sigma(plane) for plane in filled]
    return float(np.nan_to_num(levels).mean())


def _noise_correlation(planes: Planes) -> tuple[float, float] | None:
    power = np.concatenate([_spectra(plane) for plane in planes])
    if len(power) < 4 * _FEWEST_BLOCKS:
        return None
    flattest = np.argsort(power[:, _IS_SLOW].sum(axis=1), kind="stable")
    count = max(_FEWEST_BLOCKS, int(_FLATTEST * len(power)))
    typical = np.median(power[flattest[:count]], axis=0) * _IS_FAST
    if not typical.any():
        return None
    beyond_white = typical / typical.sum() - _IS_FAST / _IS_FAST.sum()
    return (
        float((beyond_white * _OVERLAP).sum()),
        float((beyond_white * _OVERLAP[:, None]).sum()),
    )


def _spectra(plane: Planes) -> Planes:
    """(N, 8, 8): squared cosine transforms of the blocks that are not mostly cut off."""
    if min(plane.shape) < _BLOCK or not np.isfinite(plane).any():
        return np.empty((0, _BLOCK, _BLOCK))
    windows = np.lib.stride_tricks.sliding_window_view(plane, (_BLOCK, _BLOCK))
    blocks = windows[::_STEP, ::_STEP].reshape(-1, _BLOCK, _BLOCK)
    is_at_end = (blocks == np.nanmin(plane)) | (blocks == np.nanmax(plane))
    blocks = blocks[
        (is_at_end.mean(axis=(1, 2)) <= _CUT_OFF_UP_TO)
        & np.isfinite(blocks).all(axis=(1, 2))
        & (np.ptp(blocks, axis=(1, 2)) > 0)
    ]
    return np.square(_COSINES @ blocks @ _COSINES.T)


def _autocorrelation(removed: Planes) -> tuple[float, float] | None:
    known = np.isfinite(removed)
    if not known.any():
        return None
    centred = np.where(known, removed - removed[known].mean(), 0)
    power = np.square(centred).mean()
    if not power or min(centred.shape[1:]) < 2:
        return None
    return (
        float((centred[:, :, 1:] * centred[:, :, :-1]).mean() / power),
        float((centred[:, 1:] * centred[:, :-1]).mean() / power),
    )


def _clipped(planes: Planes) -> float:
    levels, counts = np.unique(planes[np.isfinite(planes)], return_counts=True)
    if len(levels) < 3:
        return 0.0
    ends = ((counts[0], counts[1]), (counts[-1], counts[-2]))
    return float(sum(end for end, beside in ends if end > 2 * beside) / counts.sum())
