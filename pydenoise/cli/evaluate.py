"""`pydenoise eval DATA`: how near weights, or several methods, bring noisy pictures to clean."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pydenoise.cli.console import (
    NOISE_FORMS,
    Json,
    Seed,
    Turns,
    Weights,
    check_range,
    print_json,
    print_measures,
    print_table,
    say,
    tell,
)
from pydenoise.cli.sources import note_left_out

if TYPE_CHECKING:
    from torch import Tensor

    from pydenoise.comparison import Measured
    from pydenoise.data.folders import ValueRange
    from pydenoise.nn import Module

    NoisyAndClean: TypeAlias = tuple[Tensor, Tensor]

_SECONDS_BETWEEN_LINES = 5.0


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="A folder of clean pictures, or the course's .pkl."),
    ] = None,
    model: Weights = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Compare them, each in a process of its own: builtin (the network that ships), "
            "zero-shot, zero-shot-paper, model (that of -m), nlm, nlm-best (knows the clean "
            "picture), wavelet, tv, bm3d (where it is installed), with commas between.",
        ),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help=f"Noise to put on clean pictures: {NOISE_FORMS}.")
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="NOISY CLEAN", help="Two folders with matching names."),
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LO HI",
            help="Numbers of the files that count as 0 and 1, which PSNR goes by; the model's own "
            "if omitted, or the range of their dtype; needed for floating point beyond 0 to 1.",
        ),
    ] = None,
    turns: Turns = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure trained weights, or methods side by side: PSNR and SSIM against clean pictures."""
    _check_usage(data, noise, pairs, value_range)
    from pydenoise.checkpoint import load_weights

    chosen = _chosen(methods, model, turns)
    trained = load_weights(model)[0] if model else None
    value_range = value_range or (trained.value_range if trained else None)
    pictures, about = _noisy_and_clean(data, noise, pairs, seed, value_range)
    if value_range is None:
        _refuse_unknown_range(pictures)
    if methods:
        _compare(chosen, model, turns, pictures, about, as_json)
    else:
        assert model is not None and trained is not None
        _measure_weights(str(model), trained, turns or 1, pictures, about, as_json)


def _measure_weights(
    name: str,
    trained: Module,
    turns: int,
    pictures: list[NoisyAndClean],
    about: str,
    as_json: bool,
) -> None:
    from pydenoise.inference import denoise
    from pydenoise.metrics import Scene, compare

    began = time.perf_counter()
    scenes = [
        Scene(noisy, denoise(trained, noisy, turns=turns), clean) for noisy, clean in pictures
    ]
    seconds = time.perf_counter() - began
    measures = compare(scenes)
    speed = measures["pictures"] / seconds
    if as_json:
        extra = {"pictures_per_second": speed, "data": about, "model": name, "turns": turns}
        print_json(measures | extra)
        return
    print_measures(f"{Path(name).name} on {measures['pictures']} pictures: {about}", measures)
    tell(f"{speed:,.1f} pictures per second")


def _compare(
    methods: list[str],
    model: Path | None,
    turns: int | None,
    pictures: list[NoisyAndClean],
    about: str,
    as_json: bool,
) -> None:
    """A table with a row for each method, and one for the noisy pictures."""
    import torch

    from pydenoise import comparison
    from pydenoise.data import to_array

    scenes = [
        (to_array(noisy, "f4"), to_array(clean, "f4"))
        for batch in pictures
        for noisy, clean in zip(*batch, strict=True)
    ]
    noisy = _means([comparison.Measured(*comparison.score(*scene), 0, None) for scene in scenes])
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        if reason := comparison.reason_missing(method):
            say(f"{method}: {reason}")
            found[method] = {"missing": reason}
        else:
            own = turns if method in comparison.WITH_TURNS else None
            measured = comparison.measure(method, scenes, model, own)
            found[method] = _means(list(_telling(method, len(scenes), measured)))
    threads = torch.get_num_threads()
    if as_json:
        print_json(
            {"pictures": len(scenes), "data": about, "threads": threads}
            | ({} if turns is None else {"turns": turns})
            | {f"{name}_noisy": noisy[name] for name in ("psnr", "ssim")}
            | {"methods": found}
        )
        return
    rows = [["noisy", f"{noisy['psnr']:.2f}", "", _figure(noisy["ssim"], ".4f"), "", ""]]
    rows += [_row(comparison.METHODS[method], found[method], noisy) for method in methods]
    title = f"{len(scenes)} pictures, {threads} threads: {about}"
    print_table(title, ["", "PSNR, dB", "gain", "SSIM", "seconds each", "peak MB"], rows)


