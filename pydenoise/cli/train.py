"""`pydenoise train DATA --out RUN`: weights from noisy pictures."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pydenoise.cli import machine, networks, results, sources
from pydenoise.cli.console import (
    NOISE_FORMS,
    Json,
    Overwrite,
    Seed,
    check_range,
    print_json,
    print_training,
    refuse,
    say,
    saying_warnings,
)
from pydenoise.cli.machine import Device, Threads
from pydenoise.cli.networks import LossName, NetworkName, ObjectiveName, OptimizerName, ScheduleName
from pydenoise.cli.progress import watching
from pydenoise.cli.results import CHECKPOINTS, LOG
from pydenoise.cli.signals import stoppable
from pydenoise.launch import launched

if TYPE_CHECKING:
    from pydenoise.checkpoint import Checkpoints
    from pydenoise.distributed import Ranks

_SHARDS = 8


def train(
    context: typer.Context,
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
    model_name: Annotated[
        NetworkName | None,
        typer.Option(
            "--model", help="The network; unet is that of the paper; autoencoder if omitted."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WEIGHTS",
            help="Learn on with a model.safetensors, a checkpoint's JSON, or builtin: the network "
            "that ships. A new one if omitted.",
        ),
    ] = None,
    loss: Annotated[
        LossName, typer.Option(help="What is minimised; auto: what the kind of noise asks for.")
    ] = LossName.AUTO,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, max=1e6, help="Fewer epochs if they would take longer."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    optimizer: Annotated[OptimizerName, typer.Option()] = OptimizerName.ADAM,
    lr: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Learning rate; if omitted for sgd 0.5, else 0.0005 with --from, 0.003 for a new "
            "autoencoder, 0.001 for others.",
        ),
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of sgd; 0.9 if omitted.")
    ] = None,
    schedule: Annotated[
        ScheduleName | None,
        typer.Option(help="How the rate falls; cosine for a new autoencoder, else ramp."),
    ] = None,
    average: Annotated[
        float,
        typer.Option(min=0, max=0.999999, help="Decay of the averaged weights; 0: none."),
    ] = 0.999,
    augment: Annotated[bool, typer.Option(help="Turn, mirror and swap pairs at random.")] = True,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels of the autoencoder's levels; 48,96 if omitted."),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(min=4, help="Pixels on a side of a crop; 32 for a new autoencoder, else 64."),
    ] = None,
    pairs_count: Annotated[
        int | None, typer.Option(min=1, help="Pairs per epoch; as many as fit if omitted.")
    ] = None,
    lazy: Annotated[
        bool | None,
        typer.Option(
            "--lazy/--no-lazy",
            help="Read a folder's pictures when they are needed, or all at once; if omitted, all "
            "where they take a quarter of the memory or less.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read pictures and cut batches ahead.")
    ] = 0,
    seed: Seed = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with a run that was cut off; all else as it was started."
        ),
    ] = False,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="From one checkpoint to the next within an epoch."
        ),
    ] = 60.0,
    rollbacks: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            help="Times that a run which diverges goes back to the epoch before, with half the "
            "learning rate.",
        ),
    ] = 0,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same weights to the bit for any number of processes under torchrun; slower.",
        ),
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="Parts of a batch with --deterministic, at least one a process; 8.",
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Where to train; auto: on a GPU where there is one.")
    ] = Device.AUTO,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a network on noisy pictures and write its weights, log and curve to RUN.

    Checkpoints are kept there, too: stopped by Ctrl-C or a kill, the same command with --resume
    goes on. Under torchrun, as torchrun --nproc-per-node=2 -m pydenoise train ..., processes of one
    machine or several train together.
    """
    if [data, pairs, burst, stack or None].count(None) != 3:
        raise typer.BadParameter("give one of DATA, --pairs A B, --burst DIR and --stack FILE")
    is_folder = data is not None and data.suffix != ".pkl"
    is_single = objective is ObjectiveName.NEIGHBOR2NEIGHBOR
    if noise is not None and not is_folder:
        raise typer.BadParameter("--noise is for a folder of pictures alone")
    if is_single and not is_folder:
        raise typer.BadParameter("--objective neighbor2neighbor is for a folder of pictures alone")
    cutting = {"range": value_range, "crop": crop, "pairs-count": pairs_count}
    if data is not None and not is_folder:
        refuse(cutting, "is not for the course's .pkl file, whose pairs are cut already")
    else:
        refuse({"validation": validation}, "is for the course's .pkl file alone")
    if not is_folder or (is_single and noise is None):
        refuse({"hold-out": hold_out}, "is for a folder of clean pictures with --noise alone")
    if lazy is not None and not is_folder:
        raise typer.BadParameter("--lazy and --no-lazy are for a folder of pictures alone")
    if optimizer is not OptimizerName.SGD:
        refuse({"momentum": momentum}, f"is for --optimizer sgd alone, not {optimizer}")
    check_range(value_range)
    if resume and overwrite:
        raise typer.BadParameter("give either --resume or --overwrite")
    if not deterministic:
        refuse({"shards": shards}, "is for --deterministic alone")
    if start is not None:
        refuse({"model": model_name, "channels": channels}, "is for a new network, without --from")
    model_name = model_name or NetworkName.AUTOENCODER
    widths = networks.level_channels(model_name, channels)
    recipe = networks.recipe(model_name, start is not None)
    crop = recipe.crop if crop is None else crop

    if launched() is not None:  # when a rank dies, the others' words are enough
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from pydenoise import distributed, training
    from pydenoise.checkpoint import Checkpoints
    from pydenoise.cli import learned
    from pydenoise.data import Augmented, parse

    where = machine.place(device)
    checkpoints = Checkpoints(out / CHECKPOINTS, every=checkpoint_every)
    with machine.threads(threads), distributed.connected(where) as ranks:
        _check_options(ranks, context.params)
        if ranks.has_begun:  # torchrun says the words of the first start once more
            resume, overwrite = True, False
        if ranks.is_first:
            results.refuse_filled(out, overwrite, resume)
        cut = sources.Cut(crop, pairs_count, seed)

        def is_lazy(folder: Path) -> bool:
            if lazy is not None:
                return lazy
            return bool(ranks.told(lambda: sources.is_large(folder)))

        if data is None:
            material = sources.captures(pairs, burst, stack or [], value_range, cut)
        elif not is_folder:
            material = sources.course(data, validation)
        else:
            taken = sources.singles if is_single else sources.photographs
            material = taken(data, noise, hold_out, value_range, cut, is_lazy)
        source, measured_on, bounds = material
        if augment:
            source = Augmented(source, transpose=source.shape[1] == source.shape[2], seed=seed)
        if start is None:
            model = networks.network(model_name, widths, source.channels, seed)
        else:
            model = learned.network(start, source, out)
        model.to(where)
        networks.refuse_odd_sizes(source.shape, model.size_multiple * (2 if is_single else 1))
        rule = networks.optimizer(optimizer, model, recipe, lr, momentum)
        task = networks.objective(objective, loss, None if noise is None else parse(noise), seed)
        if measured_on is None:
            say("no clean pictures to measure on: the log holds the loss alone")
        model.value_range = bounds
        keeping = _kept(out, checkpoints, resume, ranks) if ranks.is_first else nullcontext()
        with keeping, saying_warnings(), stoppable() as stop:
            try:
                with watching("training") if ranks.is_first else nullcontext() as progress:
                    result = training.train(
                        model,
                        source,
                        epochs=epochs,
                        batch_size=batch_size,
                        optimizer=rule,
                        schedule=networks.schedule(schedule or recipe.schedule),
                        objective=task,
                        validation=measured_on,
                        average=average,
                        seed=seed,
                        log=out / LOG,
                        progress=progress,
                        time_limit=None if minutes is None else 60 * minutes,
                        checkpoints=checkpoints,
                        resume=resume,
                        rollbacks=rollbacks,
                        stop=stop,
                        ranks=ranks,
                        shards=(shards or _SHARDS) if deterministic else 0,
                        workers=workers,
                    )
            except training.TrainingStopped as stopped:
                say(f"{stopped}; go on with: {_resuming(context.obj)}")
                raise typer.Exit(stop.exit_code) from None
            if not ranks.is_first:
                return
            summary = results.write(
                out,
                model,
                result,
                pairs=source,
                validation=measured_on,
                checkpoints=checkpoints,
                overwrite=overwrite or resume,
            )
    if as_json:
        print_json(summary)
    else:
        print_training(summary)


