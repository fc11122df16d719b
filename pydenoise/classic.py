"""Denoisers from before learning, to compare with: their parameters found without a clean picture.

Pictures are floating point arrays on the scale 0..1, (H, W) or (H, W, C); what comes out is new, of
their shape and dtype, and not clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

# What is tried, as multiples of the estimated noise level.
_STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
_THRESHOLDS = (0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
_WEIGHTS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)
_PATCHES = {"patch_size": 5, "patch_distance": 6, "fast_mode": True}


def noise_level(noisy: Array) -> float:
    """Standard deviation of white noise, mean over the channels, by scikit-image.

    Raises as `nonlocal_means`.

    Notes
    -----
    The median of the finest wavelet coefficients over 0.6745 (Donoho and Johnstone 1994).
    """
    from skimage.restoration import estimate_sigma

    _check(noisy)
    if noisy.min() == noisy.max():
        return 0.0
    return float(estimate_sigma(noisy, channel_axis=_channel_axis(noisy), average_sigmas=True))


def nonlocal_means(noisy: Array, h: float | None = None) -> Array:
    """Means of pixels whose surroundings of 5x5 pixels look alike (Buades et al. 2005).

    Parameters
    ----------
    noisy : ndarray
    h : float, optional
        How far surroundings may differ; calibrated on the noisy picture if omitted. At 0 the
        picture comes back as it is.

    Raises
    ------
    TypeError, ValueError
        When the picture is not floating point, or has another shape.

    Examples
    --------
    >>> flat = np.random.default_rng(0).normal(0.5, 0.1, (32, 32))
    >>> bool(nonlocal_means(flat).std() < 0.05)
    True
    """
    from skimage.restoration import denoise_nl_means

    terms = {**_PATCHES, "sigma": noise_level(noisy)}
    if h == 0:
        return noisy.copy()
    if h is None:
        return _calibrated(denoise_nl_means, noisy, "h", _STRENGTHS, terms)
    return _applied(denoise_nl_means, noisy, {**terms, "h": h})


def best_h(noisy: Array, clean: Array) -> float:
    """The `h` that brings `nonlocal_means` nearest to a clean picture, which nobody has: an oracle.

    Raises
    ------
    TypeError, ValueError
        As `nonlocal_means`.
    """
    tried = [strength * noise_level(noisy) for strength in _STRENGTHS]

    def error(h: float) -> float:
        return float(np.square(nonlocal_means(noisy, h).clip(0, 1) - clean).mean())

    return min(tried, key=error)


def wavelet(noisy: Array) -> Array:
    """Wavelet coefficients shrunk by BayesShrink (Chang et al. 2000), the noise level calibrated.

    Colour is taken apart into luma and chroma first. Raises as `nonlocal_means`.
    """
    from skimage.restoration import denoise_wavelet

    is_rgb = noisy.ndim == 3 and noisy.shape[2] == 3
    terms = {"wavelet": "db2", "rescale_sigma": True, "convert2ycbcr": is_rgb}
    return _calibrated(denoise_wavelet, noisy, "sigma", _THRESHOLDS, terms)


def total_variation(noisy: Array) -> Array:
    """The picture of little total variation near the noisy one (Chambolle 2004), weight calibrated.

    Raises as `nonlocal_means`.
    """
    from skimage.restoration import denoise_tv_chambolle

    return _calibrated(denoise_tv_chambolle, noisy, "weight", _WEIGHTS, {})


def bm3d(noisy: Array) -> Array:
    """Like blocks filtered together (Dabov et al. 2007), by the package `bm3d`, where it is.

    It is told the estimated noise level. Its licence restricts use, so nothing installs it.

    Raises
    ------
    ModuleNotFoundError
        Where it is not installed.
    TypeError, ValueError
        As `nonlocal_means`.
    """
    import bm3d as package

    level = noise_level(noisy)
    run = package.bm3d_rgb if noisy.ndim == 3 and noisy.shape[2] == 3 else package.bm3d
    return np.asarray(run(noisy, level), noisy.dtype).reshape(noisy.shape)


def _calibrated(
    function: Callable[..., Array],
    noisy: Array,
    parameter: str,
    multiples: tuple[float, ...],
    terms: dict[str, Any],
) -> Array:
    """The function at that multiple of the noise level which best foretells pixels kept from it.

    The error in foretelling a noisy pixel from the others is that in foretelling the clean one plus
    a constant, if noise is independent between pixels (Batson and Royer 2019). Only the choice is
    made so: the function then sees all pixels, which is better and sixteen times faster than its
    J-invariant version.
    """
    from skimage.restoration import calibrate_denoiser

    level = noise_level(noisy)
    if not level > 0:
        return noisy.copy()
    tried = {name: [value] for name, value in terms.items()}
    tried["channel_axis"] = [_channel_axis(noisy)]
    tried[parameter] = [multiple * level for multiple in multiples]
    settings, errors = calibrate_denoiser(noisy, function, tried, extra_output=True)[1]
    return _applied(function, noisy, settings[int(np.argmin(errors))])


def _applied(function: Callable[..., Array], noisy: Array, terms: dict[str, Any]) -> Array:
    return function(noisy, **{"channel_axis": _channel_axis(noisy)} | terms).astype(noisy.dtype)


def _channel_axis(picture: Array) -> int | None:
    return 2 if picture.ndim == 3 else None


def _check(picture: Array) -> None:
    if picture.dtype.kind != "f":
        raise TypeError(f"classic: picture must be floating point on 0..1, got {picture.dtype}")
    if picture.ndim not in (2, 3) or not picture.size:
        raise ValueError(f"classic: picture must be (H, W) or (H, W, C), got {picture.shape}")
