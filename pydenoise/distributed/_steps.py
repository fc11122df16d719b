"""Steps that several processes take together: each adds the gradients of its part of the batch.

`BucketSteps` is fast, `ShardSteps` gives the same bits for any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pydenoise.distributed._ranks import Pending, Ranks
from pydenoise.distributed._wish import Wish
from pydenoise.nn import Module
from pydenoise.nn.conv import Convolution
from pydenoise.nn.hooks import gradients_seen
from pydenoise.objectives import Neighbor2Neighbor, Noise2Noise
from pydenoise.steps import Done, Numbers, Steps

BUCKET_BYTES = 2**20
"""Gradients of neighbouring layers are summed together up to so many bytes, as backward fills them:
large enough to hide the latency of a network, small enough for the first to start early."""


class SharedSteps(Steps):
    """Steps of which this process sees a part of the pairs."""

    def __init__(self, *given: Any, ranks: Ranks, wishes: Sequence[Wish]) -> None:
        super().__init__(*given)
        self._ranks, self._wishes = ranks, wishes
        self._own_loss = 0.0
        self._gradient = self._model.flatten().grad

    def _batch(self, own: Numbers, epoch: int) -> tuple[Tensor, Tensor]:
        if len(own):
            return super()._batch(own, epoch)
        nothing = torch.empty((0, *self._pairs.shape))
        return nothing, nothing

    def _where(self, own: Numbers, source: Tensor, target: Tensor, epoch: int) -> str:
        if math.isfinite(self._own_loss):
            return "on another rank"
        return super()._where(own, source, target, epoch)


class BucketSteps(SharedSteps):
    """Each rank sees an equal part of a batch; gradients are summed while backward goes on.

    The flat gradient is cut into buckets, last layer first. As soon as backward has added the last
    time to a bucket, the sum over the ranks is started, and waited for behind the last one. When
    that is, is known from the first step on a batch of as many pictures: the layers go back in the
    same order every time.
    """

    def __init__(self, *given: Any, ranks: Ranks, wishes: Sequence[Wish]) -> None:
        super().__init__(*given, ranks=ranks, wishes=wishes)
        self._cuts, self._bucket_of = _buckets(self._model)
        self._last_calls: dict[int, list[int]] = {}

    def epoch(
        self, epoch: int, first: int, taken: int, count: int, rate: Callable[[int], float]
    ) -> Generator[Done, None, None]:
        scope: AbstractContextManager[None] = nullcontext()
        if len(self._cuts) > 2 and self._knows_its_way():
            scope = gradients_seen(self._model, self._hear)
        with scope:
            yield from super().epoch(epoch, first, taken, count, rate)

    def _knows_its_way(self) -> bool:
        """Whether all that adds to gradients is the package's, and goes the same way every time."""
        is_ours = type(self._objective) in (Noise2Noise, Neighbor2Neighbor)
        learnt = [each for each in self._model.modules() if each._parameters]
        return (
            is_ours
            and self._model.stays_inside()
            and all(isinstance(layer, Convolution) for layer in learnt)
        )

    def _own(self, part: Numbers) -> Numbers:
        start, stop = bounds(len(part), self._ranks.size)[self._ranks.rank :][:2]
        return part[start:stop]

    def _add_gradients(self, own: Numbers, source: Tensor, target: Tensor, pictures: int) -> float:
        self._share = len(own) / pictures
        self._sums: list[Pending] = []
        self._calls = [0] * (len(self._cuts) - 1)
        self._heard = 0
        self._ends = self._last_calls.get(len(own))
        loss = super()._add_gradients(own, source, target, pictures) if len(own) else 0.0
        if self._heard:
            ends = [max(self._calls[: bucket + 1]) for bucket in range(len(self._calls))]
            if self._last_calls.setdefault(len(own), ends) != ends:
                raise RuntimeError("train: the layers went back another way than in steps before")
        while len(self._sums) < len(self._calls):
            self._start_next()
        self._own_loss = loss
        wanted = [float(wish.own()) for wish in self._wishes]
        loss, *wanted = self._ranks.summed([self._share * loss, *wanted])
        for under_way in self._sums:
            under_way.wait()
        for wish, count in zip(self._wishes, wanted, strict=True):
            wish.hear(count > 0)
        return loss

    def _hear(self, layer: Module) -> None:
        """A layer has added to its gradients."""
        self._heard += 1
        self._calls[self._bucket_of[layer]] = self._heard
        ends, started = self._ends, len(self._sums)
        while ends is not None and started < len(ends) and ends[started] <= self._heard:
            self._start_next()
            started += 1

    def _start_next(self) -> None:
        """Weigh the next bucket by this rank's share of the pictures, and begin its sum."""
        start, stop = self._cuts[len(self._sums) :][:2]
        bucket = self._gradient[start:stop].mul_(self._share)
        self._sums.append(self._ranks.start_sum(bucket))


