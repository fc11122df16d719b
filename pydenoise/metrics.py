"""How near pictures are to the clean ones: PSNR in the course's two ways, and SSIM.

The only place where either is computed, so that every figure means the same thing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Pictures: TypeAlias = Tensor | Sequence[Tensor]

_FLOOR = 1e-8
SSIM_WINDOW = 11


def psnr(output: Tensor, target: Tensor, data_range: float) -> float:
    """Peak signal-to-noise ratio of the values as they are, in dB.

    Parameters
    ----------
    output, target : Tensor
        One shape, any real dtype; neither clipped nor rounded here.
    data_range : float
        Largest minus smallest value that the format can hold: 255 for 8 bits, 1 for 0..1.

    Returns
    -------
    float
        `10 log10(data_range^2 / mse)`; infinite for equal tensors.

    Raises
    ------
    ValueError
        When the shapes differ or are empty, or the range is not positive.

    Examples
    --------
    >>> a = torch.zeros(4, 4)
    >>> round(psnr(a, a + 25.5, data_range=255), 6)
    20.0
    """
    _check_shapes("psnr", output, target)
    if not data_range > 0:
        raise ValueError(f"psnr: data_range is {data_range}; expected more than 0")
    difference = output.to(torch.float64) - target.to(torch.float64)
    error = difference.square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(data_range**2 / error)


def psnr_per_image(output: Pictures, target: Pictures) -> float:
    """Mean over the pictures of each picture's PSNR, in dB; the course's figure.

    Parameters
    ----------
    output, target : (N, C, H, W) floating point tensors, or lists of them
        On the scale 0..1; clipped and rounded to 8 bits first, as a file would hold them. Lists
        hold pictures of several sizes; each picture counts alike.

    Returns
    -------
    float
        `mean_i(-10 log10(mse_i + 1e-8))`, at most 80 dB; NaN if a value is NaN.

    Raises
    ------
    TypeError, ValueError
        When they are not floating point, not of one shape, not four-dimensional, or empty.

    See Also
    --------
    psnr_global : half a dB or more below this on the course's data.
    """
    errors = _errors_per_image("psnr_per_image", output, target)
    return (errors + _FLOOR).log10().mul(-10).mean().item()


def psnr_global(output: Pictures, target: Pictures) -> float:
    """PSNR of the mean squared error over all pictures, in dB.

    Parameters, errors and rounding are those of `psnr_per_image`.

    Returns
    -------
    float
        `-10 log10(mean_i mse_i + 1e-8)`, at most 80 dB; NaN if a value is NaN.
    """
    errors = _errors_per_image("psnr_global", output, target)
    return (errors.mean() + _FLOOR).log10().mul(-10).item()


def ssim(output: Tensor, target: Tensor) -> float:
    """Structural similarity, mean over the pictures; 1 for equal ones.

    Gaussian window 11, sigma 1.5, population covariance, mean over the channels (Wang et al.
    2004), by scikit-image.

    Parameters
    ----------
    output, target : (N, C, H, W) floating point tensors
        On the scale 0..1; clipped and rounded to 8 bits first. H and W at least 11.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    TypeError, ValueError
        As `psnr_per_image`, and when a side is shorter than the window.
    """
    from skimage.metrics import structural_similarity

    _check_pictures("ssim", output, target)
    if min(output.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"ssim: pictures have shape {tuple(output.shape)}; "
            f"expected height and width of at least {SSIM_WINDOW}"
        )
    planes = (_levels(picture).cpu().double().numpy() for picture in (output, target))
    values = [
        structural_similarity(
            a,
            b,
            data_range=255,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(*planes, strict=True)  # float64: variances are differences of squares
    ]
    return float(sum(values) / len(values))


class Scene(NamedTuple):
    """The same pictures three times over, float tensors (N, C, H, W) scaled to [0, 1]."""

    noisy: Tensor
    denoised: Tensor
    clean: Tensor


def compare(scenes: Sequence[Scene]) -> dict[str, Any]:
    """Measure noisy and denoised pictures of any sizes against the clean ones.

    Parameters
    ----------
    scenes : sequence of Scene
        Each of one shape (N, C, H, W), scaled to [0, 1]; every picture counts alike.

    Returns
    -------
    dict
        `psnr_noisy`, `psnr_denoised` (dB, means over the pictures), `psnr_noisy_global`,
        `psnr_denoised_global` (dB of the mean squared error), `ssim_noisy`, `ssim_denoised` (None
        where a picture is smaller than SSIM's window of 11 pixels), and the number of `pictures`.

    Raises
    ------
    ValueError
        When there is no scene.
    """
    if not scenes:
        raise ValueError("compare: no pictures to measure on")
    noisy, denoised, clean = (list(pictures) for pictures in zip(*scenes, strict=True))
    measures: dict[str, Any] = {}
    for name, pictures in (("noisy", noisy), ("denoised", denoised)):
        measures[f"psnr_{name}"] = psnr_per_image(pictures, clean)
        measures[f"psnr_{name}_global"] = psnr_global(pictures, clean)
        measures[f"ssim_{name}"] = _mean_ssim(pictures, clean)
    return measures | {"pictures": sum(len(pictures) for pictures in clean)}


def _errors_per_image(where: str, output: Pictures, target: Pictures) -> Tensor:
    """(N,) float64: mean squared error of each picture on the scale 0..1, 8-bit levels.

    Differences of levels and their squares are whole numbers, exact in float32.
    """
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        both = zip(output, target, strict=True)
        return torch.cat([_errors_per_image(where, *pair) for pair in both])
    _check_pictures(where, output, target)
    squares = (_levels(output) - _levels(target)).square_()
    return squares.sum(dim=(1, 2, 3), dtype=torch.float64) / (255**2 * output[0].numel())


def _levels(picture: Tensor) -> Tensor:
    """The 256 levels that an 8-bit file holds, as float32 on the scale 0..255."""
    return picture.detach().to(torch.float32).clamp(0, 1).mul_(255).round_()


def _check_pictures(where: str, output: Tensor, target: Tensor) -> None:
    for name, tensor in (("output", output), ("target", target)):
        if not tensor.is_floating_point():
            raise TypeError(
                f"{where}: {name} has dtype {tensor.dtype}; expected floating point on 0..1"
            )
    _check_shapes(where, output, target)
    if output.ndim != 4:
        raise ValueError(f"{where}: shape is {tuple(output.shape)}; expected (N, C, H, W)")


def _mean_ssim(pictures: Sequence[Tensor], cleans: Sequence[Tensor]) -> float | None:
    if any(min(clean.shape[2:]) < SSIM_WINDOW for clean in cleans):
        return None
    total = sum(len(p) * ssim(p, clean) for p, clean in zip(pictures, cleans, strict=True))
    return total / sum(len(clean) for clean in cleans)


def _check_shapes(where: str, output: Tensor, target: Tensor) -> None:
    if output.shape != target.shape or not output.numel():
        raise ValueError(
            f"{where}: output has shape {tuple(output.shape)}, target {tuple(target.shape)}; "
            "expected one shape with at least one value"
        )
