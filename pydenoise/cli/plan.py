"""Which picture goes where, known and checked before any work."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from pydenoise.cli.console import Failures
from pydenoise.cli.parts import WHOLE, Part


class Job(NamedTuple):
    """A picture, the file to write of it, and its place among all, as below a folder."""

    source: Path
    destination: Path
    place: Path


@dataclass(frozen=True)
class Target:
    """Where results go: `out` is a file, a folder, or None for beside each picture."""

    out: Path | None
    suffix: str
    overwrite: bool
    skip_existing: bool

    def destination(self, source: Path, place: Path, is_only_file: bool) -> Path:
        name = f"{source.stem}{self.suffix}{source.suffix}"
        if self.out is None:
            return source.with_name(name)
        if is_only_file and not self.out.is_dir():
            if not self.out.suffix and not self.out.exists():
                raise ValueError(
                    f"{self.out}: is no folder that is there, and no picture by its suffix; make "
                    f"the folder, or name a file such as {self.out}{source.suffix}"
                )
            return self.out
        return self.out / place.with_name(name)

    def is_earlier_result(self, found: Path, folder: Path) -> bool:
        """Whether a file found in a folder is what an earlier call wrote there."""
        if self.out is None:
            return bool(self.suffix) and found.stem.endswith(self.suffix)
        out = self.out.resolve()
        return folder.resolve() in out.parents and out in found.resolve().parents


@dataclass
class Plan:
    """The jobs of a batch, or of this process's part of it, how many the other parts have, and what
    lies beside the pictures and is left alone."""

    jobs: list[Job] = field(default_factory=list)
    others: int = 0
    foreign: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    existing: list[Path] = field(default_factory=list)


def plan(
    inputs: list[Path],
    target: Target,
    *,
    recursive: bool,
    failures: Failures,
    part: Part = WHOLE,
) -> Plan:
    """Open folders and patterns, name the results, and refuse those that would do harm.

    Parameters
    ----------
    inputs : list of Path
        Files, folders, and patterns such as `*.tif` or `**/*.tif` that no shell has expanded.
    target : Target
        Pictures keep their places below a folder, or below the part of a pattern that holds no
        wildcard; other files go right into `out`.
    recursive : bool
        Whether folders are opened at all depths.
    failures : Failures
        Decides whether the first file that is missing or in the way ends it all.
    part : Part
        Of the batch, for this process. What other processes have written of theirs meanwhile is no
        matter here; whether any two results would be one file, is for all.

    Raises
    ------
    OSError, ValueError
        When an input is missing or empty, or a result would hit an input, another result, a file
        that may not be replaced, or lie in a file; or where another part would take it for a
        picture.
    """
    result = Plan()
    sources: list[tuple[Path, Path]] = []
    for path in inputs:
        with failures.of(path):
            sources += _opened(path, target, recursive, result, failures)
    if not sources and not failures.found:
        raise ValueError(f"{inputs[0]}: holds nothing but results; expected pictures")
    is_only_file = [source for source, _ in sources] == inputs[:1] == inputs
    jobs = [
        Job(source, target.destination(source, place, is_only_file), place)
        for source, place in sources
    ]
    inputs_of = {job.source.resolve(): job.source for job in jobs}
    outputs: dict[Path, Path] = {}
    if part.of > 1:
        _refuse_growth(inputs, jobs, target)
    for number, job in enumerate(dict.fromkeys(jobs)):
        wrong = _collision(job, inputs_of, outputs)
        if not part.holds(number):
            if wrong and not failures.keep_going:
                raise ValueError(wrong)
            result.others += 1
            continue
        with failures.of(job.source):
            if wrong:
                raise ValueError(wrong)
            _refuse_harm(job.destination)
            if target.skip_existing and job.destination.exists():
                result.existing.append(job.destination)
            elif job.destination.exists() and not target.overwrite:
                raise FileExistsError(
                    f"{job.destination}: exists; choose another name, or pass --overwrite or "
                    "--skip-existing"
                )
            else:
                result.jobs.append(job)
    return result


def _opened(
    path: Path, target: Target, recursive: bool, plan: Plan, failures: Failures
) -> list[tuple[Path, Path]]:
    """The pictures that an input stands for, each with its place among them."""
    if path.is_dir():
        return _in_folder(path, target, recursive, plan, failures)
    if path.is_file():
        return [(path, Path(path.name))]
    if path.exists():
        raise ValueError(f"{path}: is a device or a pipe; expected a file or a folder")
    if not _is_pattern(str(path)):
        raise FileNotFoundError(f"{path}: no such file or folder; check the name")
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    files = [file for file in found if file.is_file()]
    if not files:
        raise FileNotFoundError(f"{path}: no file has such a name; check the pattern")
    return _without_results(files, _fixed(path), target, plan)


def _in_folder(
    folder: Path, target: Target, recursive: bool, plan: Plan, failures: Failures
) -> list[tuple[Path, Path]]:
    from pydenoise.data.images import list_pictures

    if recursive:
        pictures, others = _at_all_depths(folder, failures)
    else:
        pictures, others = list_pictures(folder)
    plan.foreign += others
    return _without_results(pictures, folder, target, plan)


def _without_results(
    pictures: list[Path], folder: Path, target: Target, plan: Plan
) -> list[tuple[Path, Path]]:
    results = [picture for picture in pictures if target.is_earlier_result(picture, folder)]
    plan.results += results
    return [(path, path.relative_to(folder)) for path in pictures if path not in set(results)]


def _fixed(path: Path) -> Path:
    """What of a pattern stands before the first wildcard; what is there, itself."""
    if path.exists():
        return path
    return Path(*takewhile(lambda part: not _is_pattern(part), path.parts))


def _is_pattern(name: str) -> bool:
    return any(letter in name for letter in "*?[")


def _at_all_depths(folder: Path, failures: Failures) -> tuple[list[Path], list[Path]]:
    """The pictures below a folder and its other files; linked folders are among these."""
    from pydenoise.data.images import is_picture

    pictures: list[Path] = []
    others: list[Path] = []
    folders = [folder]
    while folders:
        place = folders.pop()
        entries: list[Path] = []
        with failures.of(place):
            entries = sorted(place.iterdir())
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
                folders.append(entry)
            else:
                (pictures if is_picture(entry) else others).append(entry)
    if not pictures and not failures.found:
        raise FileNotFoundError(f"{folder}: holds no picture at any depth; check the name")
    return sorted(pictures), sorted(others)


def _collision(job: Job, inputs: dict[Path, Path], outputs: dict[Path, Path]) -> str | None:
    """What is wrong where a result would hit an input or another result; else it is noted."""
    source, destination, _ = job
    place = destination.resolve()
    if place in inputs:
        which = "the input" if place == source.resolve() else "one of the inputs"
        return f"{destination}: is {which}; choose another output"
    if place in outputs:
        return (
            f"{destination}: would be written for both {outputs[place]} and {source}; "
            "denoise them one by one"
        )
    outputs[place] = source
    return None


def _refuse_growth(inputs: list[Path], jobs: list[Job], target: Target) -> None:
    """No result may lie where another part, when it begins, would find it among the pictures."""
    above = {folder for job in jobs for folder in job.destination.resolve().parents}
    for path in inputs:
        folder = _fixed(path)
        if path.is_file() or folder.resolve() not in above:
            continue
        for job in jobs:
            is_within = folder.resolve() in job.destination.resolve().parents
            if is_within and not target.is_earlier_result(job.destination, folder):
                raise ValueError(
                    f"{job.destination}: lies among the pictures of {path}, where another part "
                    "would take it for one; choose another --out"
                )


def _refuse_harm(destination: Path) -> None:
    """No result may be a folder, or lie in a file or where nothing may be written."""
    for above in destination.parents:
        if above.exists() and not above.is_dir():
            raise NotADirectoryError(f"{above}: is a file; name a folder")
    if destination.is_dir():
        raise IsADirectoryError(f"{destination}: is a folder; name a file")
    folder = next(above for above in destination.parents if above.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: may not be written to; choose another folder")
