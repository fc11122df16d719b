"""Kernel calls kept on a tape while code runs, to be made again without that code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pydenoise import memory

from . import _library
from ._backend import current_algorithm, is_compiled

_Result = TypeVar("_Result")


class Tape:
    """The compiled kernels' calls of one run of a function, and the memory that they used.

    Parameters
    ----------
    *pictures : Tensor
        What the function reads that will be another tensor at each replay; each one once.
    watched : iterable of Tensor
        What the function reads or writes that belongs to others: parameters and their gradients.

    Attributes
    ----------
    is_whole : bool
        Whether all that was recorded can be replayed: torch made no tensor on the way.

    Notes
    -----
    The tape keeps every tensor between the calls, so that nobody else gets it from the pool. What
    the function does beside calling kernels is not repeated: it must be a matter of kernels alone.
    """

    def __init__(self, *pictures: Tensor, watched: Iterable[Tensor]) -> None:
        self._calls = _library.new_tape(pictures, watched)
        self.is_whole = False

    def record(self, function: Callable[[], _Result]) -> _Result:
        """Run the function and keep its calls; inside a scope of `memory.recycling`."""
        self._calls.start()
        try:
            result = function()
        finally:
            self._calls.stop()
        others = self._calls.others()
        # Any other tensor was made on the way by torch, which will not make it again.
        self.is_whole = others is not None and all(
            other is None or memory.is_pooled(other) for other in others
        )
        return result

    def replay(self, *pictures: Tensor) -> list[float] | None:
        """Make the calls again on pictures of the same shape, dtype and memory format.

        Returns
        -------
        list of float or None
            What each call returned that is a number, in their order. None, with nothing done,
            where a watched tensor's memory has moved or overlaps a picture.
        """
        numbers: list[float] | None = self._calls.replay(*pictures)
        return numbers


def tape_key(picture: Any) -> tuple[Any, ...] | None:
    """All that decides which calls are made for a picture, beside the code; None for what cannot
    be on a tape as it is: no plain, dense 4-d tensor in main memory, or not for the kernels."""
    if type(picture) is not Tensor or not isinstance(picture, _KINDS) or picture.dim() != 4:
        return None
    if not is_compiled(picture):
        return None
    is_contiguous = picture.is_contiguous()
    if not is_contiguous and not picture.is_contiguous(memory_format=torch.channels_last):
        return None
    return picture.shape, picture.dtype, is_contiguous, current_algorithm()


_KINDS = torch.FloatTensor, torch.DoubleTensor
