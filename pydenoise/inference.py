"""A trained model over whole pictures of any size, once or as often as they can be turned.

Tensors go through `denoise`, arrays in a file's numbers through `denoise_picture`, files with all
they hold through `denoise_pages`; `evaluate` measures a model against clean pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise import metrics, tiles
from pydenoise.data import Picture, to_array, to_tensor
from pydenoise.data.gaps import filled, valid_pixels, warn_of_far_pixels
from pydenoise.data.levels import levels
from pydenoise.meter import Meter, Progress
from pydenoise.nn import Module
from pydenoise.tiles import Cut

FAR_FROM_UNIT = 10
"""Numbers beyond this are on no scale of 0 to 1, however noisy."""
_LOOKED_AT = 2**20


def denoise(
    model: Module,
    input: Tensor,
    *,
    turns: int = 1,
    max_bytes: int | None = None,
    meter: Meter | None = None,
) -> Tensor:
    """Take the noise out of a batch of pictures of any size.

    Parameters
    ----------
    model : Module
        A denoiser: pictures in, pictures of the same shape out, or their noise where
        `predicts_noise` says so: it is taken from them.
    input : Tensor
        Floating point, (N, C, H, W), scaled so that 0 is black and 1 is white.
    turns : int
        1 to 8: how many of a picture's eight turned and mirrored versions go through, the result
        being the mean of what is found, turned back (geometric self-ensemble). As many times the
        work.
    max_bytes : int, optional
        What the layers' results may take at a time, beside `input` and output, and with turns
        four more of their size; 2 GiB if omitted.
    meter : Meter, optional
        Counts what is through.

    Returns
    -------
    Tensor
        New, of the shape and dtype of `input`, on the same scale and not clipped.

    Raises
    ------
    TypeError, ValueError
        As `apply`.
    """
    output = apply(model, input, turns=turns, max_bytes=max_bytes, meter=meter)
    return torch.sub(input.detach(), output, out=output) if model.predicts_noise else output


def apply(
    model: Module,
    input: Tensor,
    *,
    turns: int = 1,
    max_bytes: int | None = None,
    meter: Meter | None = None,
) -> Tensor:
    """What a model makes of a batch of pictures of any size; `denoise` names the arguments.

    Returns
    -------
    Tensor
        New, of the shape and dtype of `input`: pictures or noise, as the model predicts.

    Raises
    ------
    TypeError
        When `input` is not floating point, or `turns` no whole number.
    ValueError
        When `input` has not four dimensions, is an empty picture, or has channels that do not suit
        the model; when `turns` are not 1 to 8; when `max_bytes` is given and does not hold the
        smallest tile, or the model cannot be cut into tiles.

    Notes
    -----
    Pictures are continued by reflection about their last row and column, as often as it takes, to
    multiples of the model's `size_multiple`, and cropped after. Nothing is kept for backward.

    A large picture goes through in tiles, each with as many of its neighbours' pixels as its
    result depends on (`Module.reads`): on the compiled backends the result is that of the whole
    picture, bit for bit. Their size is the cheapest that fits: small tiles stay in the cache,
    large ones share fewer pixels. A model that holds a module of the user's own, or a layer that
    may look anywhere, takes pictures whole, whatever they need.

    A gray picture goes through a model of three channels three times over and the channels are
    averaged; a colour picture goes through a model of one channel, channel by channel.

    R. Timofte, R. Rothe, L. Van Gool, "Seven ways to improve example-based single image super
    resolution", CVPR 2016, for the mean over turns.
    """
    if not input.is_floating_point():
        raise TypeError(
            f"denoise: input must be floating point on the scale 0 to 1, got {input.dtype}"
        )
    turns, input = check_turns(turns), input.detach()
    if turns == 1:
        return tiles.run(model, input, max_bytes, meter)
    tiles.check(model, input.shape, input[:0], max_bytes, turns)
    height, width = input.shape[2:]
    # before it is turned: what is added would else come before the first row, and a network's
    # strides begin elsewhere than in a band that needs nothing added
    rows, columns = (tiles.reflected(n, model.size_multiple, input.device) for n in (height, width))
    even = input[:, :, rows[:, None], columns]
    total = torch.zeros_like(even)
    for turn in range(turns):
        quarters, is_mirrored = turn // 2, turn % 2 == 1
        turned = even.rot90(quarters, (2, 3))
        turned = turned.flip(3) if is_mirrored else turned
        found = tiles.run(model, turned.contiguous(), max_bytes, meter)
        found = found.flip(3) if is_mirrored else found
        total += found.rot90(-quarters, (2, 3))
        del found
    output = torch.empty_like(input)
    return torch.div(total[:, :, :height, :width], turns, out=output)


def denoise_picture(
    model: Module, picture: npt.NDArray[Any], *, turns: int = 1, max_bytes: int | None = None
) -> npt.NDArray[Any]:
    """Take the noise out of one picture in the numbers of a file.

    Parameters
    ----------
    model : Module
        A denoiser of one or three channels.
    picture : ndarray of whole numbers or floating point
        (H, W), or (H, W, C) with C = 1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha.
        0 to 1 on the model's scale is its `value_range`; if it has none, the range of the dtype,
        and floating point is on that scale.
    turns, max_bytes
        As in `denoise`.

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
    return denoise_pages(model, Picture.of(picture), turns=turns, max_bytes=max_bytes).array