def _row(name: str, means: dict[str, Any], noisy: dict[str, Any]) -> list[str]:
    if "missing" in means:
        return [f"{name}: {means['missing'].partition(';')[0]}", *[""] * 5]
    gain = means["psnr"] - noisy["psnr"]
    return [
        *(name, f"{means['psnr']:.2f}", f"{gain:+.2f}", _figure(means["ssim"], ".4f")),
        *(f"{means['seconds']:.2f}", _figure(means["peak_mb"], ".0f")),
    ]


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _means(measured: list[Measured]) -> dict[str, float | None]:
    """Over the pictures, and the largest peak; None where one of them is."""
    means: dict[str, float | None] = {}
    for name, column in zip(measured[0]._fields, zip(*measured, strict=True), strict=True):
        combined = max if name == "peak_mb" else fmean
        means[name] = None if None in column else combined(column)
    return means


def _telling(method: str, count: int, measured: Iterator[Measured]) -> Iterator[Measured]:
    """What is measured, with a line on stderr every few seconds."""
    said = time.monotonic()
    for number, picture in enumerate(measured, 1):
        if time.monotonic() - said >= _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            say(f"{method}: {number} of {count} pictures")
        yield picture


def _check_usage(
    data: Path | None,
    noise: str | None,
    pairs: tuple[Path, Path] | None,
    value_range: ValueRange,
) -> None:
    if (data is None) == (pairs is None):
        raise typer.BadParameter("give either DATA or --pairs NOISY CLEAN")
    is_folder = data is not None and data.suffix != ".pkl"
    if noise is not None and not is_folder:
        raise typer.BadParameter("--noise is for a folder of clean pictures alone")
    if noise is None and is_folder:
        raise typer.BadParameter(f"clean pictures need noise: add --noise, {NOISE_FORMS}")
    check_range(value_range)
    if value_range is not None and data is not None and not is_folder:
        raise typer.BadParameter("--range is for pictures: the course's file is of 8 bits")


def _chosen(methods: str | None, model: Path | None, turns: int | None) -> list[str]:
    """The names in a list with commas, each known; the weights alone where there is no list."""
    if methods is None:
        if model is None:
            raise typer.BadParameter("give -m WEIGHTS to measure, or --methods to compare")
        return ["model"]
    from pydenoise.comparison import WITH_TURNS, reason_missing

    chosen = list(dict.fromkeys(word.strip() for word in methods.split(",")))
    for method in chosen:
        reason_missing(method)
    if ("model" in chosen) != (model is not None):
        raise typer.BadParameter("-m WEIGHTS and the method model need each other")
    if turns is not None and not {*chosen} & {*WITH_TURNS}:
        raise typer.BadParameter(f"--turns is for the methods {', '.join(WITH_TURNS)}")
    return chosen


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


def _refuse_unknown_range(pictures: list[NoisyAndClean]) -> None:
    """Whole numbers are on the scale of their dtype, floating point must be."""
    from pydenoise.inference import FAR_FROM_UNIT

    largest = max(clean.abs().max().item() for _, clean in pictures)
    if largest > FAR_FROM_UNIT:
        raise typer.BadParameter(
            f"the pictures hold numbers up to {largest:g}, expected 0 to 1; say which of them are "
            "black and white: --range LO HI"
        )


def _with_noise(
    folder: Path, noise: str, seed: int, value_range: ValueRange
) -> list[NoisyAndClean]:
    from pydenoise.data import noisy_pictures, on_scale, parse, read_folder

    model = parse(noise)
    pictures, _, skipped = read_folder(folder, model.source_size(1))
    note_left_out(skipped)
    return noisy_pictures(on_scale(pictures, value_range), model, seed)


def _from_two_folders(noisy: Path, clean: Path, value_range: ValueRange) -> list[NoisyAndClean]:
    from pydenoise.data import matching_pictures, to_tensor

    matched = matching_pictures(noisy, clean)
    note_left_out(matched.skipped)
    pairs = zip(matched.first, matched.second, strict=True)
    return [(to_tensor(p, value_range), to_tensor(t, value_range)) for p, t in pairs]
