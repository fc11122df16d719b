"""The training loop's door: what a run is asked for, checked, and how its steps are taken.

It decides no loss (that is the objective), no update rule (the optimizer) and no pictures (the
pairs), and it runs without autograd. It prints nothing: whoever wants to watch hands in `progress`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pydenoise import playback
from pydenoise.batches import Cutters, WorkersLost
from pydenoise.checkpoint import Checkpoints
from pydenoise.configuration import Terms, check_alike
from pydenoise.diary import Diary, Plan, Record, TrainingResult
from pydenoise.distributed import Ranks, SharedCheckpoints, Wish, shared_steps
from pydenoise.divergence import TrainingDiverged
from pydenoise.nn import Module
from pydenoise.objectives import Noise2Noise, Objective
from pydenoise.optim import SGD, Adam, AdamW, Optimizer, Schedule, constant
from pydenoise.run import Run, TrainingStopped
from pydenoise.steps import Average, Steps

if TYPE_CHECKING:
    from pydenoise.data import PairSource

__all__ = [
    "Record",
    "TrainingDiverged",
    "TrainingResult",
    "TrainingStopped",
    "WorkersLost",
    "train",
]


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
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    rollbacks: int = 0,
    stop: Callable[[], bool] | None = None,
    ranks: Ranks | None = None,
    shards: int = 0,
    workers: int = 0,
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
    checkpoints : Checkpoints, optional
        Where the run is kept: before its first step, after every epoch, now and then within one,
        and when it is asked to stop.
    resume : bool
        Go on from the newest of `checkpoints`; with none there, start. Everything else must be as
        it was, `model` may have any weights. However often a run is cut off, its weights come out
        the same to the bit, and so does its log but for the times.
    rollbacks : int
        How often a run that diverges goes back to the end of the epoch before, with half the
        learning rate from there on.
    stop : callable, optional
        Asked after every step; True ends the run.
    ranks : Ranks, optional
        The processes that train together, from `pydenoise.distributed.connected`; this one alone
        if omitted. All call `train` with the same arguments, and `batch_size` is that of all: the
        pairs of a step are cut between them, none is left out or seen twice. The first writes log
        and checkpoints; where one asks to stop, all do.
    shards : int
        0: every rank adds up its own part of a batch, the fast way. Else the batch is cut into so
        many shards, whose gradients are added up in one order: the weights come out with the same
        bits for any number of ranks up to that.
    workers : int
        Processes of this one's own that cut batches ahead of the steps; 0: a thread, where a core
        is left for it. The bits are the same. Each holds a copy of the pictures that lie in memory,
        and they start as `multiprocessing` does: a script keeps what it runs under
        `if __name__ == "__main__":`.

    Returns
    -------
    TrainingResult
        History, times and the final measures.

    Raises
    ------
    TypeError, ValueError
        For an empty source, a model that predicts noise, or an argument outside its range, before
        anything is trained.
    RanksDiffer
        Where ranks were given another run, other data or other code.
    RanksLost
        When a rank has died or cannot be reached; the first one, where it lives, has kept a
        checkpoint of the last whole step.
    WorkersLost
        When a process that cuts batches has died.
    CheckpointError
        When the checkpoints are of another run, or all damaged; when there are some and the run is
        not to be resumed; when another process trains into them.
    OSError
        When a checkpoint or the log cannot be written.
    TrainingStopped
        When `stop` says so; the model has then the weights of the last step, not averaged.
    TrainingDiverged
        When the loss or a weight is no longer finite, or the trained model makes numbers of a
        batch that are not: no loss has seen the weights of the last step.

    Notes
    -----
    After step t the average is `a <- d a + (1 - d) w` with `d = min(average, (1 + t) / (10 + t))`,
    so that the first, random weights do not linger in it.

    A run is the same if its batches, weights and settings are; `PairSource.fingerprint` and
    `Objective.describe` say so for them. With another release of pydenoise or torch, or another
    instruction set, a resumed run warns that bits may differ.

    Whatever exception leaves this function, the layers keep nothing of the forward passes under
    way; the weights are then those of the last whole step, not averaged.
    """
    if model.predicts_noise:
        raise ValueError(
            "train: pairs teach pictures, the model is one that predicts noise; take "
            "models.autoencoder, models.unet, models.small_unet or models.halved(residual=True)"
        )
    _check(len(pairs), epochs, batch_size, optimizer.lr, average, time_limit, workers)
    if checkpoints is None and (resume or rollbacks):
        raise ValueError("train: resume and rollbacks need checkpoints; give a folder for them")
    epochs, batch_size, seed, average = int(epochs), int(batch_size), int(seed), float(average)
    plan = Plan(epochs * math.ceil(len(pairs) / batch_size))
    weights = model.flatten().data
    if validation is not None:
        validation = validation[0].to(weights.device), validation[1].to(weights.device)
    objective = Noise2Noise() if objective is None else objective
    if not isinstance(objective, Objective):
        raise TypeError(
            f"train: the objective is a {type(objective).__name__}; give one of "
            "pydenoise.objectives, or derive yours from objectives.Objective"
        )
    ranks = ranks or Ranks()
    _check_ranks(ranks.size, shards, min(batch_size, len(pairs)))
    averaged = Average(weights, average)
    terms = Terms(
        model,
        pairs,
        epochs,
        batch_size,
        optimizer,
        schedule or constant(),
        objective,
        validation,
        average,
        seed,
        time_limit,
        rollbacks,
        ranks,
        shards,
    )
    model.train()
    model.zero_grad()
    cutters = Cutters(pairs, workers)
    given = model, pairs, objective, optimizer, batch_size, seed, averaged, cutters
    wishes = [stop := Wish(stop)] if ranks.is_connected or shards else []
    if ranks.is_connected:
        check_alike(terms)
        first = ranks.told_bytes(lambda: weights.cpu().numpy().tobytes())
        weights.copy_(torch.frombuffer(bytearray(first), dtype=weights.dtype))
        if checkpoints is not None:
            checkpoints = SharedCheckpoints(checkpoints, ranks)
            wishes.append(checkpoints.wish)
        log, progress = (log, progress) if ranks.is_first else (None, None)
    if ranks.is_connected or shards:
        steps: Steps = shared_steps(*given, ranks=ranks, wishes=wishes, shards=shards)
    else:
        steps = _steps(*given)
    with cutters, checkpoints.held() if checkpoints is not None else nullcontext():
        if checkpoints is not None and not resume:
            checkpoints.refuse_filled()
        diary = Diary(plan, epochs, log, progress)
        run = Run(terms, steps, averaged, plan, diary, checkpoints, stop)
        if resume:
            run.resume()
        return run.to_end()


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


def _check_ranks(size: int, shards: int, batch: int) -> None:
    if not isinstance(shards, Integral) or shards < 0:
        raise ValueError(f"train: shards must be a whole number, 0 or more, got {shards!r}")
    if size > batch:
        raise ValueError(
            f"train: {size} processes cannot share batches of {batch} pairs; start fewer, or take "
            "larger batches"
        )
    if shards and size > shards:
        raise ValueError(
            f"train: {size} processes cannot share {shards} shards; start fewer, or cut batches "
            "into more"
        )


def _check(
    pairs: int,
    epochs: int,
    batch_size: int,
    lr: float,
    average: float,
    time_limit: float | None,
    workers: int,
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
    if time_limit is not None and not 0 < time_limit < math.inf:
        raise ValueError(f"train: time_limit must be positive and finite, got {time_limit}")
    if not isinstance(workers, Integral) or workers < 0:
        raise ValueError(f"train: workers must be a whole number, 0 or more, got {workers!r}")