def denoise_pages(
    model: Module,
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int = 1,
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> Picture:
    """Take the noise out of a picture or a stack as a file holds it, page by page.

    Parameters
    ----------
    model : Module
        A denoiser of one or three channels. It computes where its weights lie.
    picture : Picture
        As `pydenoise.data.read_picture` gives it.
    value_range : (float, float), optional
        As in `map_pages`; the model's own if omitted.
    strength : float
        As in `map_pages`.
    turns : int
        As in `denoise`.
    max_bytes : int, optional
        As in `denoise`. No more of a large page than a band of rows is there at a time as floating
        point numbers.
    progress : callable, optional
        As in `Meter`.

    Returns
    -------
    Picture
        New, with all else that the file said; alpha is handed through untouched.

    Raises
    ------
    TypeError, ValueError
        When the channels do not suit the model; when the picture has floating point far outside
        0..1, or whole numbers of more than 16 bits, and neither range is given; and as `denoise`
        and `map_pages`.
    """
    terms: dict[str, Any] = {"value_range": value_range, "strength": strength}
    check_pages(model, picture, **terms, turns=turns, max_bytes=max_bytes)
    terms["value_range"] = value_range or model.value_range
    if strength:
        warn_of_far_pixels(picture.samples[..., : picture.colours], terms["value_range"])
    return run_pages(model, picture, **terms, turns=turns, max_bytes=max_bytes, progress=progress)


def run_pages(
    model: Module,
    picture: Picture,
    *,
    value_range: tuple[float, float] | None,
    strength: float,
    turns: int,
    max_bytes: int | None,
    progress: Progress | None = None,
) -> Picture:
    """What `denoise_pages` does when it has checked and warned; the range is the one given."""
    turns = check_turns(turns)
    meter = Meter(turns * picture.samples[..., : picture.colours].size, progress)
    return map_pages(
        partial(denoise, model, turns=turns, max_bytes=max_bytes, meter=meter),
        picture,
        value_range=value_range,
        strength=strength,
        bands=partial(tiles.bands, model, turns=turns),
        device=tiles.device(model),
    )


def check_pages(
    model: Module,
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int = 1,
    max_bytes: int | None = None,
) -> None:
    """Refuse, before any work, a picture or terms that `denoise_pages` says that it refuses."""
    check_terms(picture, value_range, strength, turns)
    check_tiles(model, picture, max_bytes, turns)
    if value_range is None and model.value_range is None:
        _refuse_unknown_scale(picture)


def check_tiles(model: Module, picture: Picture, max_bytes: int | None, turns: int = 1) -> None:
    """Refuse channels that do not suit a model, and memory that does not hold its smallest tile."""
    size = (1, 1) if max_bytes is None else picture.samples.shape[1:3]  # a pixel tells channels
    like = torch.empty(0, device=tiles.device(model))
    tiles.check(model, (1, picture.colours, *size), like, max_bytes, turns)


def map_pages(
    run: Callable[[Tensor], Tensor],
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    bands: Callable[[tuple[int, int]], Iterable[Cut]] | None = None,
    device: torch.device | str = "cpu",
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
    bands : callable, optional
        Takes a page's (height, width) and says in which rows it goes through `run`; whole if
        omitted.
    device : torch.device or str
        Where `run` takes them.

    Returns
    -------
    Picture
        New, of the same dtype. Whole numbers are rounded, and clipped to the range of the dtype;
        floating point is neither. Pixels that are not `valid_pixels` stay as they are, and are
        filled from the nearest others while `run` looks at them.

    Raises
    ------
    TypeError
        When the samples are neither whole numbers nor floating point, and something is to be run.
    ValueError
        For a range that does not rise, or a strength outside 0..1; when `run` gives NaN or
        infinity.
    """
    check_terms(picture, value_range, strength)
    output = picture.samples.copy()
    for before, page in zip(picture.samples, output, strict=True) if strength else ():
        noisy, colours = (each[:, :, : picture.colours] for each in (before, page))
        valid = valid_pixels(noisy, value_range)
        noisy = filled(noisy, valid)
        for rows in bands(page.shape[:2]) if bands else [Cut.whole(len(page))]:
            part = to_tensor(noisy[rows.read], value_range).to(device)
            clean = run(part)
            if not clean.isfinite().all():
                low, high = (float(end) for end in part.aminmax())
                raise ValueError(
                    "denoise: the model gives values that are not finite for numbers from "
                    f"{low:.3g} to {high:.3g} on its scale of 0 to 1; train it again with a "
                    "smaller --lr"
                )
            if strength < 1:
                clean = part.lerp(clean, strength)
            clean = clean[:, :, rows.inside]
            to = colours[rows.kept]
            found = to_array(clean, page.dtype, value_range).reshape(to.shape)
            np.copyto(to, found, where=True if valid is None else valid[rows.kept, :, None])
    return picture.with_samples(output)


def _refuse_unknown_scale(picture: Picture) -> None:
    """Where the numbers are on no model's scale, as they are or by the range of their dtype."""
    dtype = picture.samples.dtype
    found = f"of {dtype}" if dtype.kind in "iu" and dtype.itemsize > 2 else None
    if dtype.kind == "f":
        filled_range = levels([picture.samples[..., : picture.colours]], _LOOKED_AT)
        if filled_range is not None and max(map(abs, filled_range)) > FAR_FROM_UNIT:
            found = f"from {filled_range[0]:g} to {filled_range[1]:g}"
    if found is not None:
        raise ValueError(
            f"denoise: the model takes numbers from 0 to 1, the picture holds numbers {found}; "
            "say which of them are black and white: value_range, --range LO HI"
        )


def check_turns(turns: int) -> int:
    """Turns as Python's int; refused where `denoise` says so."""
    try:
        number = index(turns)
    except TypeError:
        raise TypeError(
            f"denoise: turns must be a whole number from 1 to 8, got {turns!r}"
        ) from None
    if not 1 <= number <= 8:
        raise ValueError(f"denoise: turns must be from 1 to 8, got {number}")
    return number


def check_terms(
    picture: Picture, value_range: tuple[float, float] | None, strength: float, turns: int = 1
) -> None:
    """Refuse what `map_pages` says that it refuses, and turns that `denoise` does."""
    check_turns(turns)
    if strength:
        picture.check_numbers()
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
