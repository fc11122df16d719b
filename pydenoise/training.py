"""The training loop: shuffled batches, schedule, weight averaging, validation, log.

It decides no loss (that is the objective), no update rule (the optimizer) and no pictures (the
pairs), and it runs without autograd. It prints nothing: whoever wants to watch hands in `progress`.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pydenoise import playback
from pydenoise.inference import denoise, evaluate
from pydenoise.nn import Module
from pydenoise.objectives import Noise2Noise, Objective
from pydenoise.optim import SGD, Adam, AdamW, Optimizer, Schedule, constant
from pydenoise.steps import Average, Steps, TrainingDiverged

if TYPE_CHECKING:
    from pydenoise.data import PairSource

__all__ = ["Record", "TrainingDiverged", "TrainingResult", "train"]

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
        Wall-clock time of the whole call, validation included.
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


def train(
    model: Module,
    pairs: PairSource,
    *,
    epochs: int,
    batch_size: int = 16,
    optimizer: Optimizer,
    schedule: Schedule | None = None,
    objective: Objective | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    average: float = 0.0,
    seed: int = 0,
    log: str | PathLike[str] | None = None,
    progress: Callable[[Record], None] | None = None,
    time_limit: float | None = None,
) -> TrainingResult:
    """Train a model on pairs of noisy pictures, in place.

    Parameters
    ----------
    model : Module
        Trained in place. At the end it holds the averaged weights where `average` is not 0.
    pairs : PairSource
        Where the pairs come from, see `pydenoise.data`.
    epochs : int
        Times every pair is seen, at least 1.
    batch_size : int
        Pairs per step. The last batch of an epoch may be smaller, no pair is left out.
    optimizer : Optimizer
        Made over the parameters of `model`; its `lr` at the start is the base rate.
    schedule : Schedule, optional
        Factor on the base rate as a function of progress in [0, 1): `pydenoise.optim.cosine()`.
        Constant if omitted.
    objective : Objective, optional
        What one step minimises; the mean squared error to the other noisy picture if omitted.
    validation : (noisy, clean), optional
        Float tensors (N, C, H, W) in [0, 1], measured after every epoch.
    average : float
        Decay of an exponential moving average of the weights, in [0, 1); 0 keeps none. 0.999 is
        usual. Validation and the trained model then use the average.
    seed : int
        Fixes the order of the pairs: a permutation that depends on `seed` and the epoch alone.
    log : path, optional
        A file that gets one JSON line per epoch, appended.
    progress : callable, optional
        Called about ten times a second, and at every epoch's end, with a dict: `step`, `steps`,
        `epoch`, `epochs`, `lr`, `loss` (mean over the epoch so far), `pictures_per_second`,
        `seconds`, `seconds_left`, and the last measured `psnr_per_image` and `psnr_global`.
    time_limit : float, optional
        Seconds. When the speed measured at an epoch's end says that the run would take longer, the
        rest of it is shortened to fit and the schedule runs to its end over fewer steps. A run
        that stays within the limit does not depend on the clock.

    Returns
    -------
    TrainingResult
        History, times and the final measures.

    Raises
    ------
    TypeError, ValueError
        For an empty source, a model that predicts noise, or an argument outside its range, before
        anything is trained.
    TrainingDiverged
        When the loss or a weight is no longer finite, or the trained model makes numbers of a
        batch that are not: no loss has seen the weights of the last step.

    Notes
    -----
    After step t the average is `a <- d a + (1 - d) w` with `d = min(average, (1 + t) / (10 + t))`,
    so that the first, random weights do not linger in it.

    Whatever exception leaves this function, the layers keep nothing of the forward passes under
    way; the weights are then those of the last whole step, not averaged.
    """
    if model.predicts_noise:
        raise ValueError(
            "train: pairs teach pictures, the model is one that predicts noise; take "
            "models.autoencoder, models.unet or models.small_unet"
        )
    _check(len(pairs), epochs, batch_size, optimizer.lr, average, time_limit)
    objective = objective or Noise2Noise()
    schedule = schedule or constant()
    base_lr = optimizer.lr
    weights = model.flatten().data
    if validation is not None:
        validation = validation[0].to(weights.device), validation[1].to(weights.device)
    averaged = Average(weights, average)
    plan = _Plan(epochs * math.ceil(len(pairs) / batch_size))
    diary = _Diary(plan, epochs, log, progress)
    step = 0

    def rate(step: int) -> float:
        return base_lr * schedule(plan.progress(step))

    model.train()
    model.zero_grad()
    steps = _steps(model, pairs, objective, optimizer, batch_size, seed, averaged)
    try:
        for epoch in range(epochs):
            objective.begin(epoch, plan.progress(step))
            with closing(steps.epoch(epoch, step, plan.steps - step, rate)) as taken:
                for lr, loss, pictures in taken:
                    step += 1
                    diary.step(step, lr, loss, pictures)
            if validation is not None:
                latest = averaged.exchange()
                try:
                    diary.measures = evaluate(model, *validation)
                finally:
                    weights.copy_(latest)
            diary.end_epoch()
            if time_limit is not None:
                plan.fit(step, diary.seconds(), time_limit)
            if step == plan.steps:
                break
        latest = averaged.exchange()
        unseen, _ = pairs.batch(np.arange(min(batch_size, len(pairs))), epochs)
        if not denoise(model, unseen.to(weights.device)).isfinite().all():
            weights.copy_(latest)
            raise TrainingDiverged("the result is not finite", step, lr)
    except BaseException:
        model.zero_grad()
        raise
    finally:
        optimizer.lr = base_lr
    return diary.result()


def _steps(
    model: Module, pairs: PairSource, objective: Objective, optimizer: Optimizer, *rest: Any
) -> Steps:
    """Whole steps as CUDA graphs where nothing in them is of the user's and the pairs fit into the
    device's memory; else one by one."""
    device = next(model.parameters()).data.device
    given = model, pairs, objective, optimizer, *rest
    if (
        type(objective) is Noise2Noise
        and type(optimizer) in (SGD, Adam, AdamW)
        and playback.can_capture(model, objective.loss, device)
    ):
        try:
            resident = pairs.resident(device)
        except torch.OutOfMemoryError:
            warnings.warn(
                f"train: the pairs do not fit into the memory of {device}; "
                "batches come from main memory, which is slower",
                RuntimeWarning,
                stacklevel=3,
            )
            resident = None
        if resident is not None:
            from pydenoise.device_steps import DeviceSteps

            return DeviceSteps(*given).reside(resident)
    return Steps(*given)


