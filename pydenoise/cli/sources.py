"""What the commands work on: pictures with noise to add, captures, the course file, weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from pydenoise.cli.console import NOISE_FORMS, say

if TYPE_CHECKING:
    from torch import Tensor

    from pydenoise.data import PairSource
    from pydenoise.nn import Module

VALIDATION_CROPS = 512


class Material(NamedTuple):
    """Pairs to learn from, and noisy and clean pictures to measure on, if there are any."""

    pairs: PairSource
    validation: tuple[Tensor, Tensor] | None


def captures(a: Path, b: Path, *, crop: int, count: int | None, seed: int) -> Material:
    """Two captures of every scene: no clean picture exists, so nothing is measured."""
    from pydenoise.data import FolderPairs

    pairs = FolderPairs(a, b, crop, count, seed)
    note_skipped(pairs.skipped)
    return Material(pairs, None)


def course(path: Path, validation: Path | None) -> Material:
    """The course's `train_data.pkl`, with `val_data.pkl` if it is named or lies beside it."""
    from pydenoise.data import TensorPairs, load_course_file
    from pydenoise.data.pairs import scaled

    pairs = TensorPairs(*load_course_file(path))
    beside = path.with_name("val_data.pkl")
    if validation is None and beside.is_file() and beside != path:
        validation = beside
    if validation is None:
        return Material(pairs, None)
    noisy, clean = load_course_file(validation)
    if noisy.shape[1] != pairs.channels:
        raise ValueError(
            f"{validation}: pictures have {noisy.shape[1]} channels, those of {path} have "
            f"{pairs.channels}; expected the same number"
        )
    return Material(pairs, (scaled(noisy), scaled(clean)))


def photographs(
    folder: Path,
    noise: str | None,
    hold_out: int | None,
    *,
    crop: int,
    count: int | None,
    seed: int,
) -> Material:
    """Pictures with two draws of noise on every crop; some kept whole to measure on."""
    from pydenoise.data import NoisyCrops, generator, parse, read_folder, validation_crops

    if noise is None:
        raise typer.BadParameter(f"a folder of pictures needs --noise: {NOISE_FORMS}")
    model = parse(noise)
    pictures, _, skipped = read_folder(folder, model.source_size(crop))
    note_skipped(skipped)
    kept = len(pictures) // 10 if hold_out is None else hold_out
    if kept >= len(pictures):
        raise ValueError(
            f"{folder}: {len(pictures)} pictures, {kept} of them to hold out; "
            "leave at least one to learn from"
        )
    order = generator(seed, 0, 0, "validation").permutation(len(pictures))
    held_out = [pictures[index] for index in order[:kept]]
    pairs = NoisyCrops([pictures[index] for index in order[kept:]], model, crop, count, seed)
    if not held_out:
        return Material(pairs, None)
    return Material(pairs, validation_crops(held_out, model, VALIDATION_CROPS, crop, seed))


def network(weights: Path) -> Module:
    """A trained network that takes pictures on the scale on which all commands hand them in."""
    from pydenoise.checkpoint import WeightsError, load_weights

    model, header = load_weights(weights)
    if header["value_range"] != (0.0, 1.0):
        raise WeightsError(
            f"{weights}: takes values from {header['value_range'][0]:g} to "
            f"{header['value_range'][1]:g}; expected weights for 0 to 1"
        )
    return model


def note_skipped(skipped: list[Path], kind: str = "other file") -> None:
    """Say on stderr what else a folder holds, and name the first."""
    if skipped:
        kind += "s" if skipped[1:] else ""
        say(f"skipped {len(skipped)} {kind}: {skipped[0]}{' ...' if skipped[1:] else ''}")
