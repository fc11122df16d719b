"""The steps of a training run: batches in, updated weights out.

One step follows the other here; `pydenoise.device_steps` makes one CUDA graph of a whole step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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

_BATCHES_AHEAD = 3


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
    ) -> None:
        self._model, self._pairs, self._objective = model, pairs, objective
        self._optimizer, self._batch_size, self._seed = optimizer, batch_size, seed
        self._average = average
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
        parts = [order[start : start + size] for start in range(taken * size, len(order), size)]
        parts = parts[:count]
        own = [self._own(part) for part in parts]
        with closing(self._batches(own, epoch)) as batches:
            todo = zip(parts, own, batches, strict=True)
            for step, (part, numbers, batch) in enumerate(todo, first):
                self._optimizer.lr = lr = rate(step)
                source, target = map(self._here, batch)
                loss = self._step(step, epoch, numbers, source, target, len(part))
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
            where = beginning(self._model, source, target, own.tolist(), epoch)
            raise TrainingDiverged(f"the loss is {loss}", step + 1, self._optimizer.lr, where)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if not math.isfinite(self._weights.sum().item()):
            where = first_unfinite_weight(self._model)
            raise TrainingDiverged("a weight is not finite", step + 1, self._optimizer.lr, where)
        self._average.update(self._average.share(step + 1))
        return loss

    def _add_gradients(self, own: Numbers, source: Tensor, target: Tensor, pictures: int) -> float:
        """Those of a step on so many pairs; returns its loss."""
        self._objective.see(own.tolist())
        return self._objective.step(self._model, source, target)

    def _batch(self, own: Numbers, epoch: int) -> tuple[Tensor, Tensor]:
        return self._pairs.batch(own, epoch)

    def _batches(
        self, parts: list[Numbers], epoch: int
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """The batches of the given pairs, cut ahead by a thread where a core is left for it.

        A batch depends on its indices and the epoch alone, so the thread changes no number. Without
        a core of its own it would hold up the kernels, whose threads wait for each other. Closing
        the generator waits for the batch under way and drops the rest.
        """
        is_busy = torch.get_num_threads() >= cores()
        if is_busy and self._device.type == "cpu":
            yield from (self._batch(part, epoch) for part in parts)
            return
        ahead: deque[Future[tuple[Tensor, Tensor]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="pydenoise-batches") as worker:
            try:
                for part in parts:
                    ahead.append(worker.submit(self._batch, part, epoch))
                    if len(ahead) > _BATCHES_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                worker.shutdown(wait=False, cancel_futures=True)