def _check(
    pairs: int,
    epochs: int,
    batch_size: int,
    lr: float,
    average: float,
    time_limit: float | None,
) -> None:
    if pairs < 1:
        raise ValueError("train: the source of pairs is empty")
    if not isinstance(epochs, Integral):
        raise TypeError(f"train: the number of epochs must be a whole number, got {epochs!r}")
    if epochs < 1:
        raise ValueError(f"train: epochs must be at least 1, got {epochs}")
    if batch_size < 1:
        raise ValueError(f"train: batch_size must be at least 1, got {batch_size}")
    if not math.isfinite(lr):
        raise ValueError(f"train: the optimizer's lr must be a finite number, got {lr}")
    if not 0 <= average < 1:
        raise ValueError(f"train: average must lie in [0, 1), got {average}")
    if time_limit is not None and time_limit <= 0:
        raise ValueError(f"train: time_limit must be positive, got {time_limit}")


class _Plan:
    """How many steps the run has, and how far in the schedule each one is."""

    def __init__(self, steps: int) -> None:
        self.steps = self._wanted = steps
        self._bend = (0, 0.0)

    def progress(self, step: int) -> float:
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


class _Diary:
    """Times, losses and measures of the run: for the log, for the watcher, for the result."""

    def __init__(
        self,
        plan: _Plan,
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
        if self._log:
            self._log.touch()
        self._epoch = 1
        self._step = self._pictures = self._epoch_pictures = 0
        self._lr = self._epoch_loss = self._training_seconds = 0.0
        self._began = self._previous = self._reported = time.perf_counter()

    def seconds(self) -> float:
        """Since the start, validation included."""
        return time.perf_counter() - self._began

    def step(self, step: int, lr: float, loss: float, pictures: int) -> None:
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

    def end_epoch(self) -> None:
        record = self._record()
        self._history.append(record)
        if self._log:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self._progress:
            self._progress(record | self._outlook())
        self._epoch += 1
        self._epoch_pictures, self._epoch_loss = 0, 0.0
        self._previous = time.perf_counter()

    def result(self) -> TrainingResult:
        return TrainingResult(
            history=self._history,
            seconds=self.seconds(),
            pictures=self._pictures,
            pictures_per_second=self._speed(),
            final=self.measures,
        )

    def _speed(self) -> float:
        return self._pictures / self._training_seconds

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
