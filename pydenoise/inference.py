"""A trained model over whole pictures: pad, forward, crop; any size.

Tensors go through `denoise`, arrays in a file's numbers through `denoise_picture`, files with all
they hold through `denoise_pages`; `evaluate` and `compare` measure a model against clean pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise import metrics
from pydenoise.data import Picture, to_array, to_tensor
from pydenoise.data.gaps import filled, valid_pixels
from pydenoise.nn import Module, no_backward


class Scene(NamedTuple):
    """The same pictures three times over, float tensors (N, C, H, W) scaled to [0, 1]."""

    noisy: Tensor
    denoised: Tensor
    clean: Tensor


_PIXELS_AT_ONCE = 1 << 18


def denoise(model: Module, input: Tensor) -> Tensor:
    """Take the noise out of a batch of pictures of any size.

    Parameters
    ----------
    model : Module
        A denoiser: pictures in, pictures of the same shape out.
    input : Tensor
        Floating point, (N, C, H, W), scaled so that 0 is black and 1 is white.

    Returns
    -------
    Tensor
        New, of the shape and dtype of `input`, on the same scale and not clipped.

    Raises
    ------
    TypeError
        When `input` is not floating point.
    ValueError
        When `input` has not four dimensions, is an empty picture, or has channels that do not suit
        the model.

    Notes
    -----
    Pictures are continued by reflection about their last row and column, as often as it takes, to
    multiples of the model's `size_multiple`, and cropped after. Nothing is kept for backward.

    A gray picture goes through a model of three channels three times over and the channels are
    averaged; a colour picture goes through a model of one channel, channel by channel.
    """
    _check(model, input)
    given, taken = input.shape[1], _channels(model)
    if given == 1 and taken == 3:
        return denoise(model, input.repeat(1, 3, 1, 1)).mean(dim=1, keepdim=True)
    if given == 3 and taken == 1:
        return denoise(model, input.flatten(0, 1)[:, None]).reshape(input.shape)
    batch, _, height, width = input.shape
    rows = _reflected(height, model.size_multiple, input.device)
    columns = _reflected(width, model.size_multiple, input.device)
    at_once = max(1, _PIXELS_AT_ONCE // (len(rows) * len(columns)))
    output = torch.empty_like(input)
    with no_backward():
        for start in range(0, batch, at_once):
            part = input[start : start + at_once]
            if len(rows) != height:
                part = part.index_select(2, rows)
            if len(columns) != width:
                part = part.index_select(3, columns)
            output[start : start + at_once] = model(part)[:, :, :height, :width]
    return output


def denoise_picture(model: Module, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Take the noise out of one picture in the numbers of a file.

    Parameters
    ----------
    model : Module
        A denoiser of one or three channels.
    picture : ndarray of whole numbers or floating point
        (H, W), or (H, W, C) with C = 1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha.
        0 to 1 on the model's scale is the range of the dtype; floating point is on that scale.

    Returns
    -------
    ndarray
        New, of the same shape and dtype; whole numbers are rounded and clipped to their range,
        floating point is not. Alpha is handed through untouched; see `denoise` for gray pictures
        and models of colour.

    Raises
    ------
    TypeError
        When the picture is neither.
    ValueError
        When its shape is none of the above.
    """
    if picture.dtype.kind not in "uif":
        raise TypeError(
            f"denoise_picture: picture must be whole numbers or floating point, got {picture.dtype}"
        )
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 2, 3, 4)):
        raise ValueError(
            "denoise_picture: picture must be (H, W) or (H, W, C) with C from 1 to 4, "
            f"got {picture.shape}"
        )
    return denoise_pages(model, Picture.of(picture)).array


def denoise_pages(
    model: Module,
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
) -> Picture:
    """Take the noise out of a picture or a stack as a file holds it, page by page.

    Parameters
    ----------
    model : Module
        A denoiser of one or three channels.
    picture : Picture
        As `pydenoise.data.read_picture` gives it.
    value_range, strength
        As in `map_pages`.

    Returns
    -------
    Picture
        New, with all else that the file said; alpha is handed through untouched.

    Raises
    ------
    ValueError
        When the channels do not suit the model, and as `map_pages`.
    """
    run = partial(denoise, model)
    return map_pages(run, picture, value_range=value_range, strength=strength)


