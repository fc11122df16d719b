"""How far a training run is, and what there is to tell of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from pydenoise.atomic import new_file

Record = dict[str, Any]

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True)
class TrainingResult:
    """What a run of `train` left behind, beside the trained model itself.

    Attributes
    ----------
    history : list of dict
        One record per epoch, the lines of the log: `epoch`, `step`, `lr`, `loss` (mean over the
        epoch), `psnr_per_image`, `psnr_global` (None where nothing was measured),
        `pictures_per_second`, `seconds` since the start.
    seconds : float
        Wall-clock time of the whole run, validation included; also that before it was stopped,
        where it was resumed.
    pictures : int
        Pairs seen, repetitions counted.
    pictures_per_second : float
        Pairs per second of training, validation excluded.
    final : dict
        The last validation, `psnr_per_image` and `psnr_global`; empty without validation pictures.
    """

    history: list[Record] = field(repr=False)
    seconds: float
    pictures: int
    pictures_per_second: float
    final: dict[str, float]


class Plan:
    """How many steps the run has, and how far in the schedule each one is."""

    def __init__(self, steps: int) -> None:
        self.steps = self._wanted = steps
        self._bend = (0, 0.0)

    def progress(self, step: int) -> float:
        """The share of the run that lies behind before a step, counted from 0."""
        since, progress = self._bend
        return progress + (1 - progress) * (step - since) / (self.steps - since)

    def fit(self, step: int, seconds: float, limit: float) -> None:
        """Keep the steps that the limit leaves room for at the speed so far.

        Steps taken away while the machine was slower come back.
        """
        affordable = step + max(0, int((limit - seconds) * step / seconds))
        steps = min(self._wanted, affordable)
        if step < self.steps != steps:
            self._bend = (step, self.progress(step))
            self.steps = steps

    def state(self) -> Record:
        """For a checkpoint."""
        return {"steps": self.steps, "bend": list(self._bend)}

    def restore(self, state: Record) -> None:
        """Be as when `state` was taken."""
        self.steps = int(state["steps"])
        since, progress = state["bend"]
        self._bend = int(since), float(progress)


class Diary:
    """Times, losses and measures of the run: for the log, for the watcher, for the result."""

    def __init__(
        self,
        plan: Plan,
        epochs: int,
        log: str | PathLike[str] | None,
        progress: Callable[[Record], None] | None,
    ) -> None:
        self._plan = plan
        self._epochs = epochs
        self._log = None if log is None else Path(log)
        self._progress = progress
        self._history: list[Record] = []
        self.measures: dict[str, float] = {}
        self._log_start = 0
        if self._log:
            self._log.touch()
            self._log_start = self._log.stat().st_size
        self._epoch = 1
        self._step = self._pictures = self._epoch_pictures = 0
        self._lr = self._epoch_loss = self._training_seconds = 0.0
        self._began = self._previous = self._reported = time.perf_counter()

    def seconds(self) -> float:
        """Since the start, validation included."""
        return time.perf_counter() - self._began

    def step(self, step: int, lr: float, loss: float, pictures: int) -> None:
        """A step has been taken."""
        now = time.perf_counter()
        self._training_seconds += now - self._previous
        self._previous = now
        self._step, self._lr = step, lr
        self._pictures += pictures
        self._epoch_pictures += pictures
        self._epoch_loss += loss * pictures
        is_due = now - self._reported >= _SECONDS_BETWEEN_REPORTS
        if self._progress and is_due and step < self._plan.steps:  # the end is told of once
            self._reported = now
            self._progress(self._record() | self._outlook())

    def pause(self) -> None:
        """What has been done since the last step is none of training."""
        self._previous = time.perf_counter()

    def end_epoch(self) -> None:
        """An epoch is over, and measured if it is to be."""
        record = self._record()
        self._history.append(record)
        if self._log:
            try:
                with open(self._log, "a", encoding="utf-8") as file:
                    file.write(_line(record))
            except OSError as error:
                error.filename = str(self._log)  # which a full disk does not name
                raise
        if self._progress:
            self._progress(record | self._outlook())
        self._epoch += 1
        self._epoch_pictures, self._epoch_loss = 0, 0.0
        self.pause()

    def result(self) -> TrainingResult:
        """The run is over."""
        return TrainingResult(
            history=self._history,
            seconds=self.seconds(),
            pictures=self._pictures,
            pictures_per_second=self._speed(),
            final=self.measures,
        )

    def state(self) -> Record:
        """For a checkpoint."""
        return {
            "history": self._history,
            "measures": self.measures,
            "log": self._log and str(self._log.resolve()),
            "log_start": self._log_start,
            "lr": self._lr,
            "pictures": self._pictures,
            "epoch_pictures": self._epoch_pictures,
            "epoch_loss": self._epoch_loss,
            "training_seconds": self._training_seconds,
            "seconds": self.seconds(),
        }

    def restore(self, step: int, state: Record) -> None:
        """Be as when `state` was taken, before which so many steps lay; the log as well."""
        self._history = list(state["history"])
        self.measures = dict(state["measures"])
        self._epoch = len(self._history) + 1
        self._step, self._lr = step, float(state["lr"])
        self._pictures = int(state["pictures"])
        self._epoch_pictures = int(state["epoch_pictures"])
        self._epoch_loss = float(state["epoch_loss"])
        self._training_seconds = float(state["training_seconds"])
        self.began_before(float(state["seconds"]))
        self.pause()
        if self._log:
            self._rewrite_log(state["log"], int(state["log_start"]))

    def began_before(self, seconds: float) -> None:
        """So long ago the run began."""
        self._began = time.perf_counter() - seconds

    def _rewrite_log(self, path: str, start: int) -> None:
        """Our lines up to now, where they began; the lines of other runs stay."""
        assert self._log is not None
        content = self._log.read_bytes()
        ours = [_line(record).encode() for record in self._history]
        is_moved = bool(ours) and content.startswith(ours[0], start)
        if is_moved or path == str(self._log.resolve()):
            self._log_start = start
        before, behind = content[: self._log_start], content[self._log_start :]
        others: list[bytes] = []
        for epoch, line in enumerate(behind.splitlines(keepends=True), 1):
            is_taken_back = not others and _epoch_of(line) == epoch
            if line.endswith(b"\n") and not is_taken_back and line not in ours:
                others.append(line)
        with new_file(self._log, overwrite=True) as file:
            file.write(b"".join([before, *ours, *others]))

    def _speed(self) -> float:
        return self._pictures / self._training_seconds if self._training_seconds else 0.0

    def _record(self) -> Record:
        return {
            "epoch": self._epoch,
            "step": self._step,
            "lr": self._lr,
            "loss": self._epoch_loss / self._epoch_pictures,
            "psnr_per_image": self.measures.get("psnr_per_image"),
            "psnr_global": self.measures.get("psnr_global"),
            "pictures_per_second": self._speed(),
            "seconds": self.seconds(),
        }

    def _outlook(self) -> Record:
        left = (self._plan.steps - self._step) * self._training_seconds / self._step
        return {"steps": self._plan.steps, "epochs": self._epochs, "seconds_left": left}


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"


def _epoch_of(line: bytes) -> int | None:
    """Of a line of a log; None of anything else."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record.get("epoch") if isinstance(record, dict) else None
