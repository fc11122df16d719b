"""Where a command computes: on which device, with how many threads, in how much memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pydenoise.launch import cores, launched

if TYPE_CHECKING:
    import torch

Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=256,
        help="Threads to compute with, of each process; torch's own number, or a fair part of the "
        "machine's cores where there are several processes.",
    ),
]


_GROUP = Path("/sys/fs/cgroup")
_USUAL_MEMORY = 2**33


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def place(device: Device) -> torch.device:
    """The device; of several GPUs each process that torchrun started takes its own.

    Raises
    ------
    ValueError
        When there is no GPU for this process, or no kernel for it.
    """
    import torch

    from pydenoise import ops

    missing = ops.backends()["cuda"]
    if device is Device.CPU or (device is Device.AUTO and missing):
        return torch.device("cpu")
    if missing:
        raise ValueError(f"--device cuda: {missing}; take --device cpu")
    told = launched()
    number, wanted = (told.local_rank, told.local_size) if told else (0, 1)
    if wanted > torch.cuda.device_count():
        raise ValueError(
            f"{wanted} processes on this machine, which has {torch.cuda.device_count()} GPUs; "
            "start one for each, or take --device cpu"
        )
    return torch.device("cuda", number)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads within; if None, a fair part where there are other processes."""
    import torch

    before, told = torch.get_num_threads(), launched()
    if count is None and told is not None and told.local_size > 1:
        count = cores()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def free_memory() -> int:
    """Bytes that are available, as the system and its control group say; the fair part of them
    where torchrun started other processes beside this one."""
    found = [*_available(), *_left_to_the_group()]
    told = launched()
    return min(found, default=_USUAL_MEMORY) // (told.local_size if told else 1)


def _available() -> list[int]:
    with suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with suppress(AttributeError, ValueError, OSError):
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return []


def _left_to_the_group() -> list[int]:
    """Files in memory, which make room when it is needed, do not count as taken."""
    with suppress(OSError, ValueError):  # ValueError: no limit
        most, taken = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        return [max(0, most - taken + int(stat.get("inactive_file", 0)))]
    return []
