"""Pairs that lie in a device's memory, where batches are cut without the processor.

Batches have the bits that the sources of `pydenoise.data.pairs` cut in main memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class ResidentPairs(Protocol):
    """A source of pairs on a device."""

    def begin(self, epoch: int) -> None:
        """Draw what is drawn anew for every epoch, into the memory of the last one."""

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of the given numbers, as `PairSource.batch` gives them; nothing waits for the
        device, so that a CUDA graph can hold it.

        Parameters
        ----------
        rows : Tensor (N,), int64
            On the device, each in 0 .. length - 1.
        """


class ResidentTensors:
    """Pairs of two uint8 tensors (N, C, H, W)."""

    def __init__(self, first: Tensor, second: Tensor, device: torch.device) -> None:
        self._levels = torch.empty((2, *first.shape), dtype=torch.uint8, device=device)
        for levels, pictures in zip(self._levels, (first, second), strict=True):
            levels.copy_(pictures)
        # by a number, a GPU multiplies with its reciprocal: other bits
        self._full = torch.full((), 255.0, device=device)

    def begin(self, epoch: int) -> None:
        """Nothing is drawn."""

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Float batches on the scale 0..1."""
        source, target = self._levels.index_select(1, rows).div(self._full)
        return source, target


class ResidentAugmented:
    """Pairs that are turned, mirrored and swapped as four bits for each say.

    Parameters
    ----------
    pairs : ResidentPairs
    choices : callable
        The bits of an epoch's pairs, one uint8 for each.
    bits : (int, int, int, int)
        Those for mirroring rows and columns, transposing and swapping.
    length : int
        Number of pairs.
    """

    def __init__(
        self,
        pairs: ResidentPairs,
        choices: Callable[[int], npt.NDArray[np.uint8]],
        bits: tuple[int, int, int, int],
        length: int,
        device: torch.device,
    ) -> None:
        self._pairs, self._draw, self._bits = pairs, choices, bits
        self._choices = torch.empty(length, dtype=torch.uint8, device=device)

    def begin(self, epoch: int) -> None:
        """Draw the epoch's bits."""
        self._pairs.begin(epoch)
        self._choices.copy_(torch.from_numpy(self._draw(epoch)))

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The batch, transposed first and mirrored then."""
        source, target = self._pairs.batch(rows)
        choices = self._choices.index_select(0, rows).view(-1, 1, 1, 1)
        rows_, columns, transpose, swap = ((choices & bit) != 0 for bit in self._bits)

        def turned(picture: Tensor) -> Tensor:
            if picture.shape[2] == picture.shape[3]:
                picture = torch.where(transpose, picture.transpose(2, 3), picture)
            picture = torch.where(rows_, picture.flip(2), picture)
            return torch.where(columns, picture.flip(3), picture)

        source, target = turned(source), turned(target)
        return torch.where(swap, target, source), torch.where(swap, source, target)
