"""Which part of a batch a process does: one of those that torchrun started, or of a job array."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import NamedTuple

import typer

from pydenoise.launch import launched


class Part(NamedTuple):
    """One of so many parts of a batch, by its number from 0; its jobs lie that far apart."""

    number: int
    of: int

    def holds(self, place: int) -> bool:
        """Whether the job at this place of the plan is one of this part."""
        return place % self.of == self.number


WHOLE = Part(0, 1)

_SECONDS_BETWEEN_LOOKS = 0.2


def own_part(asked: str | None, workers: int) -> Part:
    """This process's part: the one asked for as K/N, or that of its rank.

    Raises
    ------
    typer.BadParameter
        When what is asked for is no part, or the launcher has cut the batch already.
    """
    told = launched()
    if told is None:
        return WHOLE if asked is None else _parsed(asked)
    if asked is not None:
        raise typer.BadParameter(
            f"--part {asked}: torchrun gives each process its part already; leave out one of them"
        )
    if workers > 1:
        raise typer.BadParameter(
            f"--workers {workers}: under torchrun each process is a worker already; leave it out, "
            "and start more with --nproc-per-node"
        )
    return Part(told.rank, told.size)


def leave_last(is_failed: bool) -> None:
    """Let a process that is to exit with an error wait until all that torchrun started are through
    with their parts, for it ends all when one does so; the others only tell that they are.

    Notes
    -----
    They tell it to the store by which torchrun itself assembles them; other launchers have none.
    """
    told = launched()
    if told is None or told.size == 1:
        return
    from torch.distributed import is_torchelastic_launched
    from torch.distributed.rendezvous import rendezvous

    if not is_torchelastic_launched():
        return
    through = f"pydenoise/denoise/through/{told.restarts}"
    with suppress(RuntimeError):  # the store is gone, and with it who would end us
        store, _, _ = next(rendezvous("env://"))
        store.add(through, 1)
        while is_failed and store.add(through, 0) < told.size:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _parsed(text: str) -> Part:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise typer.BadParameter(f"--part {text}: expected K/N with K from 1 to N, such as 2/8")
    return Part(number - 1, count)
