"""Checkpoints of a training run: a folder that holds the newest ones and the best.

Each is two files of one name: its tensors, and JSON with all else, written last. The JSON's SHA-256
is over both, so that a checkpoint is whole or is none.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydenoise.atomic import new_file, part_files
from pydenoise.checkpoint import _sealed
from pydenoise.checkpoint._one import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    record_of,
    serialized,
)

_KEPT = 2
_LOCK = ".lock"
_NAME = re.compile(r"\d{9,18}\.(json|safetensors)")


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, so that a run goes on from an earlier one."""


class _Standing(NamedTuple):
    """What decides over whether a checkpoint is kept."""

    score: float | None
    ends_epoch: bool


class Checkpoints:
    """A run's folder of checkpoints.

    Parameters
    ----------
    folder : path
        Of this run alone; made when the first checkpoint is saved.
    every : float
        Seconds from one checkpoint to the next within an epoch; there is one after each epoch.

    Raises
    ------
    ValueError
        For a negative number of seconds.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: float = 60.0) -> None:
        if not every >= 0:
            raise ValueError(f"Checkpoints: every must be 0 seconds or more, got {every}")
        self.folder = Path(folder)
        self._every = every
        self._saved = time.monotonic()
        self._known: dict[int, _Standing] | None = None
        self._is_holding = False

    def is_due(self) -> bool:
        """Whether the newest is old enough for the next one."""
        return time.monotonic() - self._saved >= self._every

    def save(self, checkpoint: Checkpoint) -> Path:
        """Keep a checkpoint; of the others the one before, two that end an epoch, and the best.

        Returns
        -------
        Path
            Of its JSON.

        Raises
        ------
        OSError
            When it cannot be written; those that are there stay as they are.
        """
        path = self.path(checkpoint.step)
        content, tensors = serialized(checkpoint)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # never two files that do not belong together
            with new_file(path.with_suffix(".safetensors"), overwrite=True) as file:
                file.write(tensors)
            with new_file(path, overwrite=True) as file:
                file.write(content)
            standing = _Standing(checkpoint.score, checkpoint.ends_epoch)
            self._standings()[checkpoint.step] = standing
            self._drop_others(checkpoint.step)
        except OSError as error:
            with suppress(OSError):
                if not path.exists():
                    path.with_suffix(".safetensors").unlink()
            raise OSError(
                error.errno,
                f"{error.strerror}; the checkpoints before are whole: mend that and resume",
                str(path),
            ) from error
        self._saved = time.monotonic()
        return path

    def newest(self, *, ends_epoch: bool = False, before: int | None = None) -> Checkpoint | None:
        """The newest whole checkpoint; None where there is no checkpoint at all.

        Parameters
        ----------
        ends_epoch : bool
            Whether one within an epoch will not do.
        before : int, optional
            A step; only checkpoints of earlier ones count.

        Raises
        ------
        CheckpointError
            When there are some, and all are damaged.
        OSError
            When one cannot be read, which does not mean that it is damaged.

        Warns
        -----
        CheckpointWarning
            For each that is newer, and damaged.
        """
        found = None
        steps = [step for step in self._steps() if before is None or step < before]
        for step in sorted(steps, reverse=True):
            if found is not None:
                warnings.warn(f"{found}; going back to the one before", CheckpointWarning, 2)
            try:
                checkpoint = load_checkpoint(self.path(step))
                if checkpoint.step != step:
                    raise CheckpointError(f"{self.path(step)}: is one of step {checkpoint.step}")
            except CheckpointError as error:
                found = error
            else:
                if checkpoint.ends_epoch or not ends_epoch:
                    return checkpoint
                found = None
        if found is not None:
            raise CheckpointError(f"{found}; no whole checkpoint is left: start the run anew")
        return None

    def refuse_filled(self) -> None:
        """Raise a CheckpointError where there is any checkpoint, which a new run would remove."""
        if self._entries():
            raise CheckpointError(
                f"{self.folder}: holds the checkpoints of a run; resume it, or take another folder"
            )

    def best(self) -> tuple[int, float] | None:
        """Step and score of the best checkpoint that is there; None where nobody measured."""
        scored = [
            (standing.score, step)
            for step, standing in self._standings().items()
            if standing.score is not None and math.isfinite(standing.score)
        ]
        if not scored:
            return None
        score, step = max(scored)
        return step, score

    def clear(self) -> None:
        """Remove all checkpoints, of an earlier run.

        Raises
        ------
        CheckpointError
            When a file of such a name is none, before anything is removed.
        """
        paths = [self.path(step) for step in self._steps()]
        for path in paths:
            if not _is_ours(path):
                raise CheckpointError(f"{path}: is no checkpoint; move it, or take another folder")
        for path in paths:
            path.unlink()
            path.with_suffix(".safetensors").unlink(missing_ok=True)
        self._known = {}
        self._sweep()

    def is_empty(self) -> bool:
        """Whether there is no checkpoint."""
        return not self._steps()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Scope of the one run that may write here; may be entered again within.

        Raises
        ------
        CheckpointError
            When another process is in such a scope.
        OSError
            When the folder cannot be written to.
        """
        if self._is_holding:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / _LOCK
        with open(place, "ab") as lock:
            if _is_held(lock):
                raise CheckpointError(
                    f"{self.folder}: another process is training here; wait for it, or stop it"
                )
            self._is_holding = True
            try:
                yield
            finally:
                self._is_holding = False
                with suppress(OSError):
                    if [entry.name for entry in self.folder.iterdir()] == [_LOCK]:
                        place.unlink()
                        self.folder.rmdir()

    def path(self, step: int) -> Path:
        """Of the JSON of a step's checkpoint."""
        return self.folder / f"{step:09d}.json"

    def _steps(self) -> list[int]:
        names = [entry for entry in self._entries() if entry.suffix == ".json"]
        return [int(entry.stem) for entry in names]

    def _entries(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [
            entry
            for entry in self.folder.iterdir()
            if _NAME.fullmatch(entry.name) and entry.stem == f"{int(entry.stem):09d}"
        ]

    def _standings(self) -> dict[int, _Standing]:
        if self._known is None:
            self._known = {step: _standing(self.path(step)) for step in self._steps()}
        return self._known

    def _drop_others(self, newest: int) -> None:
        """All but the newest two, the newest two that end an epoch, and the best; what lies ahead
        of the newest is damaged, or of a run that went back."""
        known = self._standings()
        for step in [step for step in known if step > newest]:
            del known[step]
            self.path(step).unlink(missing_ok=True)
        kept = set(sorted(known)[-_KEPT:])
        kept |= set(sorted(step for step in known if known[step].ends_epoch)[-_KEPT:])
        best = self.best()
        if best is not None:
            kept.add(best[0])
        for step in known.keys() - kept:
            self.path(step).unlink(missing_ok=True)
            del known[step]
        self._sweep()

    def _sweep(self) -> None:
        """Remove tensors without JSON, and what a save left that was cut off."""
        for entry in self._entries():
            if entry.suffix != ".json" and not entry.with_suffix(".json").exists():
                entry.unlink(missing_ok=True)
        for part in part_files(self.folder):
            part.unlink(missing_ok=True)


def _is_held(lock: BinaryIO) -> bool:
    """Take the lock; True where another process has it. Where there are no locks nobody has."""
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        pass
    return False


def _standing(path: Path) -> _Standing:
    """What a checkpoint on the disk says; nothing where it says nothing that can be read."""
    try:
        record = record_of(path.read_bytes())
    except (_sealed.Damaged, OSError):
        return _Standing(None, False)
    score = record.get("score")
    return _Standing(score if isinstance(score, float) else None, record.get("ends_epoch") is True)


def _is_ours(path: Path) -> bool:
    """Whether a file begins as a checkpoint's JSON does, or is damaged so that it is nobody's."""
    content = path.read_bytes()
    if content.startswith(b"{" + _sealed.DIGEST_KEY):
        return True
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return True
    return False
