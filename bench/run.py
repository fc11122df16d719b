"""`make bench`: every case of `pydenoise.benchmark` with one thread and with all.

Adds what only torch itself can do, a training step by autograd, eager and compiled. Writes
bench/results/benchmark.json and, after a full run, the tables of README.md between its markers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import readme
import torch
import torch_twin
from rich.console import Console
from torch import Tensor

from pydenoise import benchmark


def torch_training(
    memory_format: torch.memory_format, compiled: bool = False
) -> benchmark.Competitor:
    """Table I, MSE and momentum as torch users write them."""

    def start(state: Mapping[str, Tensor], source: Tensor, target: Tensor) -> benchmark.Step:
        model = torch_twin.table_one()
        model.load_state_dict(state)
        model = model.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=benchmark.LEARNING_RATE, momentum=benchmark.MOMENTUM
        )
        loss_of = torch.nn.MSELoss()
        if compiled:
            model = torch.compile(model)
        source = source.contiguous(memory_format=memory_format)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model(source), target)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    return start


def competitors(quick: bool) -> dict[str, benchmark.Competitor]:
    ways = {
        "torch autograd": torch_training(torch.contiguous_format),
        "torch autograd channels_last": torch_training(torch.channels_last),
    }
    if not quick:
        ways["torch.compile"] = torch_training(torch.contiguous_format, compiled=True)
    return ways


def commit() -> str:
    """The commit measured, marked where the tree has changes beside it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=readme.ROOT, capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


def markdown(reports: list[dict[str, Any]]) -> str:
    """The tables of README.md, each under a line that says what was measured where."""
    first = reports[0]["environment"]
    parts = [
        f"{first['cpu']}, {first['cores']} cores; torch {first['torch']}, "
        f"Python {first['python']}; pydenoise {first['pydenoise']} at {reports[0]['commit']}, "
        f"{first['date'][:10]}. Medians of interleaved rounds, float32, every result checked "
        "first; the last column divides torch's fastest way by our fastest."
    ]
    for report in reports:
        threads = report["environment"]["threads"]
        counted = "1 thread" if threads == 1 else f"{threads} threads"
        for group, title in benchmark.GROUPS.items():
            titles, body = benchmark.rows(report, group)
            lines = [f"| {' | '.join(row)} |" for row in (titles, *body)]
            lines.insert(1, "| --- |" + " ---: |" * (len(titles) - 1))
            parts.append(f"**{title[0].upper()}{title[1:]}, {counted}**\n\n" + "\n".join(lines))
        copied = report["copy_gb_per_s"]
        parts.append(f"A plain copy moved {copied:.3g} GB/s in the same run ({counted}).")
    return "\n\n".join(parts)


def say_name(name: str) -> None:
    print(f"  {name}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="under a minute; README stays as it is"
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", help="thread counts to measure (default: 1 and all cores)"
    )
    parser.add_argument("--results", type=Path, default=readme.RESULTS)
    options = parser.parse_args()
    counts = options.threads or sorted({1, len(os.sched_getaffinity(0))})

    console = Console(width=140)
    reports = []
    for threads in counts:
        torch.set_num_threads(threads)
        print(f"{threads} thread(s)", file=sys.stderr)
        report = benchmark.run(
            quick=options.quick, competitors=competitors(options.quick), progress=say_name
        )
        reports.append({"commit": commit(), **report})
        console.print(f"[bold]{threads} thread(s)[/bold]", *benchmark.tables(report), sep="\n")

    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / ("quick.json" if options.quick else "benchmark.json")
    target.write_text(json.dumps(reports, indent=1) + "\n")
    print(f"wrote {target}")
    if not options.quick:
        filled = readme.fill("bench", markdown(reports))
        print("README.md: " + ("tables refreshed" if filled else "no bench markers to fill"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
