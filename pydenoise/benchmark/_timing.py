"""Every way of a case in turns, and what the times say beside the machine's limits."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

from pydenoise.benchmark._case import Case, Step

FAULT = 1.05
"""A kernel this many times faster than the multiply-add limit shows that the limit is wrong."""


def _seconds(call: Step, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def measure(case: Case, *, rounds: int, sample_seconds: float) -> dict[str, dict[str, Any]]:
    """Time every way of a case, taking turns.

    Parameters
    ----------
    case : Case
    rounds : int
        How often each way gets its turn, at least 2; the order turns with the round.
    sample_seconds : float
        A turn repeats the call until about this long has passed, and counts the mean. A turn of
        several calls begins with one that does not count, which finds the caches as others left
        them.

    Returns
    -------
    dict
        For each way ``median_us``, ``q1_us`` and ``q3_us``: microseconds per call; ``note`` where
        the way has one.
    """
    calls = {}
    for name, way in case.ways.items():
        with way.context():
            for _ in range(case.warmup):
                way.call()
            calls[name] = max(1, int(sample_seconds / max(_seconds(way.call, 1), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in case.ways}
    names = list(case.ways)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            way = case.ways[name]
            with way.context():
                if calls[name] > 1:
                    way.call()
                samples[name].append(1e6 * _seconds(way.call, calls[name]))
    result: dict[str, dict[str, Any]] = {}
    for name, taken in samples.items():
        q1, median, q3 = statistics.quantiles(taken, n=4, method="inclusive")
        result[name] = {"median_us": median, "q1_us": q1, "q3_us": q3}
        if case.ways[name].note:
            result[name]["note"] = case.ways[name].note
    return result


def add_rates(report: Mapping[str, Any]) -> None:
    """Write into a report what its times mean: rates, and shares of the machine's limits.

    ``gflop_per_s`` and ``share_of_peak`` where a case has arithmetic, else ``gb_per_s`` and
    ``share_of_copy``.
    """
    peak, copied = report["peak_gflop_per_s"], report["copy_gb_per_s"]
    for case in report["cases"]:
        for way in case["ways"].values():
            if case["flop"]:
                way["gflop_per_s"] = case["flop"] / way["median_us"] / 1e3
                way["share_of_peak"] = peak and way["gflop_per_s"] / peak
            elif case["moved_bytes"]:
                way["gb_per_s"] = case["moved_bytes"] / way["median_us"] / 1e3
                way["share_of_copy"] = way["gb_per_s"] / copied


def faults(report: Mapping[str, Any]) -> list[str]:
    """Sentences about kernels faster than the multiply-add limit, which only a wrong limit allows.

    Where a case can save multiplications only the algorithms that never do are held to it, and
    torch's ways nowhere that PYDENOISE_ISA holds the limit, but not torch, to an older
    instruction set.
    """
    lowered = os.environ.get("PYDENOISE_ISA", "auto") != "auto"

    def is_held(saves: bool, way: str) -> bool:
        if way.startswith(("implicit", "im2col")):
            return True
        return not saves and (not lowered or way.startswith("auto"))

    return [
        f"{case['name']}, {name}: {way['gflop_per_s']:.4g} GFLOP/s where the multiply-add limit "
        f"was measured as {report['peak_gflop_per_s']:.4g}"
        for case in report["cases"]
        for name, way in case["ways"].items()
        if is_held(case["saves_multiplications"], name)
        and (way.get("share_of_peak") or 0.0) > FAULT
    ]
