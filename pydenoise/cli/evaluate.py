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
from pydenoise.cli.sources import network, note_skipped

if TYPE_CHECKING:
    from torch import Tensor

    from pydenoise.data.folders import ValueRange

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
    _check_usage(data, noise, pairs)
    from pydenoise.inference import Scene, compare, denoise

    trained = network(model)
    pictures, about = _noisy_and_clean(data, noise, pairs, seed, trained.value_range)
    began = time.perf_counter()
    scenes = [Scene(noisy, denoise(trained, noisy), clean) for noisy, clean in pictures]
    seconds = time.perf_counter() - began
    measures = compare(scenes)
    speed = measures["pictures"] / seconds
    if as_json:
        extra = {"pictures_per_second": speed, "data": about, "model": str(model)}
        print_json(measures | extra)
        return
    print_measures(f"{model.name} on {measures['pictures']} pictures: {about}", measures)
    typer.echo(f"{speed:,.1f} pictures per second")


def _check_usage(data: Path | None, noise: str | None, pairs: tuple[Path, Path] | None) -> None:
    if (data is None) == (pairs is None):
        raise typer.BadParameter("give either DATA or --pairs NOISY CLEAN")
    is_folder = data is not None and data.suffix != ".pkl"
    if noise is not None and not is_folder:
        raise typer.BadParameter("--noise is for a folder of clean pictures alone")
    if noise is None and is_folder:
        raise typer.BadParameter(f"clean pictures need noise: add --noise, {NOISE_FORMS}")


def _noisy_and_clean(
    data: Path | None,
    noise: str | None,
    pairs: tuple[Path, Path] | None,
    seed: int,
    value_range: ValueRange,
) -> tuple[list[NoisyAndClean], str]:
    """(noisy, clean) as tensors, and a few words on where they come from."""
    if pairs is not None:
        return _from_two_folders(*pairs, value_range), f"{pairs[0]} against {pairs[1]}"
    assert data is not None
    if data.suffix == ".pkl":
        from pydenoise.data import load_course_file
        from pydenoise.data.pairs import scaled

        noisy, clean = load_course_file(data)
        return [(scaled(noisy), scaled(clean))], str(data)
    assert noise is not None
    return _with_noise(data, noise, seed, value_range), f"{data} with {noise}, seed {seed}"


def _with_noise(
    folder: Path, noise: str, seed: int, value_range: ValueRange
) -> list[NoisyAndClean]:
    from pydenoise.data import noisy_pictures, on_scale, parse, read_folder

    model = parse(noise)
    pictures, _, skipped = read_folder(folder, model.source_size(1))
    note_skipped(skipped)
    return noisy_pictures(on_scale(pictures, value_range), model, seed)


def _from_two_folders(noisy: Path, clean: Path, value_range: ValueRange) -> list[NoisyAndClean]:
    from pydenoise.data import matching_pictures, to_tensor

    matched = matching_pictures(noisy, clean)
    note_skipped(matched.skipped)
    pairs = zip(matched.first, matched.second, strict=True)
    return [(to_tensor(p, value_range), to_tensor(t, value_range)) for p, t in pairs]
