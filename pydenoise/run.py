"""A training run: epochs of steps, measured, kept in checkpoints, gone on from one.

What it computes is a function of its configuration alone, wherever it was cut off and resumed:
orders, crops and noise depend on (seed, epoch, index), all else is in the checkpoint.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
from torch import Tensor

from pydenoise.checkpoint import Checkpoint, CheckpointError, Checkpoints, CheckpointWarning
from pydenoise.configuration import Terms, check_state, configuration, differences, versions
from pydenoise.diary import Diary, Plan, TrainingResult
from pydenoise.distributed import RanksLost
from pydenoise.divergence import TrainingDiverged, beginning
from pydenoise.inference import denoise, evaluate
from pydenoise.steps import Average, Steps


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
        self._rollbacks, self._went_back_to = 0, -1
        self._step = self._epoch = self._epoch_start = 0
        self._saved_step = -1
        self._configuration = configuration(terms) if checkpoints else {}

    def resume(self) -> None:
        """Be where the newest checkpoint was taken, if there is one."""
        assert self._checkpoints is not None
        checkpoint = self._checkpoints.newest()
        if checkpoint is None:
            return
        path = self._checkpoints.path(checkpoint.step)
        differing = differences(checkpoint.configuration, self._configuration)
        if differing:
            raise CheckpointError(
                f"{path}: is of another run ({'; '.join(differing)}); resume with what it was "
                "started with, or start anew in another folder"
            )
        others = differences(checkpoint.versions, versions(self._terms))
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
            while True:
                try:
                    self._epochs()
                    return self._finished()
                except TrainingDiverged:
                    if self._rollbacks >= terms.rollbacks or not self._roll_back():
                        raise
        except BaseException:
            terms.model.zero_grad()
            raise
        finally:
            terms.optimizer.lr = self._base_lr

    def _epochs(self) -> None:
        while self._epoch_start < self._plan.steps:
            if self._stop is not None and self._stop():
                raise TrainingStopped(self._step, self._plan.steps)
            try:
                self._take_steps()
                self._end_epoch()
            except RanksLost:  # the weights are those of the last whole step
                if self._checkpoints is not None and self._step > self._saved_step:
                    self._save(None)
                raise

    def _take_steps(self) -> None:
        """Those of the epoch that are left."""
        taken = self._step - self._epoch_start
        self._terms.objective.begin(self._epoch, self._plan.progress(self._epoch_start), taken)
        end = min(self._epoch_start + self._terms.steps_of_epoch, self._plan.steps)
        left = end - self._step
        steps = self._steps.epoch(self._epoch, self._step, taken, left, self._rate)
        with closing(steps) as todo:
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
                with self._terms.ranks.apart():
                    diary.measures = evaluate(self._terms.model, *self._terms.validation)
            finally:
                self._weights.copy_(latest)
            if math.isnan(diary.measures["psnr_global"]):
                lr = self._terms.optimizer.lr
                raise TrainingDiverged("a picture held out comes out as NaN", self._step, lr)
        if limit is not None:
            seconds = self._terms.ranks.told(diary.seconds)
            self._plan.fit(self._step, seconds, limit)
        diary.end_epoch()  # nobody is waited for until the epoch is behind all
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
        numbers = np.arange(min(terms.batch_size, len(terms.pairs)))
        unseen = terms.pairs.batch(numbers, terms.epochs)[0].to(self._weights.device)
        if not denoise(terms.model, unseen).isfinite().all():
            where = beginning(terms.model, unseen, unseen, numbers.tolist(), terms.epochs)
            self._weights.copy_(latest)
            lr = terms.optimizer.lr
            raise TrainingDiverged("the result is not finite", self._step, lr, where)
        return self._diary.result()

    # --- checkpoints ----------------------------------------------------------------------------

    def _save(self, score: float | None) -> None:
        assert self._checkpoints is not None
        terms = self._terms
        model, optimizer = terms.model, terms.optimizer
        tensors = {f"weights.{name}": each for name, each in model.state_dict().items()}
        if terms.average:
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
                versions(terms),
                tensors,
                ends_epoch=self._step == self._epoch_start,
            )
        )
        self._saved_step = self._step

    def _restore(self, checkpoint: Checkpoint) -> None:
        assert self._checkpoints is not None
        model, state = self._terms.model, checkpoint.state
        try:
            check_state(checkpoint, model, self._terms)
            model.load_state_dict(checkpoint.weights)
            self._averaged.restart()
            model.load_state_dict(checkpoint.part("weights."))
            self._restore_optimizer(checkpoint.part("optimizer."), int(state["optimizer_steps"]))
            self._plan.restore(state["plan"])
            self._diary.restore(checkpoint.step, state["diary"])
            self._steps.restart()
            self._step = self._saved_step = checkpoint.step
            self._epoch, self._epoch_start = int(state["epoch"]), int(state["epoch_start"])
            self._factor, self._rollbacks = float(state["factor"]), int(state["rollbacks"])
        except (LookupError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
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

    def _roll_back(self) -> bool:
        """Go to the end of the epoch before, wherever the run was cut off; behind it where it
        diverges at once. False where there is none."""
        assert self._checkpoints is not None
        checkpoint = self._checkpoints.newest(ends_epoch=True)
        if checkpoint is not None and checkpoint.step == self._step == self._went_back_to:
            checkpoint = self._checkpoints.newest(ends_epoch=True, before=self._step)
        if checkpoint is None:
            return False
        times, seconds = self._rollbacks + 1, self._diary.seconds()
        self._terms.model.zero_grad()
        self._restore(checkpoint)
        self._diary.began_before(seconds)
        self._rollbacks, self._factor = times, 0.5**times
        self._went_back_to = checkpoint.step
        return True
