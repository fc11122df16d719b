"""The steps of a training run: batches in, updated weights out.

One step follows the other here; `pydenoise.device_steps` makes one CUDA graph of a whole step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise.batches import Cutters, cut_by_thread
from pydenoise.data import generator
from pydenoise.divergence import TrainingDiverged, beginning, first_unfinite_weight
from pydenoise.launch import cores
from pydenoise.nn import Module
from pydenoise.objectives import Objective
from pydenoise.optim import Optimizer

if TYPE_CHECKING:
    from pydenoise.data import PairSource

Numbers: TypeAlias = npt.NDArray[np.int64]
"""Of pairs in their source."""


class Done(NamedTuple):
    """A step that has been taken.

    Attributes
    ----------
    lr, loss : float
        Its learning rate and its loss.
    pictures : int
        How many pairs it saw.
    is_newest : bool
        Whether the weights are those that it left, none that a later step has changed.
    """

    lr: float
    loss: float
    pictures: int
    is_newest: bool = True


class Average:
    """Exponential moving average of the flat weights; a decay of 0 keeps none."""

    def __init__(self, weights: Tensor, decay: float) -> None:
        self._weights = weights
        self._decay = decay
        self._average = weights.clone() if decay else weights

    def share(self, step: int) -> float:
        """How far the average goes to the weights after a step, counted from 1."""
        return 1 - min(self._decay, (1 + step) / (10 + step))

    def update(self, share: float | Tensor) -> None:
        """Go that far."""
        if self._decay:
            self._average.lerp_(self._weights, share)

    def restart(self) -> None:
        """Go on from the weights as they are."""
        if self._decay:
            self._average.copy_(self._weights)

    def exchange(self) -> Tensor:
        """Put the average into the weights; returns what stood there."""
        latest = self._weights.clone()
        self._weights.copy_(self._average)
        return latest


class Steps:
    """A training run's steps.

    Parameters
    ----------
    model : Module
        Flattened, in training mode; where it lies the steps are computed.
    pairs, objective, optimizer, batch_size, seed
        As in `pydenoise.training.train`.
    average : Average
        Follows the weights after each step.
    cutters : Cutters, optional
        The processes that cut batches, if any do.
    """

    def __init__(
        self,
        model: Module,
        pairs: PairSource,
        objective: Objective,
        optimizer: Optimizer,
        batch_size: int,
        seed: int,
        average: Average,
        cutters: Cutters | None = None,
    ) -> None:
        self._model, self._pairs, self._objective = model, pairs, objective
        self._optimizer, self._batch_size, self._seed = optimizer, batch_size, seed
        self._average, self._cutters = average, cutters
        self._weights = model.flatten().data
        self._device = self._weights.device

    def epoch(
        self, epoch: int, first: int, taken: int, count: int, rate: Callable[[int], float]
    ) -> Generator[Done, None, None]:
        """Take the steps of an epoch that are left, at most `count`; each sees other pairs.

        Parameters
        ----------
        epoch : int
        first : int
            Number of the first of them in the run, from 0.
        taken : int
            Steps of the epoch that lie behind.
        rate : callable
            Learning rate of a step by its number.

        Raises
        ------
        TrainingDiverged
            When the loss or a weight is no longer finite.
        """
        order, size = self._order(epoch), self._batch_size
        starts = range(taken * size, len(order), size)[:count]
        own = (self._own(order[start : start + size]) for start in starts)
        with closing(self._batches(own, epoch)) as batches:
            for step, (start, batch) in enumerate(zip(starts, batches, strict=True), first):
                self._optimizer.lr = lr = rate(step)
                part = order[start : start + size]
                source, target = map(self._here, batch)
                loss = self._step(step, epoch, self._own(part), source, target, len(part))
                yield Done(lr, loss, len(part))

    def restart(self) -> None:
        """The optimizer's state, the weights and their average have been replaced."""

    def _order(self, epoch: int) -> Numbers:
        return generator(self._seed, epoch, 0, "order").permutation(len(self._pairs))

    def _here(self, batch: Tensor) -> Tensor:
        if self._device.type == "cpu":
            return batch
        return batch.pin_memory().to(self._device, non_blocking=True)

    def _own(self, part: Numbers) -> Numbers:
        """Those of a step's pairs that this process sees: all."""
        return part

    def _step(
        self, step: int, epoch: int, own: Numbers, source: Tensor, target: Tensor, pictures: int
    ) -> float:
        """Take a step on so many pairs, of which these are this process's; returns its loss."""
        loss = self._add_gradients(own, source, target, pictures)
        if not math.isfinite(loss):
            where = self._where(own, source, target, epoch)
            raise TrainingDiverged(f"the loss is {loss}", step + 1, self._optimizer.lr, where)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if not math.isfinite(self._weights.sum().item()):
            where = first_unfinite_weight(self._model)
            raise TrainingDiverged("a weight is not finite", step + 1, self._optimizer.lr, where)
        self._average.update(self._average.share(step + 1))
        return loss

    def _where(self, own: Numbers, source: Tensor, target: Tensor, epoch: int) -> str:
        """Where the numbers of a step, which are no numbers any more, stop being some."""
        return beginning(self._model, source, target, own.tolist(), epoch)

    def _add_gradients(self, own: Numbers, source: Tensor, target: Tensor, pictures: int) -> float:
        """Those of a step on so many pairs; returns its loss."""
        self._objective.see(own.tolist())
        return self._objective.step(self._model, source, target)

    def _batch(self, own: Numbers, epoch: int) -> tuple[Tensor, Tensor]:
        return self._pairs.batch(own, epoch)

    def _batches(
        self, parts: Iterator[Numbers], epoch: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of the given pairs, cut ahead by processes or by a thread.

        A thread without a core of its own would hold up the kernels, whose threads wait for each
        other: then none is taken.
        """
        cut = partial(self._batch, epoch=epoch)
        if self._cutters is not None and self._cutters.count:
            return self._cutters.cut(parts, epoch, cut)
        is_busy = torch.get_num_threads() >= cores()
        if is_busy and self._device.type == "cpu":
            return (cut(part) for part in parts)
        return cut_by_thread(parts, cut)
