"""What the machine can do at most, measured beside the cases by loops of our own."""

from __future__ import annotations

import time

import torch

from pydenoise import ops

RUNS = 10
_RUN_SECONDS = 0.01
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
    runs : int
        How often both were measured.
    """

    def __init__(self) -> None:
        self.peak_gflop_per_s: float | None = None
        self.copy_gb_per_s = 0.0
        self.runs = 0
        self._source = torch.zeros(_MEBIBYTES << 18, dtype=torch.float32)
        self._target = torch.zeros_like(self._source)
        self._iterations = 0
        if ops.backends()["cpu"] is None:
            self._iterations = 10_000
            seconds, _ = min(self._multiply_adds() for _ in range(3))
            self._iterations = max(1, int(self._iterations * _RUN_SECONDS / seconds))

    def measure(self) -> None:
        """Measure both limits once more."""
        if self._iterations:
            seconds, operations = self._multiply_adds()
            self.peak_gflop_per_s = max(self.peak_gflop_per_s or 0.0, operations / seconds / 1e9)
        start = time.perf_counter()
        self._target.copy_(self._source)
        seconds = time.perf_counter() - start
        moved = 2 * self._source.numel() * self._source.element_size()
        self.copy_gb_per_s = max(self.copy_gb_per_s, moved / seconds / 1e9)
        self.runs += 1

    def finish(self) -> None:
        """Measure until there were enough runs."""
        while self.runs < RUNS:
            self.measure()

    def _multiply_adds(self) -> tuple[float, int]:
        """Seconds and operations of one run of the register loop."""
        start = time.perf_counter()
        operations = ops.multiply_adds(self._iterations)
        return time.perf_counter() - start, operations
