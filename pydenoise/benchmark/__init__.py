"""Check, then time: the package against torch on the machine at hand.

Every way of doing a case (ours, torch's) first has to give the right result; then all ways take
turns, round by round, so that a machine that slows down slows them all. Reported are medians with
their quartiles.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import pydenoise
from pydenoise.benchmark._cases import (
    LEARNING_RATE,
    MOMENTUM,
    Case,
    Competitor,
    Step,
    Way,
    WrongResult,
    cases,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "run",
    "tables",
    "rows",
    "measure",
    "environment",
    "copy_gb_per_s",
    "cases",
    "Case",
    "Way",
    "Competitor",
    "Step",
    "WrongResult",
    "LEARNING_RATE",
    "MOMENTUM",
    "GROUPS",
]


def _seconds(call: Step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def measure(case: Case, *, rounds: int, sample_seconds: float) -> dict[str, dict[str, float]]:
    """Time every way of a case, taking turns.

    Parameters
    ----------
    case : Case
    rounds : int
        How often each way gets its turn, at least 2; the order turns with the round.
    sample_seconds : float
        A turn repeats the call until about this long has passed, and counts the mean.

    Returns
    -------
    dict
        For each way ``median_us``, ``q1_us`` and ``q3_us``: microseconds per call.
    """
    calls = {}
    for name, way in case.ways.items():
        with way.context():
            way.call()
            calls[name] = max(1, int(sample_seconds / max(_seconds(way.call, 1), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in case.ways}
    names = list(case.ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            way = case.ways[name]
            with way.context():
                samples[name].append(1e6 * _seconds(way.call, calls[name]))
    result = {}
    for name, taken in samples.items():
        q1, median, q3 = statistics.quantiles(taken, n=4, method="inclusive")
        result[name] = {"median_us": median, "q1_us": q1, "q3_us": q3}
    return result


def copy_gb_per_s(*, rounds: int = 5, mebibytes: int = 128) -> float:
    """Bytes read and written per second by a copy too large for any cache, in 1e9."""
    source = torch.zeros(mebibytes << 18, dtype=torch.float32)
    target = torch.zeros_like(source)
    best = min(_seconds(lambda: target.copy_(source), 1) for _ in range(rounds))
    return 2 * source.numel() * source.element_size() / best / 1e9


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
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check and time every case with the number of threads torch has now.

    Parameters
    ----------
    quick : bool
        Few short turns, under a minute altogether; otherwise several minutes.
    competitors : mapping of str to callable, optional
        See `cases`.
    progress : callable, optional
        Gets the name of each case before it runs.

    Returns
    -------
    dict
        ``environment``, ``copy_gb_per_s`` and ``cases``; fit for ``json.dump``.

    Raises
    ------
    WrongResult
        If any way is wrong; nothing is reported then.
    """
    rounds, sample_seconds = (5, 0.004) if quick else (21, 0.02)
    report: dict[str, Any] = {
        "environment": environment(),
        "copy_gb_per_s": copy_gb_per_s(),
        "cases": [],
    }
    for case in cases(competitors):
        if progress is not None:
            progress(case.name)
        case.check()
        report["cases"].append(
            {
                "name": case.name,
                "group": case.group,
                "reason": case.reason,
                "flop": case.flop,
                "moved_bytes": case.moved_bytes,
                "ways": measure(case, rounds=rounds, sample_seconds=sample_seconds),
            }
        )
    return report


# --- tables -------------------------------------------------------------------------------------

GROUPS = {
    "convolution": "convolutions, milliseconds per call",
    "columns": "im2col and col2im into a reused buffer, milliseconds per call",
    "training": "training, milliseconds per step",
}


def rows(report: Mapping[str, Any], group: str) -> tuple[list[str], list[list[str]]]:
    """A group of cases as a table: the column titles, and one row of words per case.

    The last column divides torch's fastest way by our fastest: above 1, we win.
    """
    chosen = [case for case in report["cases"] if case["group"] == group]
    ways = list(dict.fromkeys(name for case in chosen for name in case["ways"]))
    body = []
    for case in chosen:
        medians = {name: timing["median_us"] / 1e3 for name, timing in case["ways"].items()}
        theirs = [time for name, time in medians.items() if name.startswith("torch")]
        ours = [time for name, time in medians.items() if not name.startswith("torch")]
        ratio = f"{min(theirs) / min(ours):.2f}x" if theirs else ""
        cells = [f"{medians[name]:.3g}" if name in medians else "" for name in ways]
        body.append([case["name"], *cells, ratio])
    return ["", *ways, "torch / ours"], body


def tables(report: Mapping[str, Any]) -> list[Table]:
    """The report as rich tables, one for each group of cases."""
    from rich.table import Table

    result = []
    for group, title in GROUPS.items():
        titles, body = rows(report, group)
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(titles):
            table.add_column(name, justify="right" if index else "left")
        for row in body:
            table.add_row(*row)
        result.append(table)
    return result
