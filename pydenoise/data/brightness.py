"""Captures of one scene held against each other: are they one, and are they equally bright.

All is judged on block means, in which the noise is small.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pydenoise.data.noise import Array
from pydenoise.data.pairs import PairsError

Numbers: TypeAlias = npt.NDArray[np.float64]

_BLOCK = 8
_ERRORS = 3.0  # a drift of fewer standard errors is none
_OUTLIER = 5.0  # in medians of what is left over: 3.4 standard deviations
_UNRELATED = 0.5
_CONTRAST = 25.0  # variance of block means over that which the noise explains
_LARGEST_PART = 512
_CLOSER = 0.5  # what a shift leaves of the difference that is there without it


class CapturesWarning(UserWarning):
    """Captures of a scene that do not lie on each other."""


class Match(NamedTuple):
    """What takes each capture's numbers to the brightness that a scene's captures have in common.

    `gain` and `offset` are (captures, channels): `x * gain + offset`; 1 and 0 where nothing drifts.
    """

    gain: Numbers
    offset: Numbers


def match_brightness(captures: Sequence[Array]) -> Match:
    """Gain and offset of every capture, so that all of a scene are equally bright.

    Parameters
    ----------
    captures : sequence of (H, W, C) arrays
        Of one shape; two or more.

    Returns
    -------
    Match

    Notes
    -----
    Lamps flicker and exposures vary, and a network that is trained on such pairs learns to guess
    the other capture's brightness. For each channel, with `m_k` and `s_k` mean and standard
    deviation of capture k's means of 8 x 8 pixels::

        x -> M + (x - m_k) S / s_k,    M = mean of m_k,    S = geometric mean of s_k

    The aim is the middle of all captures and not one of them, since each is source and target in
    turn. The ratio of two standard deviations is no regression's slope, which the noise on the
    side of the cause would make too small: noise as strong in both leaves it at 1, so nothing is
    darkened or flattened on average. Blocks where captures differ more than noise lets them, as
    where something moved, are left out: residuals of the standardized means beyond five of their
    medians.

    A capture set within three standard errors of no drift, in location and in scale, is left as it
    is. With `z` the standardized means, `r_k` what of them is capture k's own, over n blocks the
    errors are `S sd(r_k) / sqrt(n)` for `m_k` and `sd(z r_k) / sqrt(n)` for `log s_k`.
    """
    levels = _block_means(captures)
    channels = [_match_channel(levels[:, :, channel]) for channel in range(levels.shape[2])]
    gains, offsets = zip(*channels, strict=True)
    return Match(np.stack(gains, axis=1), np.stack(offsets, axis=1))


def check_captures(captures: Sequence[Array], names: Sequence[str]) -> None:
    """Refuse captures that cannot be of one scene, and warn of those that have moved.

    Parameters
    ----------
    captures : sequence of (H, W, C) arrays
    names : sequence of str
        Where each comes from, for the messages.

    Raises
    ------
    PairsError
        When captures differ in shape or dtype, are the same picture twice, or look unrelated:
        their block means correlate by less than 0.5, though they vary more than noise does.

    Warns
    -----
    CapturesWarning
        When a capture lies two pixels or more beside the first, by phase correlation.
    """
    for capture, name in zip(captures, names, strict=True):
        if capture.shape != captures[0].shape or capture.dtype != captures[0].dtype:
            raise PairsError(
                f"{names[0]} is {_kind(captures[0])}, {name} is {_kind(capture)}; expected "
                "captures of one size and depth: crop them alike"
            )
    _refuse_copies(captures, names)
    _refuse_unrelated(captures, names)
    for capture, name in zip(captures[1:], names[1:], strict=True):
        down, right = _shift(captures[0], capture)
        if max(abs(down), abs(right)) >= 2:
            warnings.warn(
                f"{name} seems to lie {abs(down)} pixels {'lower' if down > 0 else 'higher'} and "
                f"{abs(right)} further {'right' if right > 0 else 'left'} than {names[0]}; "
                "align captures first: what does not lie on each other is blurred",
                CapturesWarning,
                stacklevel=2,
            )


def _block_means(captures: Sequence[Array]) -> Numbers:
    """(captures, blocks, channels)"""
    return np.stack([_blocks(capture).mean(axis=(1, 3)) for capture in captures]).reshape(
        len(captures), -1, captures[0].shape[2]
    )


def _blocks(capture: Array) -> Numbers:
    """(rows, block, columns, block, C); smaller blocks where the picture is small."""
    height, width, channels = capture.shape
    block = max(1, min(_BLOCK, min(height, width) // _BLOCK))
    rows, columns = height // block, width // block
    whole = capture[: rows * block, : columns * block].astype(np.float64)
    return whole.reshape(rows, block, columns, block, channels)


def _match_channel(levels: Numbers) -> tuple[Numbers, Numbers]:
    """Gains and offsets of the captures from their means of every block."""
    unchanged = np.ones(len(levels)), np.zeros(len(levels))
    kept = np.ones(levels.shape[1], dtype=bool)
    for _ in range(3):
        means, spreads = levels[:, kept].mean(axis=1), levels[:, kept].std(axis=1)
        if not spreads.all():
            return unchanged
        standard = (levels - means[:, None]) / spreads[:, None]
        known = standard.mean(axis=0)
        own = standard - known
        worst = np.abs(own).max(axis=0)
        kept = worst <= _OUTLIER * np.median(worst)
    mean, spread = means.mean(), np.exp(np.log(spreads).mean())
    allowed = _ERRORS / np.sqrt(kept.sum())
    drift = np.abs(means - mean) > allowed * spread * own[:, kept].std(axis=1)
    growth = np.abs(np.log(spreads / spread)) > allowed * (known * own)[:, kept].std(axis=1)
    if not (drift | growth).any():
        return unchanged
    gain = spread / spreads
    return gain, mean - gain * means


def _refuse_copies(captures: Sequence[Array], names: Sequence[str]) -> None:
    seen: dict[bytes, str] = {}
    for capture, name in zip(captures, names, strict=True):
        digest = sha256(capture.tobytes()).digest()
        if digest in seen:
            raise PairsError(
                f"{seen[digest]} and {name} are the same picture, noise included; "
                "expected two captures: leave one of them out"
            )
        seen[digest] = name


def _refuse_unrelated(captures: Sequence[Array], names: Sequence[str]) -> None:
    blocks = [_blocks(capture) for capture in captures]
    levels = np.stack([b.mean(axis=(1, 3, 4)).ravel() for b in blocks])
    by_noise = np.array([b.var(axis=(1, 3)).mean() / (b.shape[1] * b.shape[3]) for b in blocks])
    if levels.shape[1] < _BLOCK**2 or not levels.std(axis=1).all():
        return
    alike = np.corrcoef(levels)
    np.fill_diagonal(alike, np.nan)
    number = int(np.nanmedian(alike, axis=0).argmin())
    correlation = np.nanmax(alike[number])
    if correlation < _UNRELATED and (levels.var(axis=1) > _CONTRAST * by_noise).all():
        other = 1 if number == 0 else 0
        raise PairsError(
            f"{names[number]} does not look like {names[other]} (correlation of their block means "
            f"{correlation:.2f}); expected captures of one scene: check which belong together, "
            "or align them first"
        )


def _shift(first: Array, second: Array) -> tuple[int, int]:
    """Pixels down and to the right by which the second lies beside the first; 0 if not clear."""
    spectra = [np.fft.fft2(_part(capture)) for capture in (first, second)]
    rows, columns = (np.fft.fftfreq(side) for side in spectra[0].shape)
    low_pass = np.exp(-50 * (rows[:, None] ** 2 + columns**2))  # half at a tenth of a cycle a pixel
    a, b = (spectrum * low_pass for spectrum in spectra)
    product = b * a.conj()
    size = np.abs(product)
    phase = np.divide(product, size, out=np.zeros_like(product), where=size > 0)
    peak = np.fft.ifft2(phase * low_pass).real.argmax()
    alike = np.fft.ifft2(product).real * product.size
    best = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    if best - alike.flat[peak] >= _CLOSER * (best - alike.flat[0]):
        return 0, 0
    down, right = (
        int(at) - (side if at > side // 2 else 0)
        for at, side in zip(np.unravel_index(peak, alike.shape), alike.shape, strict=True)
    )
    return down, right


def _part(capture: Array) -> Numbers:
    """The middle of a picture in gray, faded out to its sides."""
    tops = [max(0, side - _LARGEST_PART) // 2 for side in capture.shape[:2]]
    part = capture[tops[0] :, tops[1] :][:_LARGEST_PART, :_LARGEST_PART]
    part = part.mean(axis=2, dtype=np.float64)
    windows = [np.hanning(side) for side in part.shape]
    faded: Numbers = (part - part.mean()) * windows[0][:, None] * windows[1]
    return faded


def _kind(capture: Array) -> str:
    return f"{'x'.join(str(side) for side in capture.shape)} {capture.dtype}"