class ShardSteps(SharedSteps):
    """A batch is cut into a fixed number of shards, whose gradients are computed one by one.

    The ranks share the shards, tell each other the gradients, and all add them up in the shards'
    order: weights have the same bits for any number of ranks. The price is a gradient told per
    shard, not per rank, and smaller pieces to compute on.
    """

    def __init__(self, *given: Any, ranks: Ranks, wishes: Sequence[Wish], shards: int) -> None:
        super().__init__(*given, ranks=ranks, wishes=wishes)
        self._shards = shards
        self._each = -(-shards // ranks.size)
        self._gradients = self._gradient.new_zeros((self._each, self._gradient.numel()))

    def _of_this_rank(self, pictures: int) -> list[int]:
        """Where its shards begin in a batch, and where the last ends."""
        whole = bounds(pictures, self._shards)
        whole += whole[-1:] * (self._each * self._ranks.size - self._shards)
        return whole[self._ranks.rank * self._each :][: self._each + 1]

    def _own(self, part: Numbers) -> Numbers:
        cuts = self._of_this_rank(len(part))
        return part[cuts[0] : cuts[-1]]

    def _add_gradients(self, own: Numbers, source: Tensor, target: Tensor, pictures: int) -> float:
        cuts = self._of_this_rank(pictures)
        wanted = [float(wish.own()) for wish in self._wishes]
        numbers = torch.tensor([0.0] * self._each + wanted, dtype=torch.float64)
        for shard, (start, stop) in enumerate(pairwise(cuts)):
            row, share = self._gradients[shard], (stop - start) / pictures
            row.zero_()
            if start < stop:
                here = slice(start - cuts[0], stop - cuts[0])
                loss = super()._add_gradients(own[here], source[here], target[here], pictures)
                numbers[shard] = share * loss
                torch.mul(self._gradient, share, out=row)
                self._gradient.zero_()
        self._own_loss = float(numbers[: self._each].sum())
        told = self._ranks.stacked(numbers)
        for row in self._ranks.stacked(self._gradients).flatten(0, 1):
            self._gradient.add_(row)
        for wish, each in zip(self._wishes, told[:, self._each :].T, strict=True):
            wish.hear(bool(each.any()))
        return float(sum(told[:, : self._each].flatten().tolist()))


def shared_steps(*given: Any, ranks: Ranks, wishes: Sequence[Wish], shards: int) -> SharedSteps:
    """Steps in shards, or in buckets where there are 0; the rest is what `Steps` is made of."""
    if shards:
        return ShardSteps(*given, ranks=ranks, wishes=wishes, shards=shards)
    return BucketSteps(*given, ranks=ranks, wishes=wishes)


def bounds(count: int, parts: int) -> list[int]:
    """Where equal parts of so many things begin, and where the last ends; none is left out.

    Examples
    --------
    >>> bounds(10, 4)
    [0, 2, 5, 7, 10]
    """
    return [count * part // parts for part in range(parts + 1)]


def _buckets(model: Module) -> tuple[list[int], dict[Module, int]]:
    """Where the buckets of the flat gradient begin, and where the last ends; and the bucket of
    each layer."""
    cuts, bucket_of = [0], {}
    end = 0
    for layer in [*model.modules()][::-1]:
        learnt = [each.grad for each in layer._parameters.values() if each is not None]
        if not learnt:
            continue
        bucket_of[layer] = len(cuts) - 1
        end += sum(gradient.numel() for gradient in learnt)
        if (end - cuts[-1]) * learnt[0].element_size() >= BUCKET_BYTES:
            cuts.append(end)
    return (cuts if cuts[-1] == end else [*cuts, end]), bucket_of
