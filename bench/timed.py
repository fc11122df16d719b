"""A training run of so much processor time, which can be stopped at any moment and goes on there.

Weights, their average, the optimizer's state and the seconds spent are kept every half minute. The
learning rate follows the share of the time that has passed. Only training counts, and the seconds
are those of the cores at work, so that a run beside others on a busy machine gets no less of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from pydenoise import data, nn, optim
from pydenoise.atomic import new_file
from pydenoise.objectives import Objective

SECONDS_BETWEEN_SNAPSHOTS = 30.0
DECAY = 0.999


class TimedRun:
    """Training for so many seconds of a core; the attributes say how far it is.

    Parameters
    ----------
    model : Module
        Its weights are the average of the steps' between two calls of `until`.
    pairs : PairSource
        Drawn in an order of `seed` and the epoch.
    objective : Objective
        Whose loss is brought down.
    snapshot : path
        Where the run is kept; what is there is gone on with.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: data.PairSource,
        objective: Objective,
        *,
        seconds: float,
        lr: float,
        batch_size: int,
        schedule: optim.Schedule,
        seed: int,
        snapshot: Path,
    ) -> None:
        self.model, self._pairs, self._objective = model, pairs, objective
        self._limit, self._schedule = seconds, schedule
        self._lr, self._batch_size = lr, batch_size
        self._seed, self._snapshot = seed, snapshot
        self._optimizer = optim.Adam(model, lr=lr, betas=(0.9, 0.99))
        self._weights = model.flatten().data
        self._average, self._latest = self._weights.clone(), self._weights.clone()
        self.seconds, self.steps = 0.0, 0
        if snapshot.exists():
            self._load()

    def until(self, seconds: float) -> None:
        """Train until so many seconds of the run have passed."""
        saved = self.seconds
        self._weights.copy_(self._latest)
        self.model.train()
        batches = self._batches()
        while self.seconds < seconds:
            began = time.process_time()
            self._optimizer.lr = self._lr * self._schedule(self._progress())
            self._objective.step(self.model, *next(batches))
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.steps += 1
            decay = min(DECAY, (1 + self.steps) / (10 + self.steps))
            self._average.lerp_(self._weights, 1 - decay)
            self.seconds += time.process_time() - began
            if self.seconds - saved > SECONDS_BETWEEN_SNAPSHOTS:
                saved = self.seconds
                self.save()
        self.save()
        self._weights.copy_(self._average)

    def _progress(self) -> float:
        return min(1.0, self.seconds / self._limit)

    def save(self) -> None:
        self._latest.copy_(self._weights)
        state = {
            "latest": self._latest,
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
            "seconds": self.seconds,
            "steps": self.steps,
        }
        self._snapshot.parent.mkdir(parents=True, exist_ok=True)
        with new_file(self._snapshot, overwrite=True) as file:
            torch.save(state, file)

    def _load(self) -> None:
        state = torch.load(self._snapshot, weights_only=True)
        self._latest.copy_(state["latest"])
        self._average.copy_(state["average"])
        self._weights.copy_(self._average)
        self._optimizer.load_state_dict(state["optimizer"])
        self.seconds, self.steps = state["seconds"], state["steps"]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """From the present step on, as if the run had never been interrupted."""
        size = self._batch_size
        epoch, first = divmod(self.steps, -(-len(self._pairs) // size))
        while True:
            self._objective.begin(epoch, self._progress())
            order = data.generator(self._seed, epoch, 0, "order").permutation(len(self._pairs))
            for start in range(first * size, len(order), size):
                yield self._pairs.batch(order[start : start + size], epoch)
            epoch, first = epoch + 1, 0
