"""Check, then time: the package against torch and against the machine's limits, where you are.

Every way of doing a case (ours, torch's) first has to give the right result; then all ways take
turns, round by round, so that a machine that slows down slows them all. Reported are medians with
their quartiles, and what share they are of what the machine can do at most.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import pydenoise
from pydenoise import ops
from pydenoise.benchmark._case import Case, Step, Way, WrongResult
from pydenoise.benchmark._cases import cases
from pydenoise.benchmark._networks import (
    BATCH,
    LEARNING_RATE,
    LITTLE,
    MOMENTUM,
    WARMUP_STEPS,
    Competitor,
    Task,
    first_losses,
    flop,
    loss_and_gradients,
    training_step,
)
from pydenoise.benchmark._ruler import Ruler
from pydenoise.benchmark._tables import GROUPS, ours, percent, rows, speedup, tables, torchs
from pydenoise.benchmark._timing import add_rates, faults, measure

__all__ = [
    "run",
    "tables",
    "rows",
    "measure",
    "environment",
    "cases",
    "training_step",
    "Case",
    "Way",
    "Step",
    "WrongResult",
    "Ruler",
    # what a competitor needs to know
    "Competitor",
    "Task",
    "first_losses",
    "loss_and_gradients",
    "flop",
    "BATCH",
    "LEARNING_RATE",
    "LITTLE",
    "MOMENTUM",
    "WARMUP_STEPS",
    # reading a report
    "GROUPS",
    "ours",
    "torchs",
    "speedup",
    "percent",
]


def environment() -> dict[str, Any]:
    """What a figure depends on: processor, threads, versions and the chosen kernels."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.M)
        cpu = named[1] if named else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": ops.running()["isa"],
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pydenoise": pydenoise.__version__,
        "config": pydenoise.show_config(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def run(
    *,
    quick: bool = True,
    competitors: Mapping[str, Competitor] | None = None,
    only: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check and time every case with the number of threads torch has now.

    Parameters
    ----------
    quick : bool
        Few short turns, under a minute altogether, without the largest cases and the slowest ways;
        otherwise several minutes.
    competitors, only
        See `cases`.
    progress : callable, optional
        Gets the name of each case before it runs.

    Returns
    -------
    dict
        ``environment``, the limits ``peak_gflop_per_s`` and ``copy_gb_per_s`` (see `Ruler`),
        ``cases``, and ``faults``: sentences about kernels that ran more than 5 % faster than the
        limit, which then is wrong, so that no share can be trusted. Fit for ``json.dump``.

    Raises
    ------
    WrongResult
        If any way is wrong; nothing is reported then.
    """
    rounds, sample_seconds = (5, 0.004) if quick else (21, 0.02)
    ruler = Ruler()
    measured = []
    for case in cases(competitors, full=not quick, only=only):
        if progress is not None:
            progress(case.name)
        case.check()
        ruler.measure()
        measured.append(
            {
                "name": case.name,
                "group": case.group,
                "reason": case.reason,
                "flop": case.flop,
                "moved_bytes": case.moved_bytes,
                "pictures": case.pictures,
                "saves_multiplications": case.saves_multiplications,
                "ways": measure(case, rounds=rounds, sample_seconds=sample_seconds),
            }
        )
    ruler.finish()
    report: dict[str, Any] = {
        "environment": environment(),
        "peak_gflop_per_s": ruler.peak_gflop_per_s,
        "copy_gb_per_s": ruler.copy_gb_per_s,
        "cases": measured,
    }
    add_rates(report)
    return {**report, "faults": faults(report)}
