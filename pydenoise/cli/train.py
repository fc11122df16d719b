"""`pydenoise train DATA --out RUN`: weights from noisy pictures."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydenoise.cli import sources
from pydenoise.cli.console import (
    NOISE_FORMS,
    Json,
    Overwrite,
    Seed,
    print_json,
    print_measures,
    say,
)
from pydenoise.cli.progress import watching

if TYPE_CHECKING:
    from pydenoise.nn import Module
    from pydenoise.objectives import Objective
    from pydenoise.optim import Optimizer, Schedule

WEIGHTS, LOG, CURVE = "model.safetensors", "log.jsonl", "curve.png"


class OptimizerName(StrEnum):
    """Optimizers by name."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class ObjectiveName(StrEnum):
    """Objectives by name."""

    NOISE2NOISE = "noise2noise"
    NEIGHBOR2NEIGHBOR = "neighbor2neighbor"


class ScheduleName(StrEnum):
    """Schedules of the learning rate by name."""

    CONSTANT = "constant"
    STEP = "step"
    COSINE = "cosine"
    RAMP = "ramp"


DEFAULT_RATES = {OptimizerName.SGD: 0.5, OptimizerName.ADAM: 3e-3, OptimizerName.ADAMW: 3e-3}


def train(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="Folder for the result.")],
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A folder of pictures to put noise on, or of noisy ones for neighbor2neighbor, "
            "or the course's .pkl file.",
        ),
    ] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Two folders of noisy captures with matching names."),
    ] = None,
    burst: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder for each scene, with its noisy captures."),
    ] = None,
    stack: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A TIFF or .npy, pages of a still scene; repeatable."),
    ] = None,
    objective: Annotated[
        ObjectiveName,
        typer.Option(help="What is learned from: noisy pairs, or single noisy pictures."),
    ] = ObjectiveName.NOISE2NOISE,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LO HI",
            help="Numbers of the files that become 0 and 1; the range of their dtype if omitted, "
            "or the 0.1 and 99.9 percentiles where they fill only part of it or have none.",
        ),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help=f"Noise to put on a folder's pictures: {NOISE_FORMS}.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="The course's validation .pkl; val_data.pkl beside DATA if omitted."),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(min=0, help="Pictures of a folder kept to measure on; a tenth if omitted."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    optimizer: Annotated[OptimizerName, typer.Option()] = OptimizerName.ADAM,
    lr: Annotated[
        float | None,
        typer.Option(min=0, help="Learning rate; 0.5 for sgd and 0.003 for adam if omitted."),
    ] = None,
    momentum: Annotated[float, typer.Option(min=0, max=1, help="Of sgd.")] = 0.9,
    schedule: Annotated[
        ScheduleName, typer.Option(help="How the learning rate falls.")
    ] = ScheduleName.COSINE,
    average: Annotated[
        float,
        typer.Option(min=0, max=0.999999, help="Decay of the averaged weights; 0: none."),
    ] = 0.999,
    augment: Annotated[bool, typer.Option(help="Turn, mirror and swap pairs at random.")] = True,
    channels: Annotated[
        str, typer.Option(help="Channels of the network's levels, separated by commas.")
    ] = "48,96",
    crop: Annotated[int, typer.Option(min=4, help="Pixels on a side of a training crop.")] = 32,
    pairs_count: Annotated[
        int | None, typer.Option(min=1, help="Pairs per epoch; as many as fit if omitted.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network on noisy pictures and write its weights, log and curve to RUN."""
    if [data, pairs, burst, stack or None].count(None) != 3:
        raise typer.BadParameter("give one of DATA, --pairs A B, --burst DIR and --stack FILE")
    is_folder = data is not None and data.suffix != ".pkl"
    is_single = objective is ObjectiveName.NEIGHBOR2NEIGHBOR
    if noise is not None and not is_folder:
        raise typer.BadParameter("--noise is for a folder of pictures alone")
    if is_single and not is_folder:
        raise typer.BadParameter("--objective neighbor2neighbor is for a folder of pictures alone")
    if value_range is not None and not value_range[0] < value_range[1]:
        raise typer.BadParameter("--range expects two numbers, the lower first")
    _refuse_filled(out, overwrite)
    widths = _whole_numbers(channels)

    from pydenoise import metrics, models, report, training
    from pydenoise.atomic import new_folder
    from pydenoise.checkpoint import save_weights
    from pydenoise.data import Augmented

    cut = sources.Cut(crop, pairs_count, seed)
    if data is None:
        material = sources.captures(pairs, burst, stack or [], value_range, cut)
    elif not is_folder:
        material = sources.course(data, validation)
    else:
        taken = sources.singles if is_single else sources.photographs
        material = taken(data, noise, hold_out, value_range, cut)
    source, measured_on, bounds = material
    if augment:
        source = Augmented(source, transpose=source.shape[1] == source.shape[2], seed=seed)
    model = models.autoencoder(widths, source.channels, seed=seed)
    _refuse_odd_sizes(source.shape, model.size_multiple * (2 if is_single else 1))
    rule = _optimizer(optimizer, model, lr, momentum)
    if measured_on is None:
        say("no clean pictures to measure on: the log holds the loss alone")
    with new_folder(out, LOG), watching("training") as progress:
        (out / LOG).unlink(missing_ok=True)  # of an earlier run, which a new one must not continue
        result = training.train(
            model,
            source,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=rule,
            schedule=_schedule(schedule),
            objective=_objective(objective, noise, seed),
            validation=measured_on,
            average=average,
            seed=seed,
            log=out / LOG,
            progress=progress,
        )
        trained_on = json.dumps(source.describe())
        save_weights(
            out / WEIGHTS,
            model,
            value_range=bounds,
            trained_on=trained_on,
            overwrite=overwrite,
        )
    noisy = metrics.psnr_per_image(*measured_on) if measured_on else None
    noisy_global = metrics.psnr_global(*measured_on) if measured_on else None
    report.learning_curve(out / CURVE, result.history, noisy_psnr=noisy, overwrite=overwrite)
    summary = {
        "psnr_noisy": noisy,
        "psnr_denoised": result.final.get("psnr_per_image"),
        "psnr_noisy_global": noisy_global,
        "psnr_denoised_global": result.final.get("psnr_global"),
        "loss": result.history[-1]["loss"],
        "train_pairs": result.pictures,
        "train_seconds": result.seconds,
        "pictures_per_second": result.pictures_per_second,
        "weights": str(out / WEIGHTS),
        "log": str(out / LOG),
        "curve": str(out / CURVE),
    }
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _refuse_filled(out: Path, overwrite: bool) -> None:
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(f"{out}: holds files; name another folder or pass --overwrite")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file; name a folder for the result")


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers such as 48,96", param_hint="--channels"
        ) from None


def _refuse_odd_sizes(shape: tuple[int, int, int], multiple: int) -> None:
    if shape[1] % multiple or shape[2] % multiple:
        raise ValueError(
            f"training pictures are {shape[1]}x{shape[2]}; this network takes multiples of "
            f"{multiple}: choose another --crop or fewer --channels"
        )


def _optimizer(name: OptimizerName, model: Module, lr: float | None, momentum: float) -> Optimizer:
    from pydenoise import optim

    rate = DEFAULT_RATES[name] if lr is None else lr
    if name is OptimizerName.SGD:
        return optim.SGD(model, lr=rate, momentum=momentum)
    return (optim.Adam if name is OptimizerName.ADAM else optim.AdamW)(model, lr=rate)


def _objective(name: ObjectiveName, noise: str | None, seed: int) -> Objective:
    from pydenoise import objectives

    if name is ObjectiveName.NOISE2NOISE:
        return objectives.Noise2Noise()
    # the paper's strengths for real and for synthetic noise
    return objectives.Neighbor2Neighbor(strength=1 if noise is None else 2, seed=seed)


def _schedule(name: ScheduleName) -> Schedule:
    from pydenoise import optim

    return {
        ScheduleName.CONSTANT: optim.constant(),
        ScheduleName.STEP: optim.step(every=1 / 3, gamma=0.1),
        ScheduleName.COSINE: optim.cosine(),
        ScheduleName.RAMP: optim.ramp_down(),
    }[name]


def _show(summary: dict[str, Any]) -> None:
    if summary["psnr_noisy"] is not None:
        print_measures("on the pictures held out", summary)
    typer.echo(
        f"trained on {summary['train_pairs']:,} pairs in {summary['train_seconds']:.1f} s, "
        f"{summary['pictures_per_second']:,.0f} pictures per second, "
        f"loss {summary['loss']:.5f}"
    )
    typer.echo(f"written: {summary['weights']} {summary['log']} {summary['curve']}")