def map_pages(
    run: Callable[[Tensor], Tensor],
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
) -> Picture:
    """Replace the pages of a picture by what a function of tensors makes of them.

    Parameters
    ----------
    run : callable
        Takes the colours of a page, float32 (1, C, H, W), and returns the like.
    picture : Picture
    value_range : (float, float), optional
        The file's numbers that are 0 and 1 to `run`, low and high; nothing is clipped to them. The
        range of the dtype if omitted; floating point is then taken as it is.
    strength : float
        How far to go from the noisy picture, 0, to what `run` returns, 1. At 0 nothing is run and
        the samples come back as they were.

    Returns
    -------
    Picture
        New, of the same dtype. Whole numbers are rounded, and clipped to the range of the dtype;
        floating point is neither. Pixels that hold NaN or infinity stay as they are, and are
        filled from the nearest others while `run` looks at them.

    Raises
    ------
    ValueError
        For a range that does not rise, or a strength outside 0..1.
    """
    check_terms(value_range, strength)
    output = picture.samples.copy()
    for page in output if strength else ():
        colours = page[:, :, : picture.colours]
        valid = valid_pixels(colours)
        noisy = to_tensor(filled(colours, valid), value_range)
        clean = run(noisy)
        if strength < 1:
            clean = noisy.lerp_(clean, strength)
        found = to_array(clean, page.dtype, value_range).reshape(colours.shape)
        if valid is None:
            colours[:] = found
        else:
            colours[valid] = found[valid]
    return picture.with_samples(output)


def check_terms(value_range: tuple[float, float] | None, strength: float) -> None:
    """Refuse what `map_pages` says that it refuses."""
    if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise ValueError(f"denoise: value_range must be two rising numbers, got {value_range}")
    if not 0 <= strength <= 1:
        raise ValueError(f"denoise: strength must be from 0 to 1, got {strength}")


def evaluate(model: Module, noisy: Tensor, clean: Tensor) -> dict[str, float]:
    """Measure how near a model brings noisy pictures of one size to the clean ones.

    Parameters
    ----------
    model : Module
        A denoiser.
    noisy, clean : Tensor
        Floating point, (N, C, H, W), scaled to [0, 1].

    Returns
    -------
    dict
        `psnr_per_image` and `psnr_global` in dB, as `pydenoise.metrics` defines them.
    """
    output = denoise(model, noisy)
    return {
        "psnr_per_image": metrics.psnr_per_image(output, clean),
        "psnr_global": metrics.psnr_global(output, clean),
    }


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
        measures[f"psnr_{name}"] = metrics.psnr_per_image(pictures, clean)
        measures[f"psnr_{name}_global"] = metrics.psnr_global(pictures, clean)
        measures[f"ssim_{name}"] = _mean_ssim(pictures, clean)
    return measures | {"pictures": sum(len(pictures) for pictures in clean)}


def _check(model: Module, input: Tensor) -> None:
    if not input.is_floating_point():
        raise TypeError(
            f"denoise: input must be floating point on the scale 0 to 1, got {input.dtype}"
        )
    if input.dim() != 4 or 0 in input.shape[1:]:
        raise ValueError(f"denoise: input must be (N, C, H, W) and hold pixels, got {_size(input)}")
    channels = _channels(model)
    if channels not in (None, input.shape[1]) and {channels, input.shape[1]} != {1, 3}:
        raise ValueError(
            f"denoise: the model takes pictures of {channels} channels, got {_size(input)}"
        )


def _mean_ssim(pictures: Sequence[Tensor], cleans: Sequence[Tensor]) -> float | None:
    if any(min(clean.shape[2:]) < metrics.SSIM_WINDOW for clean in cleans):
        return None
    total = sum(len(p) * metrics.ssim(p, clean) for p, clean in zip(pictures, cleans, strict=True))
    return total / sum(len(clean) for clean in cleans)


def _size(input: Tensor) -> tuple[int, ...]:
    return tuple(input.shape)


def _channels(model: Module) -> int | None:
    """Channels of the pictures that the model takes; None when it does not say."""
    return (model.architecture or {}).get("in_channels")


def _reflected(size: int, multiple: int, device: torch.device) -> Tensor:
    """Indices that continue 0..size-1 by reflection, without repeating the edge, to a multiple."""
    index = torch.arange(-(-size // multiple) * multiple, device=device)
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.minimum(index, period - index)
