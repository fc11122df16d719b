"""The work of `pydenoise denoise`: pictures read, denoised, measured and written, one by one."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydenoise.cli.console import Failures, say, saying_warnings
from pydenoise.cli.measures import Measures, check_reference, measure, reference_of
from pydenoise.cli.methods import Method, MethodName, Wishes
from pydenoise.cli.plan import Job
from pydenoise.cli.progress import Batch, Watcher

if TYPE_CHECKING:
    from pydenoise.data import Picture


@dataclass(frozen=True)
class Reading:
    """How picture files are taken."""

    axes: str | None
    max_pixels: int | None
    shrink: int
    reference: Path | None

    def picture(self, path: Path) -> Picture:
        """A file's picture, shrunk if it is to be."""
        from pydenoise.data import read_picture

        picture = read_picture(path, axes=self.axes, max_pixels=self.max_pixels)
        if self.shrink == 1:
            return picture
        with naming(path):
            return picture.shrunk(self.shrink)

    def checked(self, job: Job, method: Method) -> tuple[Picture, Picture | None]:
        """A job's picture, which the method takes and of which a result can be written, and the
        clean one if there is any."""
        from pydenoise.data import check_writable

        picture = self.picture(job.source)
        check_writable(job.destination, picture)
        with naming(job.source):
            method.suited(picture).check(picture)
        if self.reference is None:
            return picture, None
        clean = self.picture(reference_of(job, self.reference))
        with naming(job.source):
            check_reference(picture, clean)
        return picture, clean


class Task(NamedTuple):
    """What is the same for all jobs, for a process of its own to do them."""

    wishes: Wishes
    reading: Reading
    overwrite: bool
    threads: int | None


class Done(NamedTuple):
    """A job that is done, and what was warned of meanwhile beside its `measures`."""

    job: Job
    method: MethodName
    turns: int
    measures: Measures
    warnings: list[str]
    pixels: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "input": str(self.job.source),
            "output": str(self.job.destination),
            "method": self.method,
            "turns": self.turns,
            "seconds": self.seconds,
            "warnings": self.warnings,
            "measures": self.measures.as_dict(),
        }


def performed(
    jobs: list[Job], method: Method, reading: Reading, *, overwrite: bool, failures: Failures
) -> Generator[Done]:
    """Do one job after the other; the screen is free whenever one is handed out."""
    progress = Batch(len(jobs))
    for job in jobs:
        done = None
        with failures.of(job.source), progress.watching(str(job.source)) as watcher:
            done = perform(job, method, reading, watcher, overwrite=overwrite)
        if done is not None:
            yield done


def perform(
    job: Job, method: Method, reading: Reading, watcher: Watcher, *, overwrite: bool
) -> Done:
    """Do a job."""
    began = time.perf_counter()
    picture, clean = reading.checked(job, method)
    taken = taken_for(job, picture, method)
    with naming(job.source), saying_warnings(f"{job.source}: ") as found:
        denoised = taken.denoise(picture, progress=watcher)
        measures = measure(picture, denoised, clean)
    with saying_warnings() as lost:
        _write(job.destination, denoised, overwrite)
    seconds = time.perf_counter() - began
    return Done(
        job=job,
        method=taken.name,
        turns=taken.turns,
        measures=measures,
        warnings=found + lost,
        pixels=picture.samples[..., 0].size,
        seconds=seconds,
    )


def taken_for(job: Job, picture: Picture, method: Method) -> Method:
    """The method of a job's picture, told where it is not that of the batch."""
    taken = method.suited(picture)
    if taken is not method:
        say(f"{job.source}: method: {taken.name}, {taken.reason}")
    return taken


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's name before what is wrong with its picture."""
    from pydenoise.data import ImageError

    try:
        yield
    except ImageError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        kind = RuntimeError if isinstance(error, RuntimeError) else ValueError
        raise kind(f"{path}: {error}") from error


def _write(destination: Path, picture: Picture, overwrite: bool) -> None:
    from pydenoise.data import write_picture

    destination.parent.mkdir(parents=True, exist_ok=True)
    write_picture(destination, picture, overwrite=overwrite)
