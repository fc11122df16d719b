"""The training loop: shuffled batches, schedule, weight averaging, validation, log.

It decides no loss (that is the objective), no update rule (the optimizer) and no pictures (the
pairs), and it runs without autograd. It prints nothing: whoever wants to watch hands in `progress`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pydenoise.data import generator
from pydenoise.inference import evaluate
from pydenoise.nn import Module
from pydenoise.objectives import Noise2Noise
from pydenoise.optim import Optimizer, Schedule, constant

if TYPE_CHECKING:
    from pydenoise.data import PairSource

Record = dict[str, Any]

_BATCHES_AHEAD = 3
_SECONDS_BETWEEN_REPORTS = 0.1


class TrainingDiverged(RuntimeError):
    """The loss or the weights stopped being finite numbers.

    Attributes
    ----------
    step : int
        The step, counted from 1, after which it was seen.
    lr : float
        The learning rate of that step.
    """

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(
            f"training diverged: {what} at step {step} with lr {lr:g}; "
            f"start again with a smaller rate, {lr / 4:.2g} say, and look for NaN in the data"
        )
        self.step = step
        self.lr = lr


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
    objective: Noise2Noise | None = None,
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
    objective : Noise2Noise, optional
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
        For an empty source or an argument outside its range, before anything is trained.
    TrainingDiverged
        When the loss or a weight is no longer finite.

    Notes
    -----
    After step t the average is `a <- d a + (1 - d) w` with `d = min(average, (1 + t) / (10 + t))`,
    so that the first, random weights do not linger in it.

    Whatever exception leaves this function, the layers keep nothing of the forward passes under
    way; the weights are then those of the last whole step, not averaged.
    """
    _check(len(pairs), epochs, batch_size, optimizer.lr, average, time_limit)
    objective = objective or Noise2Noise()
    schedule = schedule or constant()
    base_lr = optimizer.lr
    weights = model.flatten().data
    averaged = _Average(weights, average)
    plan = _Plan(epochs * math.ceil(len(pairs) / batch_size))
    diary = _Diary(plan, epochs, log, progress)
    step = 0
    model.train()
    model.zero_grad()
    try:
        for epoch in range(epochs):
            with closing(_batches(pairs, batch_size, seed, epoch)) as batches:
                for source, target in islice(batches, plan.steps - step):
                    optimizer.lr = lr = base_lr * schedule(plan.progress(step))
                    loss = objective.step(model, source, target)
                    step += 1
                    if not math.isfinite(loss):
                        raise TrainingDiverged(f"the loss is {loss}", step, lr)
                    optimizer.step()
                    optimizer.zero_grad()
                    if not math.isfinite(weights.sum().item()):
                        raise TrainingDiverged("a weight is not finite", step, lr)
                    averaged.update(step)
                    diary.step(step, lr, loss, len(source))
            if validation is not None:
                with averaged.in_use():
                    diary.measures = evaluate(model, *validation)
            diary.end_epoch()
            if time_limit is not None:
                plan.fit(step, diary.seconds(), time_limit)
            if step == plan.steps:
                break
    except BaseException:
        model.zero_grad()
        raise
    finally:
        optimizer.lr = base_lr
    averaged.adopt()
    return diary.result()


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


def _batches(
    pairs: PairSource, batch_size: int, seed: int, epoch: int
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """One epoch's batches in shuffled order, cut ahead by a thread where a core is left for it.

    A batch depends on its indices and the epoch alone, so the thread changes no number. Without a
    core of its own it would hold up the kernels, whose threads wait for each other. Closing the
    generator waits for the batch under way and drops the rest.
    """
    order = generator(seed, epoch, 0, "order").permutation(len(pairs))
    parts = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    if torch.get_num_threads() >= (os.cpu_count() or 1):
        yield from (pairs.batch(part, epoch) for part in parts)
        return
    ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="pydenoise-batches") as worker:
        try:
            for part in parts:
                ahead.append(worker.submit(pairs.batch, part, epoch))
                if len(ahead) > _BATCHES_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            worker.shutdown(wait=False, cancel_futures=True)


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


class _Average:
    """Exponential moving average of the flat weights; a decay of 0 keeps none."""

    def __init__(self, weights: Tensor, decay: float) -> None:
        self._weights = weights
        self._decay = decay
        self._average = weights.clone() if decay else weights

    def update(self, step: int) -> None:
        if self._decay:
            decay = min(self._decay, (1 + step) / (10 + step))
            self._average.lerp_(self._weights, 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The averaged weights stand in the model inside the block."""
        latest = self._weights.clone()
        self.adopt()
        try:
            yield
        finally:
            self._weights.copy_(latest)

    def adopt(self) -> None:
        self._weights.copy_(self._average)


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
        if self._progress and now - self._reported >= _SECONDS_BETWEEN_REPORTS:
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