@contextmanager
def _kept(out: Path, checkpoints: Checkpoints, resume: bool, ranks: Ranks) -> Iterator[None]:
    """A run's folder, held by this process, and empty unless the run is one to resume."""
    from pydenoise.atomic import new_folder, part_files

    with new_folder(out), checkpoints.held():
        for part in part_files(out):  # of a run that was killed while it wrote
            part.unlink()
        if not resume:  # an earlier run's, which a new one must not continue
            checkpoints.clear()
            (out / LOG).unlink(missing_ok=True)
        elif checkpoints.is_empty():
            say("nothing to resume: the run starts")
        ranks.begin()
        yield


def _check_options(ranks: Ranks, options: dict[str, Any]) -> None:
    """Refuse options that differ between processes, but for those that are each one's own."""
    from pydenoise.distributed import RanksDiffer

    own = {"context", "data", "pairs", "burst", "stack", "validation", "start", "out", "threads",
           "workers"}  # fmt: skip
    said = {name: str(value) for name, value in options.items() if name not in own}
    first, *others = ranks.gathered(said)
    for rank, told in enumerate(others, 1):
        for name in said:
            if told[name] != first[name]:
                option = name.replace("_", "-")
                raise RanksDiffer(
                    f"rank {rank} was started with {option} {told[name]}, rank 0 with "
                    f"{first[name]}; give all processes the same options"
                )


def _resuming(words: list[str]) -> str:
    """The command line that goes on with the run of a command line."""
    kept = [word for word in words if word not in ("--overwrite", "--resume")]
    kept.insert(kept.index("train") + 1, "--resume")  # not behind a "--"
    program = "pydenoise" if launched() is None else "torchrun ... -m pydenoise"
    return f"{program} {shlex.join(kept)}"
