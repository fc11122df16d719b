"""A training run: epochs of steps, measured, kept in checkpoints, gone on from one.

What it computes is a function of its configuration alone, wherever it was cut off and resumed:
orders, crops and noise depend on (seed, epoch, index), all else is in the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pydenoise import ops
from pydenoise.checkpoint import Checkpoint, CheckpointError, Checkpoints, CheckpointWarning
from pydenoise.diary import Diary, Plan, TrainingResult
from pydenoise.divergence import TrainingDiverged
from pydenoise.inference import denoise, evaluate
from pydenoise.nn import Module
from pydenoise.objectives import Objective
from pydenoise.optim import Optimizer, Schedule
from pydenoise.steps import Average, Steps

if TYPE_CHECKING:
    from pydenoise.data import PairSource

_SCHEDULE_LOOKED_AT = 16


class TrainingStopped(RuntimeError):
    """The run was asked to stop, and can go on from where it is.

    Attributes
    ----------
    step, steps : int
        Steps taken, and those of the whole run.
    """

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"training stopped after step {step} of {steps}")
        self.step, self.steps = step, steps

    def __reduce__(self) -> tuple[type[TrainingStopped], tuple[int, int]]:
        """Made again from what it was made of, so that it travels between processes."""
        return type(self), (self.step, self.steps)


@dataclass(frozen=True)
class Terms:
    """What a run is about; `pydenoise.training.train` tells of each."""

    model: Module
    pairs: PairSource
    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    objective: Objective
    validation: tuple[Tensor, Tensor] | None
    average: float
    seed: int
    time_limit: float | None
    rollbacks: int

    @property
    def steps_of_epoch(self) -> int:
        """The last one may see fewer pairs."""
        return math.ceil(len(self.pairs) / self.batch_size)


class Run:
    """A training run and where it is.

    Parameters
    ----------
    terms : Terms
        Its optimizer's rate is the base rate.
    steps : Steps
        How single steps are taken.
    averaged : Average
        Follows the weights.
    plan, diary : Plan, Diary
        Of the run.
    checkpoints : Checkpoints, optional
    stop : callable, optional
    """

    def __init__(
        self,
        terms: Terms,
        steps: Steps,
        averaged: Average,
        plan: Plan,
        diary: Diary,
        checkpoints: Checkpoints | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self._terms, self._steps, self._averaged = terms, steps, averaged
        self._plan, self._diary, self._checkpoints = plan, diary, checkpoints
        self._stop = stop
        self._weights = terms.model.flatten().data
        self._base_lr = terms.optimizer.lr
        self._factor = 1.0
        self._rollbacks = 0
        self._step = self._epoch = self._epoch_start = 0
        self._configuration = _configuration(terms) if checkpoints else {}

    def resume(self) -> None:
        """Be where the newest checkpoint was taken, if there is one."""
        assert self._checkpoints is not None
        checkpoint = self._checkpoints.newest()
        if checkpoint is None:
            return
        path = self._checkpoints.path(checkpoint.step)
        differing = _differences(checkpoint.configuration, self._configuration)
        if differing:
            raise CheckpointError(
                f"{path}: is of another run ({'; '.join(differing)}); resume with what it was "
                "started with, or start anew in another folder"
            )
        others = _differences(checkpoint.versions, _versions(self._weights))
        if others:
            warnings.warn(
                f"{path}: was computed otherwise ({'; '.join(others)}); the run goes on, but not "
                "to the same bits",
                CheckpointWarning,
                stacklevel=3,
            )
        self._restore(checkpoint)

    def to_end(self) -> TrainingResult:
        """All steps that are left; the model has then the averaged weights."""
        terms = self._terms
        try:
            if self._checkpoints is not None and self._checkpoints.is_empty():
                self._save(None)
            while self._step < self._plan.steps:
                try:
                    self._epochs()
                except TrainingDiverged:
                    if self._rollbacks == terms.rollbacks:
                        raise
                    self._roll_back()
            return self._finished()
        except BaseException:
            terms.model.zero_grad()
            raise
        finally:
            terms.optimizer.lr = self._base_lr

    def _epochs(self) -> None:
        while self._step < self._plan.steps:
            if self._stop is not None and self._stop():
                raise TrainingStopped(self._step, self._plan.steps)
            self._take_steps()
            self._end_epoch()

    def _take_steps(self) -> None:
        """Those of the epoch that are left."""
        taken = self._step - self._epoch_start
        self._terms.objective.begin(self._epoch, self._plan.progress(self._epoch_start), taken)
        end = min(self._epoch_start + self._terms.steps_of_epoch, self._plan.steps)
        left = end - self._step
        with closing(self._steps.epoch(self._epoch, self._step, taken, left, self._rate)) as todo:
            for done in todo:
                self._step += 1
                self._diary.step(self._step, done.lr, done.loss, done.pictures)
                if done.is_newest and self._step < end:
                    self._pause()

    def _pause(self) -> None:
        """Between two steps of an epoch."""
        is_wanted = self._stop is not None and self._stop()
        if self._checkpoints is not None and (is_wanted or self._checkpoints.is_due()):
            self._save(None)
            self._diary.pause()
        if is_wanted:
            raise TrainingStopped(self._step, self._plan.steps)

    def _end_epoch(self) -> None:
        diary, limit = self._diary, self._terms.time_limit
        if self._terms.validation is not None:
            latest = self._averaged.exchange()
            try:
                diary.measures = evaluate(self._terms.model, *self._terms.validation)
            finally:
                self._weights.copy_(latest)
        diary.end_epoch()
        if limit is not None:
            self._plan.fit(self._step, diary.seconds(), limit)
        self._epoch += 1
        self._epoch_start = self._step
        if self._checkpoints is not None:
            self._save(diary.measures.get("psnr_per_image"))
            diary.pause()

    def _rate(self, step: int) -> float:
        return self._base_lr * self._factor * self._terms.schedule(self._plan.progress(step))

    def _finished(self) -> TrainingResult:
        terms = self._terms
        latest = self._averaged.exchange()
        unseen, _ = terms.pairs.batch(
            np.arange(min(terms.batch_size, len(terms.pairs))), terms.epochs
        )
        if not denoise(terms.model, unseen.to(self._weights.device)).isfinite().all():
            self._weights.copy_(latest)
            raise TrainingDiverged("the result is not finite", self._step, terms.optimizer.lr)
        return self._diary.result()

    # --- checkpoints ----------------------------------------------------------------------------

    def _save(self, score: float | None) -> None:
        assert self._checkpoints is not None
        model, optimizer = self._terms.model, self._terms.optimizer
        tensors = {f"weights.{name}": each for name, each in model.state_dict().items()}
        if self._terms.average:
            latest = self._averaged.exchange()
            for name, each in model.state_dict().items():
                tensors[f"average.{name}"] = each.clone()
            self._weights.copy_(latest)
        for index, kept in optimizer.state_dict()["state"].items():
            for name, each in kept.items():
                if isinstance(each, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = each
        state = {
            "epoch": self._epoch,
            "epoch_start": self._epoch_start,
            "factor": self._factor,
            "rollbacks": self._rollbacks,
            "optimizer_steps": optimizer.steps,
            "plan": self._plan.state(),
            "diary": self._diary.state(),
        }
        self._checkpoints.save(
            Checkpoint(
                self._step,
                score,
                self._configuration,
                state,
                _versions(self._weights),
                tensors,
                ends_epoch=self._step == self._epoch_start,
            )
        )

    def _restore(self, checkpoint: Checkpoint) -> None:
        assert self._checkpoints is not None
        model, state = self._terms.model, checkpoint.state
        try:
            model.load_state_dict(checkpoint.weights)
            self._averaged.restart()
            model.load_state_dict(checkpoint.part("weights."))
            self._restore_optimizer(checkpoint.part("optimizer."), int(state["optimizer_steps"]))
            self._plan.restore(state["plan"])
            self._diary.restore(checkpoint.step, state["diary"])
            self._steps.restart()
            self._step = checkpoint.step
            self._epoch, self._epoch_start = int(state["epoch"]), int(state["epoch_start"])
            self._factor, self._rollbacks = float(state["factor"]), int(state["rollbacks"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self._checkpoints.path(checkpoint.step)}: does not fit the run "
                f"({' '.join(str(error).split())[:300]}); start anew in another folder"
            ) from error

    def _restore_optimizer(self, tensors: dict[str, Tensor], steps: int) -> None:
        optimizer = self._terms.optimizer
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            number, _, kind = name.partition(".")
            state.setdefault(int(number), {})[kind] = tensor
        settings = optimizer.state_dict()["param_groups"]
        for index in settings[0]["params"] if steps else ():
            state.setdefault(index, {})["step"] = steps
        optimizer.load_state_dict({"state": state, "param_groups": settings})

    def _roll_back(self) -> None:
        assert self._checkpoints is not None
        checkpoint = self._checkpoints.newest(ends_epoch=True)  # wherever the run was cut off
        if checkpoint is None:
            raise CheckpointError(f"{self._checkpoints.folder}: holds no checkpoint any more")
        times, seconds = self._rollbacks + 1, self._diary.seconds()
        self._terms.model.zero_grad()
        self._restore(checkpoint)
        self._diary.began_before(seconds)
        self._rollbacks, self._factor = times, 0.5**times


def _configuration(terms: Terms) -> dict[str, Any]:
    """All that decides over a run's numbers, as JSON gives it back."""
    (group,) = terms.optimizer.state_dict()["param_groups"]
    looked_at = [i / _SCHEDULE_LOOKED_AT for i in range(_SCHEDULE_LOOKED_AT)]
    told = {
        "architecture": terms.model.architecture or repr(terms.model),
        "dtype": str(next(terms.model.parameters()).data.dtype),
        "value_range": terms.model.value_range,
        "pairs": terms.pairs.describe(),
        "data": terms.pairs.fingerprint(),
        "validation": terms.validation and _fingerprint(terms.validation),
        "objective": terms.objective.describe(),
        "optimizer": {"kind": type(terms.optimizer).__name__, **group},
        "schedule": [terms.schedule(progress) for progress in looked_at],
        "epochs": terms.epochs,
        "batch_size": terms.batch_size,
        "average": terms.average,
        "seed": terms.seed,
        "time_limit": terms.time_limit,
    }
    again: dict[str, Any] = json.loads(json.dumps(told))
    return again


def _fingerprint(tensors: tuple[Tensor, ...]) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return sha.hexdigest()


def _versions(weights: Tensor) -> dict[str, str]:
    from pydenoise import __version__

    return {
        "pydenoise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": weights.device.type,
        **{name: str(value) for name, value in ops.running().items()},
    }


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words; of two structures of which one may be made up."""
    words = []
    for name in dict.fromkeys([*now, *before]):
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        if isinstance(was, dict) and isinstance(is_now, dict):
            words += [f"{name} {each}" for each in _differences(was, is_now)]
        else:
            words.append(f"{name} was {_short(was)}, is {_short(is_now)}")
    return words


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
