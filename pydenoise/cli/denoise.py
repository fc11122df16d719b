"""`pydenoise denoise IN... [-o OUT] [-m WEIGHTS]`: pictures in, pictures out."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from pydenoise.cli import machine
from pydenoise.cli.console import (
    Failures,
    Json,
    Overwrite,
    Turns,
    Weights,
    check_range,
    each_for_itself,
    print_json,
    say,
    tell,
)
from pydenoise.cli.machine import Device, Threads
from pydenoise.cli.measures import print_picture
from pydenoise.cli.methods import Method, MethodName, Recipe, Wishes, chosen
from pydenoise.cli.parts import leave_last, own_part
from pydenoise.cli.plan import Job, Plan, Target, plan
from pydenoise.cli.signals import unwinding
from pydenoise.cli.sources import note_skipped
from pydenoise.cli.work import Done, Reading, Task, performed, taken_for

RESULT = "_denoised"


def _bytes(text: str) -> int:
    """`2G`, `500M` or a plain number as bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r}; expected a size such as 2G or 500M")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def denoise(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN...", help="Pictures, folders of them, or quoted patterns.", readable=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file for one picture, a folder for several; beside each picture as "
            "PHOTO_denoised, in the same format, if omitted.",
        ),
    ] = None,
    method: Annotated[
        MethodName,
        typer.Option(
            help="builtin: a network that ships, for gray and RGB; zero-shot: learned from each "
            "picture alone; auto: the model if one is given, else builtin, and zero-shot for other "
            "channels."
        ),
    ] = MethodName.AUTO,
    model: Weights = None,
    recipe: Annotated[
        Recipe | None,
        typer.Option(
            help="Of zero-shot: fast, or the paper's, many times slower on large pictures; fast."
        ),
    ] = None,
    per_page: Annotated[
        bool, typer.Option("--per-page", help="Zero-shot learns every page of a stack anew.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Fixes every random choice of zero-shot; 0.")
    ] = None,
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the noise found to take out.")
    ] = 1.0,
    turns: Turns = None,
    value_range: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", metavar="LO HI", help="Numbers of the file that count as black and white."
        ),
    ] = None,
    shrink: Annotated[
        int,
        typer.Option(
            min=1,
            max=16,
            help="Average cells of so many pixels a side first, against noise that neighbours "
            "share; the result is as much smaller.",
        ),
    ] = 1,
    axes: Annotated[
        str | None,
        typer.Option(
            help="A letter for each dimension of a TIFF or .npy: Y and X, S for colours, any "
            "other counts pages, such as TYX; the file's own names if omitted."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="CLEAN", help="The clean picture, or a folder of them, to measure PSNR against."
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders at all depths, mirrored under OUT.")
    ] = False,
    suffix: Annotated[
        str | None,
        typer.Option(help=f"Put behind each name; {RESULT} without --out, else nothing."),
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out pictures whose result is there.")
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Go on behind a bad file; the exit code is then 1."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels of the largest picture to open; a small file can hold a huge one."
        ),
    ] = None,
    max_mem: Annotated[
        int | None,
        typer.Option(
            parser=_bytes,
            metavar="SIZE",
            help="Memory for a model to work in, such as 2G; of all workers together, each of "
            "which gets the same share.",
        ),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto is the CPU.")
    ] = Device.AUTO,
    threads: Threads = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes on this machine that share the pictures of a batch."
        ),
    ] = 1,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="K/N",
            help="The K-th of N parts of the batch alone, as a job of an array; torchrun's "
            "processes take one each by themselves.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take noise out of pictures: by a network that ships, one learned from them, or yours."""
    if suffix is None:
        suffix = RESULT if out is None else ""
    target = Target(out, suffix, overwrite, skip_existing)
    _check_usage(target, value_range)
    own = own_part(part, workers)
    wishes = Wishes(
        method=method,
        model=model,
        recipe=recipe,
        per_page=per_page,
        seed=seed,
        value_range=value_range,
        strength=strength,
        turns=turns,
        max_mem=max_mem,
        workers=workers,
        device=device,
    )
    way = chosen(wishes)
    failures = Failures(keep_going)
    with each_for_itself():
        batch = plan(inputs, target, recursive=recursive, failures=failures, part=own)
    if reference is not None and not reference.is_dir() and len(batch.jobs) + batch.others > 1:
        raise typer.BadParameter("--reference CLEAN is a folder where there are several pictures")
    reading = Reading(axes, max_pixels, shrink, reference)
    if not (dry_run or keep_going):
        for job in batch.jobs:  # all is known to be good before the first is written
            reading.checked(job, way)
    _note(batch, way, shrink)
    with each_for_itself(), unwinding():
        note_skipped(batch.existing, "existing result")
        if dry_run:
            _tell(batch, way, reading, failures, as_json)
        else:
            task = Task(wishes, reading, overwrite, threads)
            with (
                machine.threads(threads),
                closing(_results(batch.jobs, way, task, workers, failures)) as results,
            ):
                _do(batch, way, results, failures, as_json)
        if failures.found:
            say(f"{len(failures.found)} failed")
        if keep_going:
            leave_last(bool(failures.found))
    if failures.found:
        raise typer.Exit(1)


