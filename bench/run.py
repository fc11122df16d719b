"""`make bench`: every case of `pydenoise.benchmark` with one thread and with all.

Adds what only torch itself can do: layers by autograd, eager and compiled. Writes
bench/results/benchmark.json after each thread count and, after a full run, the tables of README.md
and RESULTS.md, and their roofline plot.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import memory
import requirements
import roofline
import tables
import torch
import torch_ways
from requirements import counted
from rich.console import Console

from pydenoise import benchmark


def header(results: dict[str, Any]) -> str:
    """What was measured where, in a paragraph."""
    first = results["reports"][0]["environment"]
    limits = "; ".join(
        f"{counted(report)}: {report['peak_gflop_per_s'] or float('nan'):.0f} GFLOP/s, "
        f"{report['copy_gb_per_s']:.0f} GB/s"
        for report in results["reports"]
    )
    return (
        f"{first['cpu']}, {first['cores']} cores, {first['isa']}; torch {first['torch']}, "
        f"Python {first['python']}; pydenoise {first['pydenoise']} at {results['commit']}, "
        f"{first['date'][:10]}. float32, every result checked first; medians of interleaved "
        "rounds. Multiply-add peak and copy bandwidth in the same run, best of at least ten: "
        f"{limits}. `ours` is what runs without being asked for, `im2col` the report's own chain. "
        "Shares of the peak count the direct method's products, of which `ours` saves some."
    )


def required(results: dict[str, Any]) -> str:
    """What was required, and what was measured."""
    lines = requirements.lines(results["reports"], results["memory"])
    rows = [line.cells() for line in lines]
    return f"{header(results)}\n\n{tables.table(requirements.TITLES, rows)}"


def cases(results: dict[str, Any]) -> str:
    """Each group of cases with all threads."""
    most = results["reports"][-1]
    parts = []
    for group, (title, *_) in benchmark.GROUPS.items():
        titles, rows = benchmark.rows(most, group)
        if rows:
            parts.append(f"**{title}, {counted(most)}**\n\n{tables.table(titles, rows)}")
    return "\n\n".join(parts)


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="short turns, nothing compiled; fills no table"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", help="thread counts to measure (default: 1 and all cores)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only the cases whose names contain one of these; prints, writes nothing",
    )
    parser.add_argument("--results", type=Path, default=tables.RESULTS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    counts = sorted(options.threads or {1, len(os.sched_getaffinity(0))})
    console = Console(width=150)
    target = options.results / ("quick.json" if options.quick else "benchmark.json")
    results: dict[str, Any] = {"commit": tables.commit(), "reports": [], "memory": {}}

    def save() -> None:
        if not options.only:
            options.results.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(results, indent=1) + "\n")

    for threads in counts:
        torch.set_num_threads(threads)
        say(f"{threads} thread(s)")
        competitors = torch_ways.competitors(compiled=not options.quick)
        report = benchmark.run(
            quick=options.quick, competitors=competitors, only=options.only, progress=say
        )
        results["reports"].append(report)
        save()
        console.print(f"[bold]{counted(report)}[/bold]", *benchmark.tables(report), sep="\n")
    if not options.quick and not options.only:
        say("peak memory")
        results["memory"] = memory.measure()
        save()
    for line in requirements.lines(results["reports"], results["memory"]):
        print(" | ".join(filter(None, line.cells())))
    faults = [fault for report in results["reports"] for fault in report["faults"]]
    if faults:
        print(
            "the limit was measured too low, as on a busy machine:",
            *faults,
            sep="\n  ",
            file=sys.stderr,
        )
        return 1
    if not options.quick and not options.only:
        roofline.draw(options.results / "roofline.png", results["reports"][-1])
        tables.fill("bench", required(results))
        tables.fill("bench-cases", cases(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
