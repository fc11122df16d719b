"""`pydenoise eval DATA -m WEIGHTS`: how near trained weights bring noisy pictures to clean ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pydenoise.cli.console import (
    NOISE_FORMS,
    Json,
    Seed,
    Weights,
    print_json,
    print_measures,
)
from pydenoise.cli.sources import note_skipped

if TYPE_CHECKING:
    from torch import Tensor

    NoisyAndClean: TypeAlias = tuple[Tensor, Tensor]


def evaluate(
    model: Weights,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="A folder of clean pictures, or the course's .pkl."),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help=f"Noise to put on clean pictures: {NOISE_FORMS}.")
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Two folders with matching names."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure trained weights: PSNR both ways and SSIM, before and after."""
    from pydenoise.checkpoint import load_weights
    from pydenoise.inference import Scene, compare, denoise

    network, _ = load_weights(model)
    pictures, about = _noisy_and_clean(data, noise, pairs, seed)
    began = time.perf_counter()
    scenes = [Scene(noisy, denoise(network, noisy), clean) for noisy, clean in pictures]
    seconds = time.perf_counter() - began
    measures = compare(scenes)
    speed = measures["pictures"] / seconds
    if as_json:
        extra = {"pictures_per_second": speed, "data": about, "model": str(model)}
        print_json(measures | extra)
        return
    print_measures(f"{model.name} on {measures['pictures']} pictures: {about}", measures)
    typer.echo(f"{speed:,.1f} pictures per second")


def _noisy_and_clean(
    data: Path | None, noise: str | None, pairs: tuple[Path, Path] | None, seed: int
) -> tuple[list[NoisyAndClean], str]:
    """(noisy, clean) as tensors, and a few words on where they come from."""
    if (data is None) == (pairs is None):
        raise typer.BadParameter("give either DATA or --pairs NOISY CLEAN")
    if noise is not None and (data is None or data.suffix == ".pkl"):
        raise typer.BadParameter("--noise is for a folder of clean pictures alone")
    if pairs is not None:
        return _from_two_folders(*pairs), f"{pairs[0]} against {pairs[1]}"
    assert data is not None
    if data.suffix == ".pkl":
        from pydenoise.data import load_course_file

        noisy, clean = load_course_file(data)
        return [(noisy / 255, clean / 255)], str(data)
    if noise is None:
        raise typer.BadParameter(f"clean pictures need noise: add --noise, {NOISE_FORMS}")
    return _with_noise(data, noise, seed), f"{data} with {noise}, seed {seed}"


def _with_noise(folder: Path, noise: str, seed: int) -> list[NoisyAndClean]:
    from pydenoise.data import noisy_pictures, parse, read_folder

    model = parse(noise)
    pictures, _, skipped = read_folder(folder)
    note_skipped(skipped)
    return noisy_pictures(pictures, model, seed)


def _from_two_folders(noisy: Path, clean: Path) -> list[NoisyAndClean]:
    from pydenoise.data import read_folder, to_tensor

    pictures, names, _ = read_folder(noisy)
    targets, target_names, _ = read_folder(clean)
    if [path.stem for path in names] != [path.stem for path in target_names]:
        raise ValueError(
            f"{noisy} and {clean}: names differ, {len(names)} and {len(target_names)} pictures; "
            "a pair has the same name in both"
        )
    for path, picture, target in zip(names, pictures, targets, strict=True):
        if picture.shape != target.shape:
            raise ValueError(
                f"{path}: {picture.shape} against {target.shape} in {clean}; "
                "a pair has one size and one number of channels"
            )
    return [(to_tensor(p), to_tensor(t)) for p, t in zip(pictures, targets, strict=True)]
