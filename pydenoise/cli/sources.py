"""What the commands work on: pictures with noise to add, captures, the course file, weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import typer

from pydenoise.cli.console import NOISE_FORMS, say, saying_warnings
from pydenoise.cli.machine import free_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from pydenoise.data import NoiseModel, PairSource
    from pydenoise.data.crops import Pictures
    from pydenoise.data.lazy import FolderPictures
    from pydenoise.data.noise import Array

VALIDATION_CROPS = 512

IsLazy: TypeAlias = Callable[[Path], bool]
"""Whether a folder's pictures are read when they are needed, not all at once."""


class Cut(NamedTuple):
    """How pairs are cut from pictures: pixels on a side, pairs in an epoch, and the seed."""

    crop: int
    length: int | None
    seed: int


class Material(NamedTuple):
    """Pairs to learn from, noisy and clean pictures to measure on, if there are any, and the
    numbers of the files that become 0 and 1."""

    pairs: PairSource
    validation: tuple[Tensor, Tensor] | None
    value_range: tuple[float, float] | None = None


def captures(
    pairs: tuple[Path, Path] | None,
    burst: Path | None,
    stacks: Sequence[Path],
    bounds: tuple[float, float] | None,
    cut: Cut,
) -> Material:
    """Several captures of every scene: no clean picture exists, so nothing is measured."""
    from pydenoise import data

    if pairs is not None:
        scenes, skipped = data.two_folders(*pairs, cut.crop)
    elif burst is not None:
        scenes, skipped = data.bursts(burst, cut.crop)
    else:
        scenes, skipped = data.stacks(stacks)
    note_left_out(skipped)
    where = " and ".join(map(str, pairs or ([burst] if burst else stacks)))
    bounds = bounds or data.value_range((c for scene in scenes for c in scene.captures), where)
    with saying_warnings():
        source = data.ScenePairs(scenes, *cut, bounds)
    drifting = source.drifting
    if drifting:
        say(f"brightness drifts: {drifting} of {source.captures} captures matched to the others")
    return Material(source, None, bounds)


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
    bounds: tuple[float, float] | None,
    cut: Cut,
    is_lazy: IsLazy,
) -> Material:
    """Pictures with two draws of noise on every crop; some kept whole to measure on."""
    from pydenoise.data import NoisyCrops

    if noise is None:
        raise typer.BadParameter(f"a folder of pictures needs --noise: {NOISE_FORMS}")
    clean = _clean(folder, noise, hold_out, bounds, cut, is_lazy)
    pairs = NoisyCrops(clean.pictures, clean.noise, *cut)
    return Material(pairs, clean.validation, clean.value_range)


def singles(
    folder: Path,
    noise: str | None,
    hold_out: int | None,
    bounds: tuple[float, float] | None,
    cut: Cut,
    is_lazy: IsLazy,
) -> Material:
    """Noisy pictures, one of each scene; or clean ones, each with one draw of noise for good."""
    from pydenoise import data

    if noise is not None:
        clean = _clean(folder, noise, hold_out, bounds, cut, is_lazy)
        pairs = data.SingleCrops(_noisy(clean.pictures, clean.noise, cut.seed), *cut)
        return Material(pairs, clean.validation, clean.value_range)
    pictures, bounds = _on_scale(folder, cut.crop, bounds, is_lazy)
    return Material(data.SingleCrops(pictures, *cut), None, bounds)


def is_large(folder: Path) -> bool:
    """Whether a folder's pictures would take more than a quarter of the memory there is."""
    from pydenoise.data import decoded_bytes

    return decoded_bytes(folder) > free_memory() // 4


class _Clean(NamedTuple):
    """Clean pictures to put noise on, without those held out, and what belongs to them."""

    pictures: Pictures
    noise: NoiseModel
    validation: tuple[Tensor, Tensor] | None
    value_range: tuple[float, float] | None


def _clean(
    folder: Path,
    noise: str,
    hold_out: int | None,
    bounds: tuple[float, float] | None,
    cut: Cut,
    is_lazy: IsLazy,
) -> _Clean:
    from pydenoise import data

    model = data.parse(noise)
    pictures, bounds = _on_scale(folder, model.source_size(cut.crop), bounds, is_lazy)
    kept = len(pictures) // 10 if hold_out is None else hold_out
    if kept >= len(pictures):
        raise ValueError(
            f"{folder}: {len(pictures)} pictures, {kept} of them to hold out; "
            "leave at least one to learn from"
        )
    order = data.generator(cut.seed, 0, 0, "validation").permutation(len(pictures))
    held_out, rest = (_taken(pictures, part) for part in (order[:kept], order[kept:]))
    measured_on = None
    if kept:
        measured_on = data.validation_crops(held_out, model, VALIDATION_CROPS, cut.crop, cut.seed)
    return _Clean(rest, model, measured_on, bounds)


def _on_scale(
    folder: Path, smallest: int, bounds: tuple[float, float] | None, is_lazy: IsLazy
) -> tuple[FolderPictures | list[Array], tuple[float, float] | None]:
    """A folder's pictures on the scale 0..1, and the numbers of its files that are 0 and 1."""
    from pydenoise import data

    if is_lazy(folder):
        with saying_warnings():
            opened, skipped = data.open_folder(folder, smallest)
        note_left_out(skipped)
        amount = f"{len(opened):,} pictures, {opened.nbytes / 2**30:,.1f} GiB in memory"
        say(f"{folder}: {amount}, are read when they are needed")
        bounds = bounds or opened.value_range(folder)
        return opened.on_scale(bounds), bounds
    pictures, _, skipped = data.read_folder(folder, smallest)
    note_left_out(skipped)
    bounds = bounds or data.value_range(pictures, folder)
    return data.on_scale(pictures, bounds), bounds


def _taken(pictures: FolderPictures | list[Array], numbers: NDArray[np.int64]) -> Pictures:
    """Some of the pictures, in the given order."""
    if isinstance(pictures, list):
        return [pictures[number] for number in numbers]
    return pictures.taken(numbers)


def _noisy(pictures: Pictures, noise: NoiseModel, seed: int) -> Pictures:
    """Pictures with one draw of noise each."""
    from pydenoise import data

    if isinstance(pictures, data.PicturesOnDemand):
        return data.NoisyOnce(pictures, noise, seed)
    drawn = data.noisy_pictures(pictures, noise, seed)
    return [picture[0].permute(1, 2, 0).numpy() for picture, _ in drawn]


def note_left_out(skipped: Mapping[Path, str]) -> None:
    """Say on stderr which files of a folder are not used, and for pictures why the first is not."""
    note_skipped([path for path, reason in skipped.items() if not reason])
    note_skipped([reason for reason in skipped.values() if reason], "unusable picture")


def note_skipped(skipped: Sequence[Path | str], kind: str = "other file") -> None:
    """Say on stderr what else a folder holds, and name the first."""
    if skipped:
        kind += "s" if skipped[1:] else ""
        say(f"skipped {len(skipped)} {kind}: {skipped[0]}{' ...' if skipped[1:] else ''}")
