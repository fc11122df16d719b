"""Training steps on a GPU as one CUDA graph: from the numbers of the pairs to the averaged weights.

The pairs lie on the device. An epoch's order and rates go there at its start, each replay takes the
next row of both, and losses are read every `READ_EVERY` steps, so that the device waits for nobody.
A loss or weight that is not finite is found when it is read, and named by its step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator

import torch
from torch import Tensor

from pydenoise import memory, ops
from pydenoise.data.resident import ResidentPairs
from pydenoise.steps import Done, Steps, TrainingDiverged

READ_EVERY = 64
"""Steps whose losses are read together."""

_EAGER_STEPS = 2
"""Steps taken one by one before a graph: they make the optimizer's state and warm the kernels."""


class DeviceSteps(Steps):
    """Steps of a run whose model, loss and pairs can all go into one graph.

    The first steps and an epoch's last, smaller batch are taken one by one.
    """

    _graph: Callable[[], None] | None = None

    def reside(self, pairs: ResidentPairs) -> DeviceSteps:
        """Take the batches from pairs on the device; returns itself."""
        self._resident = pairs
        size = self._batch_size
        rows = max(1, len(self._pairs) // size)
        self._orders = self._new((rows, size), torch.int64)
        self._rules = self._new((rows, ops.RULE_NUMBERS + 1), torch.float64)
        self._outcomes = self._new((rows, 2), torch.float64)
        self._row = self._new((1,), torch.int64)
        return self

    def _new(self, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return memory.empty(size, dtype=dtype, device=self._device).zero_()

    def epoch(
        self, epoch: int, first: int, count: int, rate: Callable[[int], float]
    ) -> Generator[Done, None, None]:
        order = torch.from_numpy(self._order(epoch)).to(self._device)
        self._resident.begin(epoch)
        whole = min(count, len(order) // self._batch_size)
        eager = min(whole, max(0, _EAGER_STEPS - first))
        for i in range(eager):
            yield self._eager(order, i, first + i, rate)
        if eager < whole:
            self._load(order, first, eager, whole, rate)
            yield from self._replayed(first, eager, whole, rate)
        if whole < min(count, math.ceil(len(order) / self._batch_size)):
            yield self._eager(order, whole, first + whole, rate)

    def _eager(self, order: Tensor, row: int, step: int, rate: Callable[[int], float]) -> Done:
        rows = order[row * self._batch_size : (row + 1) * self._batch_size]
        return self._step(step, rate(step), *self._resident.batch(rows))

    def _load(
        self, order: Tensor, first: int, begin: int, end: int, rate: Callable[[int], float]
    ) -> None:
        """Put what decides over the steps of rows [begin, end) on the device."""
        taken = self._optimizer.steps - begin
        rules = [
            [
                *ops.rule_row(self._optimizer.rule(rate(first + row), taken + row + 1)),
                self._average.share(first + row + 1),
            ]
            for row in range(begin, end)
        ]
        self._rules[begin:end] = torch.tensor(rules, dtype=torch.float64).to(self._device)
        self._orders[begin:end] = order[: end * self._batch_size].view(end, -1)[begin:]
        self._row.fill_(begin)

    def _replayed(
        self, first: int, begin: int, end: int, rate: Callable[[int], float]
    ) -> Iterator[Done]:
        for start in range(begin, end, READ_EVERY):
            stop = min(start + READ_EVERY, end)
            for _ in range(start, stop):
                if self._graph is None:
                    self._graph = self._captured()
                self._graph()
                self._optimizer.steps += 1
            for row, (loss, total) in enumerate(self._outcomes[start:stop].tolist(), start):
                step = first + row
                self._optimizer.lr = lr = rate(step)
                if not math.isfinite(loss):
                    raise TrainingDiverged(f"the loss is {loss}", step + 1, lr)
                if not math.isfinite(total):
                    raise TrainingDiverged("a weight is not finite", step + 1, lr)
                yield Done(lr, loss, self._batch_size)

    def _captured(self) -> Callable[[], None]:
        """The graph of `_whole_step`, with the memory that it works in."""
        graph, steps = torch.cuda.CUDAGraph(), self._optimizer.steps
        with memory.private() as self._pool, torch.cuda.graph(graph):
            self._whole_step()
        self._optimizer.steps = steps  # nothing was computed
        return graph.replay

    def _whole_step(self) -> None:
        """The step of the row that the device counts; reads and writes nothing in main memory."""
        rule = self._rules.index_select(0, self._row).view(-1)
        rows = self._orders.index_select(0, self._row).view(-1)
        with ops.Deferred(rule[: ops.RULE_NUMBERS]) as deferred:
            self._objective.step(self._model, *self._resident.batch(rows))
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update(rule[ops.RULE_NUMBERS].to(self._weights.dtype))
        (loss,) = deferred.numbers
        outcome = torch.cat([loss, self._weights.sum().double().view(1)])
        self._outcomes.index_copy_(0, self._row, outcome.view(1, 2))
        self._row.add_(1)
