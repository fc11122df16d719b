"""Kernel calls kept while code runs, to be made again without that code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pydenoise import memory

from . import _library
from ._backend import current_algorithm, is_compiled
from ._cuda import Deferred, is_deferring, tf32
from ._graph import captured

_Result = TypeVar("_Result")


class Tape(ABC):
    """The compiled kernels' calls of one run of a function, and the memory that they used.

    Parameters
    ----------
    *pictures : Tensor
        What the function takes, other tensors at each replay; each one once.
    watched : iterable of Tensor
        What the function reads or writes that belongs to others: parameters and their gradients.

    Attributes
    ----------
    is_whole : bool
        Whether all that was recorded can be replayed.

    Notes
    -----
    The tape keeps every tensor between the calls, so that nobody else gets it from the pool. What
    the function does beside that, in Python, is not repeated.
    """

    is_whole = False

    @abstractmethod
    def record(self, function: Callable[..., _Result], *pictures: Tensor) -> _Result:
        """Run the function on the pictures and keep its calls."""

    @abstractmethod
    def replay(self, *pictures: Tensor) -> list[float] | None:
        """Make the calls again on pictures of the same shape, dtype and memory format.

        Returns
        -------
        list of float or None
            What each call returned that is a number, in their order. None, with nothing done,
            where a watched tensor's memory has moved or overlaps a picture.
        """


class ProcessorTape(Tape):
    """For pictures in main memory: the extension keeps the calls."""

    def __init__(self, *pictures: Tensor, watched: Iterable[Tensor]) -> None:
        self._calls = _library.new_tape(pictures, watched)

    def record(self, function: Callable[..., _Result], *pictures: Tensor) -> _Result:
        self._calls.start()
        try:
            result = function(*pictures)
        finally:
            self._calls.stop()
        others = self._calls.others()
        # Any other tensor was made on the way by torch, which will not make it again.
        self.is_whole = others is not None and all(
            other is None or memory.is_pooled(other) for other in others
        )
        return result

    def replay(self, *pictures: Tensor) -> list[float] | None:
        numbers: list[float] | None = self._calls.replay(*pictures)
        return numbers


class DeviceTape(Tape):
    """For pictures on a GPU: a CUDA graph, captured by running the function a second time.

    Its pictures are the tape's own, into which each replay copies.
    """

    def __init__(self, *pictures: Tensor, watched: Iterable[Tensor]) -> None:
        self._pictures = [torch.empty_like(picture) for picture in pictures]
        self._watched = list(watched)
        self._deferred = Deferred()

    def record(self, function: Callable[..., _Result], *pictures: Tensor) -> _Result:
        result = function(*pictures)
        self._places = self._watched_places()

        def deferred() -> None:
            with self._deferred:
                function(*self._pictures)

        graph = captured(deferred, pictures[0].device)
        if graph is not None:
            self._graph = graph
            self.is_whole = True
        return result

    def replay(self, *pictures: Tensor) -> list[float] | None:
        if self._watched_places() != self._places:
            return None
        for own, picture in zip(self._pictures, pictures, strict=True):
            own.copy_(picture)
        self._graph()
        return [number.item() for number in self._deferred.numbers]

    def _watched_places(self) -> list[tuple[int, int]]:
        return [(tensor.data_ptr(), tensor.nbytes) for tensor in self._watched]


def new_tape(*pictures: Tensor, watched: Iterable[Tensor]) -> Tape:
    """An empty tape for pictures of this kind, all on one device."""
    kind = ProcessorTape if pictures[0].is_cpu else DeviceTape
    return kind(*pictures, watched=watched)


def tape_key(picture: Any) -> tuple[Any, ...] | None:
    """All that decides which calls are made for a picture, beside the code; None for what cannot
    be on a tape as it is: no plain, dense 4-d tensor, not for the kernels, or on a GPU whose
    numbers nobody waits for now."""
    if type(picture) is not Tensor or picture.dim() != 4 or not is_compiled(picture):
        return None
    if not (isinstance(picture, _IN_MAIN_MEMORY) or _is_plain_on_device(picture)):
        return None
    is_contiguous = picture.is_contiguous()
    if not is_contiguous and not picture.is_contiguous(memory_format=torch.channels_last):
        return None
    algorithm = current_algorithm()
    if picture.is_cpu:
        return picture.shape, picture.dtype, is_contiguous, algorithm
    stream = torch.cuda.current_stream(picture.device).cuda_stream
    kind = algorithm, tf32.get(), stream
    return picture.shape, picture.dtype, is_contiguous, kind, picture.device


_IN_MAIN_MEMORY = torch.FloatTensor, torch.DoubleTensor


def _is_plain_on_device(picture: Tensor) -> bool:
    if not picture.is_cuda or is_deferring() or torch.cuda.is_current_stream_capturing():
        return False
    is_float = picture.dtype in (torch.float32, torch.float64)
    return is_float and picture.layout is torch.strided and not picture.is_neg()
