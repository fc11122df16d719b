"""What the machine can do at most, measured beside the cases by loops of our own."""

from __future__ import annotations

import time

import torch

from pydenoise import ops

MEASURED = 10
_RUNS = 3
_ITERATIONS = 2_000_000  # some milliseconds, long beside the start of the threads
_MEBIBYTES = 128


class Ruler:
    """The machine's limits with the threads and the instruction set of now.

    Measured again and again between the cases; the best counts, so that a moment in which the
    machine did something else does not make the kernels look good.

    Attributes
    ----------
    peak_gflop_per_s : float or None
        Multiply-adds on registers, 1e9 operations a second, a product and a sum counting as two;
        None without compiled kernels.
    copy_gb_per_s : float
        Bytes read and written by a copy too large for any cache, in 1e9 a second.
    measured : int
        How often; each time takes the best of some runs.
    """

    def __init__(self) -> None:
        self.peak_gflop_per_s: float | None = None
        self.copy_gb_per_s = 0.0
        self.measured = 0
        self._source = torch.zeros(_MEBIBYTES << 18, dtype=torch.float32)
        self._target = torch.zeros_like(self._source)

    def measure(self) -> None:
        """Measure both limits once more."""
        if ops.backends()["cpu"] is None:
            for _ in range(_RUNS):
                start = time.perf_counter()
                operations = ops.multiply_adds(_ITERATIONS)
                rate = operations / (time.perf_counter() - start) / 1e9
                self.peak_gflop_per_s = max(self.peak_gflop_per_s or 0.0, rate)
        start = time.perf_counter()
        self._target.copy_(self._source)
        seconds = time.perf_counter() - start
        moved = 2 * self._source.numel() * self._source.element_size()
        self.copy_gb_per_s = max(self.copy_gb_per_s, moved / seconds / 1e9)
        self.measured += 1

    def finish(self) -> None:
        """Measure until it was often enough."""
        while self.measured < MEASURED:
            self.measure()