def _check_usage(target: Target, value_range: tuple[float, float] | None) -> None:
    if target.overwrite and target.skip_existing:
        raise typer.BadParameter("give either --overwrite or --skip-existing")
    if Path(f"x{target.suffix}").name != f"x{target.suffix}":
        raise typer.BadParameter(f"--suffix {target.suffix}: expected no folder in it")
    check_range(value_range)


def _results(
    jobs: list[Job], way: Method, task: Task, workers: int, failures: Failures
) -> Generator[Done]:
    if min(workers, len(jobs)) < 2:
        reading, overwrite = task.reading, task.overwrite
        return performed(jobs, way, reading, overwrite=overwrite, failures=failures)
    from pydenoise.cli.workers import shared

    return shared(jobs, task, workers, failures)


def _do(
    batch: Plan, way: Method, results: Iterable[Done], failures: Failures, as_json: bool
) -> None:
    began = time.perf_counter()
    finished = []
    for done in results:
        finished.append(done)
        for warning in done.measures.diagnosis.warnings:
            say(f"warning: {done.job.source}: {warning}")
        if not as_json:
            print_picture(str(done.job.destination), done.measures)
    if as_json:
        seconds = time.perf_counter() - began
        print_json(
            {
                "method": way.name,
                "reason": way.reason,
                "outputs": [str(done.job.destination) for done in finished],
                "files": [done.as_dict() for done in finished],
                "failed": failures.found,
                **_left_alone(batch),
                "seconds": seconds,
                "megapixels_per_second": sum(done.pixels for done in finished) / seconds / 1e6,
            }
        )


def _tell(batch: Plan, way: Method, reading: Reading, failures: Failures, as_json: bool) -> None:
    """What would be done with every file."""
    told = []
    for job in batch.jobs:
        with failures.of(job.source):
            picture = reading.checked(job, way)[0]
            taken = taken_for(job, picture, way)
            files = {"input": str(job.source), "output": str(job.destination)}
            told.append({**files, "method": taken.name, "turns": taken.turns})
            pages, height, width, channels = picture.samples.shape
            if not as_json:
                size = f"{pages} x {width}x{height}" if pages > 1 else f"{width}x{height}"
                tell(f"{job.source} -> {job.destination} ({size}, {channels} channels)")
    if as_json:
        print_json(
            {
                "method": way.name,
                "reason": way.reason,
                "files": told,
                "failed": failures.found,
                **_left_alone(batch),
            }
        )


def _note(batch: Plan, way: Method, shrink: int) -> None:
    say(f"method: {way.name}, {way.reason}")
    if shrink > 1:
        say(f"shrink: results have 1/{shrink} of the width and height")
    note_skipped(batch.foreign)
    note_skipped(batch.results, "earlier result")


def _left_alone(batch: Plan) -> dict[str, list[str]]:
    kinds = {"skipped": batch.foreign, "earlier": batch.results, "existing": batch.existing}
    return {kind: [str(path) for path in paths] for kind, paths in kinds.items()}
