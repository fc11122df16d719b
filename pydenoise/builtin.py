"""The networks that ship: how a picture is denoised by them, and how they learn on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pydenoise.checkpoint import WeightsError, load_weights
from pydenoise.data import Picture
from pydenoise.inference import check_terms, check_tiles, run_pages
from pydenoise.meter import Progress
from pydenoise.models import build
from pydenoise.nn import Module, Residual, Sequential
from pydenoise.scale import scale

_WEIGHTS = Path(__file__).parent / "weights"
NETWORKS = {1: _WEIGHTS / "gray.safetensors", 3: _WEIGHTS / "colour.safetensors"}
"""By channels: `pydenoise.models.halved`, trained by bench/learn_builtin.py on pairs of noisy
pictures, under noise of many kinds and levels. Their headers say on which.
"""


TURNS = 8
"""Of a picture that the result is the mean of, unless fewer are asked for."""


def denoise_pages(
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int = TURNS,
    max_bytes: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Picture:
    """Take the noise out of a gray or RGB picture or stack by the network that ships for it.

    Parameters
    ----------
    picture : Picture
        As `pydenoise.data.read_picture` gives it. Its noise must be independent between pixels.
        RGB whose three channels are the same on all pages is taken for gray.
    value_range : (float, float), optional
        The numbers that are 0 and 1 to the network; the 0.1 and 99.9 percentiles of all pages
        together if omitted. Nothing is clipped to them.
    strength, turns, max_bytes, progress
        As in `pydenoise.inference.denoise_pages`.
    device : torch.device or str
        Where the network computes.

    Returns
    -------
    Picture
        New, with all else that the file said; alpha, NaN, infinity and what lies far outside the
        range stay as they are. A picture of one value comes back as it is where no range is given.

    Warns
    -----
    UserWarning
        When the picture has one value alone or none, and no range is given; when pixels are left
        as they are for lying far outside the range.

    Raises
    ------
    TypeError, ValueError
        When the picture has channels that are neither gray nor RGB, and as
        `pydenoise.inference.denoise_pages`.
    pydenoise.checkpoint.WeightsError
        Where the weights are missing from the package, or damaged.

    Examples
    --------
    >>> import numpy as np
    >>> noisy = Picture.of(np.random.default_rng(0).normal(100, 5, (64, 64)))
    >>> bool(denoise_pages(noisy).array.std() < 1)
    True
    """
    shown = _without_copies(picture)
    check_terms(shown, value_range, strength, turns)
    network = network_for(shown, device)
    found = scale(shown, value_range, strength)
    if found is None:
        return picture.with_samples(picture.samples.copy())
    denoised = run_pages(
        network,
        shown,
        value_range=found,
        strength=strength,
        turns=turns,
        max_bytes=max_bytes,
        progress=progress,
    )
    if shown is picture:
        return denoised
    samples = picture.samples.copy()
    samples[..., : picture.colours] = denoised.samples
    return picture.with_samples(samples)


def check_pages(
    picture: Picture,
    *,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int = TURNS,
    max_bytes: int | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Refuse, before any work, a picture or terms that `denoise_pages` says that it refuses."""
    check_terms(picture, value_range, strength, turns)
    check_tiles(network_for(picture, device), picture, max_bytes, turns)


def network_for(picture: Picture, device: torch.device | str = "cpu") -> Module:
    """The network of a picture's channels, in eval mode; loaded once per process and device.

    That for gray where red, green and blue are the same on all pages.

    Raises
    ------
    ValueError, pydenoise.checkpoint.WeightsError
        As in `denoise_pages`.
    """
    colours = _without_copies(picture).colours
    if colours not in NETWORKS:
        raise ValueError(
            f"builtin: the networks that ship take gray and RGB, the picture has {colours} "
            "channels; take zero-shot: method='zero-shot', --method zero-shot"
        )
    return _loaded(NETWORKS[colours], torch.device(device))


def trainable(channels: int) -> Residual:
    """Copy the network that ships for so many channels, to be taught by pairs of one's own.

    Parameters
    ----------
    channels : int
        Of the pictures, 1 or 3.

    Returns
    -------
    Residual
        New, on the CPU, in training mode. It gives the picture, where the one that ships predicts
        the noise, from which it differs by the sign of its last layer. `origin` is the SHA-256 of
        the weights that it came from.

    Raises
    ------
    ValueError
        For other channels.
    pydenoise.checkpoint.WeightsError
        Where the weights are missing from the package, or damaged.

    Examples
    --------
    >>> model = trainable(1)
    >>> model.architecture["residual"], model.predicts_noise
    (True, False)
    """
    if channels not in NETWORKS:
        raise ValueError(
            f"builtin: the networks that ship take gray and RGB, the pictures have {channels!r} "
            "channels; begin with a new network"
        )
    shipped, header = _read(NETWORKS[channels])
    model = build({**header["architecture"], "residual": True})
    assert isinstance(model, Residual) and isinstance(model.branch, Sequential)
    model.branch.load_state_dict(shipped.state_dict())
    for parameter in model.branch[-1].parameters():
        parameter.data.neg_()
    model.origin = header["sha256"]
    return model


def _without_copies(picture: Picture) -> Picture:
    """One channel of a gray picture that was saved as RGB: what three share is no noise to a
    network for colour."""
    first, *others = np.moveaxis(picture.samples[..., : picture.colours], -1, 0)
    may_be_nan = first.dtype.kind == "f"
    if len(others) != 2 or not all(np.array_equal(first, each, may_be_nan) for each in others):
        return picture
    return Picture(np.ascontiguousarray(first[..., None]))


@cache
def _loaded(path: Path, device: torch.device) -> Module:
    return _read(path)[0].eval().to(device)


def _read(path: Path) -> tuple[Module, dict[str, Any]]:
    try:
        return load_weights(path)
    except WeightsError as error:
        raise WeightsError(
            f"{path}: is {'damaged' if path.is_file() else 'missing'}; install pydenoise again, or "
            "take zero-shot: method='zero-shot', --method zero-shot"
        ) from error
