"""Training steps on a GPU as one CUDA graph: from the numbers of the pairs to the averaged weights.

The pairs lie on the device. An epoch's order and rates go there at its start, each replay takes the
next row of both, and losses are read every `READ_EVERY` steps, so that the device waits for nobody.
A loss or weight that is not finite is found when it is read, and named by its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import torch
from torch import Tensor

from pydenoise import memory, ops
from pydenoise.data.resident import ResidentPairs
from pydenoise.divergence import TrainingDiverged, batch_of
from pydenoise.steps import Done, Steps

READ_EVERY = 64
"""Steps whose losses are read together."""

_UNCAPTURED_STEPS = 2
"""Steps before a graph is made: they make the optimizer's state and load the kernels."""


class DeviceSteps(Steps):
    """Steps of a run whose model, loss, optimizer and pairs can all go into one graph.

    The first steps run without it, and so does an epoch's last, smaller batch.
    """

    _graph: Callable[[], None] | None = None
    _started = 0

    def reside(self, pairs: ResidentPairs) -> DeviceSteps:
        """Take the batches from pairs on the device; returns itself."""
        self._resident = pairs
        whole, rest = divmod(len(self._pairs), self._batch_size)
        rows = whole + (rest > 0)
        self._orders = self._new((whole, self._batch_size), torch.int64)
        self._rules = self._new((rows, ops.RULE_NUMBERS + 1), torch.float64)
        self._outcomes = self._new((rows, 2), torch.float64)
        self._row = self._new((1,), torch.int64)
        return self

    def restart(self) -> None:
        self._graph, self._started = None, 0

    def _new(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return memory.empty(size, dtype=dtype, device=self._device).zero_()

    def epoch(
        self, epoch: int, first: int, taken: int, count: int, rate: Callable[[int], float]
    ) -> Generator[Done, None, None]:
        order = torch.from_numpy(self._order(epoch)).to(self._device)
        whole, rest = order.tensor_split([self._orders.numel()])
        self._orders.copy_(whole.view_as(self._orders))
        self._resident.begin(epoch)
        todo = range(taken, min(taken + count, len(self._rules)))
        self._load(todo, first, rate)
        before = self._optimizer.steps
        for start in range(0, len(todo), READ_EVERY):
            rows = todo[start : start + READ_EVERY]
            for row in rows:
                self._start(rest if row == len(self._orders) else None)
                self._optimizer.steps = before + row - taken + 1
            for row, (loss, total) in zip(rows, self._read(rows), strict=True):
                step = first + row - taken
                self._optimizer.lr = lr = rate(step)
                if not (math.isfinite(loss) and math.isfinite(total)):
                    pairs = order[row * self._batch_size :][: self._batch_size].tolist()
                    is_found = math.isfinite(loss)
                    what = "a weight is not finite" if is_found else f"the loss is {loss}"
                    raise TrainingDiverged(what, step + 1, lr, batch_of(pairs, epoch))
                pictures = self._batch_size if row < len(self._orders) else len(rest)
                yield Done(lr, loss, pictures, is_newest=row == rows[-1])

    def _load(self, rows: range, first: int, rate: Callable[[int], float]) -> None:
        """Put what decides over the steps' sizes on the device, and go to the first row."""
        if not rows:
            return
        taken = self._optimizer.steps
        rules = [
            [
                *ops.rule_row(self._optimizer.rule(rate(first + index), taken + index + 1)),
                self._average.share(first + index + 1),
            ]
            for index in range(len(rows))
        ]
        self._rules[rows.start : rows.stop] = torch.tensor(rules, dtype=torch.float64).to(
            self._device
        )
        self._row.fill_(rows.start)

    def _start(self, batch: Tensor | None) -> None:
        self._started += 1
        if batch is not None or self._started <= _UNCAPTURED_STEPS:
            self._whole_step(batch)
            return
        if self._graph is None:
            self._graph = ops.captured(self._whole_step, self._device) or self._whole_step
        self._graph()

    def _whole_step(self, batch: Tensor | None = None) -> None:
        """The step of the row that the device counts, on that row's batch unless one is given;
        reads and writes nothing in main memory."""
        rule = self._rules.index_select(0, self._row).view(-1)
        if batch is None:
            batch = self._orders.index_select(0, self._row).view(-1)
        with ops.Deferred(rule[: ops.RULE_NUMBERS]) as deferred:
            self._objective.step(self._model, *self._resident.batch(batch))
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update(rule[ops.RULE_NUMBERS].to(self._weights.dtype))
        (loss,) = deferred.numbers
        outcome = torch.cat([loss, self._weights.sum(0, keepdim=True, dtype=torch.float64)])
        self._outcomes.index_copy_(0, self._row, outcome.view(1, 2))
        self._row.add_(1)

    def _read(self, rows: range) -> list[list[float]]:
        """Loss and sum of the weights of steps that have been started; waits for them."""
        outcomes: list[list[float]] = self._outcomes[rows.start : rows.stop].tolist()
        return outcomes
