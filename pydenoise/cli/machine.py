"""Where a command computes: on which device, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
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
