"""How far a network is with pictures that it has to go through."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[Mapping[str, Any]], None]

_SECONDS_BETWEEN = 0.1


class Meter:
    """Counts samples that are through, and tells of them now and then, but for the end.

    Parameters
    ----------
    samples : int
        Of all pictures.
    progress : callable, optional
        Told at which `step` of how many `steps` the work is, in samples, and the `seconds_left`.
    """

    def __init__(self, samples: int, progress: Progress | None) -> None:
        self._samples, self._progress = samples, progress
        self._through = 0
        self._began = self._told = time.monotonic()

    def add(self, samples: int) -> None:
        """So many more are through; those that pieces of a picture share may count in each."""
        self._through += samples
        now = time.monotonic()
        if (
            self._progress is None
            or self._through >= self._samples
            or now - self._told < _SECONDS_BETWEEN
        ):
            return
        self._told = now
        left = (now - self._began) * (self._samples / self._through - 1)
        self._progress({"step": self._through, "steps": self._samples, "seconds_left": left})
