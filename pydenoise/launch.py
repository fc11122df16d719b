"""What torchrun, or what sets the same environment, tells the processes that it starts."""

from __future__ import annotations

import os
from typing import NamedTuple

_SAID = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


class Launched(NamedTuple):
    """A process among others.

    Attributes
    ----------
    rank, size : int
        Its number among all processes, from 0, and how many they are.
    local_rank, local_size : int
        The same among those of its machine.
    restarts : int
        How often all of them were started again.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    restarts: int


def launched() -> Launched | None:
    """What this process was told; None where it was started alone.

    Raises
    ------
    ValueError
        When it was told what is no number.
    """
    said = os.environ
    if not all(name in said for name in _SAID):
        return None
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"
    usual = dict.fromkeys(names, "0") | {"LOCAL_WORLD_SIZE": "1"}
    try:
        return Launched(*(int(said.get(name, usual[name])) for name in names))
    except ValueError:
        told = ", ".join(f"{name}={said[name]}" for name in names if name in said)
        raise ValueError(f"the launcher's environment holds no numbers: {told}") from None


def cores() -> int:
    """Cores that are for this process: those it may use, or its fair part of them."""
    usable = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    told = launched()
    return max(1, usable // told.local_size) if told else usable
