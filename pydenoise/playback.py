"""Training steps from tape: the kernel calls of a step made again, without the layers.

On small pictures much of a step's time is Python that comes to the same calls every time. So the
second step of a network on batches of one shape is recorded, and the following ones are replayed,
with the same bits. What a layer would do anew is looked at before each replay: modules that have
changed, memory that has moved, another backend or algorithm; then the step is recorded anew.

Networks with a layer that does more than call kernels are never recorded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pydenoise import nn, ops
from pydenoise.nn.conv import Convolution
from pydenoise.nn.module import keeps_entries

TAPES = 4
"""Shapes of batches that a network is kept on tape for: the whole one, the last of an epoch."""

_KERNELS_ALONE = frozenset(
    {nn.Sequential, nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, nn.LeakyReLU, nn.Sigmoid}
    | {nn.MSELoss, nn.L1Loss}
)


def can_capture(model: nn.Module, loss: nn.Loss, device: torch.device) -> bool:
    """Whether steps of this model and loss on a device can be kept as a CUDA graph."""
    on_device = torch.empty(0, device=device)
    return on_device.is_cuda and ops.is_compiled(on_device) and _calls_kernels_alone(model, loss)


def _calls_kernels_alone(model: nn.Module, loss: nn.Loss) -> bool:
    every = (*model.modules(), loss)
    return all(
        type(each) in _KERNELS_ALONE
        and each.stays_inside()
        and not (isinstance(each, Convolution) and each.watcher)
        for each in every
    )


class _Tapes:
    """One network's tapes by what decides over their calls; None for a key met once."""

    def __init__(self, model: nn.Module, loss: nn.Loss) -> None:
        self.changes = nn.Module.changes
        is_training = all(module.training for module in model.modules())
        self.can_record = is_training and _calls_kernels_alone(model, loss)
        self.watched = [t for each in model.parameters() for t in (each.data, each.grad)]
        self.of: OrderedDict[Any, ops.Tape | None] = OrderedDict()

    def keep(self, key: Any, tape: ops.Tape | None) -> None:
        self.of[key] = tape
        self.of.move_to_end(key)
        if len(self.of) > TAPES:
            self.of.popitem(last=False)


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.networks: WeakKeyDictionary[nn.Module, _Tapes] = WeakKeyDictionary()


_of_thread = _OfThread()


def play(
    model: nn.Module,
    loss: nn.Loss,
    pictures: tuple[Tensor, Tensor],
    share: float,
    step: Callable[[Tensor, Tensor], float],
) -> float:
    """Run a step, or make its kernel calls again; returns its loss.

    Parameters
    ----------
    model, loss : Module, Loss
        What `step` runs, and nothing else: forward, loss, and back to the parameters.
    pictures : (source, target)
        What `step` takes.
    share : float
        The number by which it weighs the loss and its gradient.
    step : callable
        Runs it and returns the weighed loss, its layers' tensors recycled.
    """
    source, target = pictures
    key = ops.tape_key(source), ops.tape_key(target), share, type(loss)
    if None in key or source is target or not keeps_entries():
        return step(source, target)
    tapes = _of_thread.networks.get(model)
    if tapes is None or tapes.changes != nn.Module.changes:
        tapes = _of_thread.networks[model] = _Tapes(model, loss)
    if not tapes.can_record or type(loss) not in _KERNELS_ALONE or not loss.stays_inside():
        return step(source, target)
    if key not in tapes.of:
        tapes.keep(key, None)
        return step(source, target)
    tape = tapes.of[key]
    if tape is not None:
        if not tape.is_whole:
            return step(source, target)
        numbers = tape.replay(source, target)
        if numbers is not None:
            return share * numbers[0]
    tape = ops.new_tape(source, target, watched=tapes.watched)
    value = tape.record(step, source, target)
    tapes.keep(key, tape)
    return value
