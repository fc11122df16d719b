"""`make bench-scaling`: a training step over batch size, picture side and threads, beside torch.

Every point is kept in bench/results/scaling.json when it is measured; a run that was stopped goes
on where it was, unless the package, the machine or torch have changed since. At the end RESULTS.md
tells what the plot shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import tables
import torch
import torch_ways
from matplotlib.figure import Figure

from pydenoise import benchmark

ROUNDS, SAMPLE_SECONDS = 9, 0.05
FEW_PIXELS = 1 << 17
PANELS = {
    "batch": ("pictures of 3x32x32 in a batch", "pictures / s"),
    "side": ("side of the pictures, batches of 16, 4 at 256, else 1", "megapixels / s"),
    "threads": ("threads, batches of 16 x 3x32x32", "pictures / s"),
}
COLOURS = {
    "auto": "#c0392b",
    "torch": "#2c6fbb",
    "torch channels_last": "#7fb3e0",
    "torch.compile": "#1e7d4f",
    "torch.compile channels_last": "#7cc7a1",
}
LABELS = {"auto": "pydenoise"}
SAME = ("cpu", "isa", "torch", "pydenoise")


class Point(NamedTuple):
    """Where on which panel a step is measured."""

    panel: str
    batch: int
    side: int
    threads: int

    @property
    def x(self) -> int:
        return int(getattr(self, self.panel))


def points(cores: int) -> Iterator[Point]:
    """All points, panel by panel."""
    for power in range(10):
        yield Point("batch", 1 << power, 32, cores)
    for power in range(4, 11):
        side = 1 << power
        yield Point("side", max(1, min(16, (512 // side) ** 2)), side, cores)
    for threads in range(1, cores + 1):
        yield Point("threads", 16, 32, threads)


def measure(point: Point, compiled: bool) -> dict[str, Any]:
    torch.set_num_threads(point.threads)
    competitors = torch_ways.competitors(compiled)
    case = benchmark.training_step(point.batch, point.side, competitors, full=False)
    ways = {name: way for name, way in case.ways.items() if name in COLOURS}
    few = point.batch * point.side**2 <= FEW_PIXELS
    case = replace(case, ways=ways, warmup=benchmark.WARMUP_STEPS if few else 3)
    case.check()
    return benchmark.measure(case, rounds=ROUNDS, sample_seconds=SAMPLE_SECONDS)


def speed(kept: dict[str, Any], way: str) -> float:
    """Pictures, or on the panel of sides megapixels, per second."""
    per_second = kept["batch"] / (kept["ways"][way]["median_us"] / 1e6)
    return per_second * kept["side"] ** 2 / 1e6 if kept["panel"] == "side" else per_second


def draw(path: Path, results: dict[str, Any]) -> None:
    """The three panels as a PNG file."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (panel, (abscissa, ordinate)) in zip(
        figure.subplots(1, 3), PANELS.items(), strict=True
    ):
        kept = [point for point in results["points"] if point["panel"] == panel]
        kept.sort(key=lambda point: point[panel])
        for way, colour in COLOURS.items():
            shown = [point for point in kept if way in point["ways"]]
            xs, ys = [point[panel] for point in shown], [speed(point, way) for point in shown]
            if shown:
                axes.plot(xs, ys, "o-", color=colour, label=LABELS.get(way, way), markersize=4)
        if panel != "threads":
            axes.set_xscale("log", base=2)
        if kept:
            axes.set_xticks(sorted({point[panel] for point in kept}))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(abscissa)
        axes.set_ylabel(ordinate)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def begin(path: Path) -> dict[str, Any]:
    """The results so far, or new ones where they are of something else."""
    now = {"commit": tables.commit(), "environment": benchmark.environment(), "points": []}
    if not path.exists():
        return now
    before: dict[str, Any] = json.loads(path.read_text())
    known = before["environment"]
    if before["commit"] == now["commit"] and all(
        known[name] == now["environment"][name] for name in SAME
    ):
        return before
    print(f"{path.name} is of {before['commit']} or of another machine: measuring anew")
    return now


def markdown(results: dict[str, Any]) -> str:
    where = results["environment"]
    return (
        f"{where['cpu']}, {where['cores']} cores, {where['isa']}; torch {where['torch']}; "
        f"pydenoise {where['pydenoise']} at {results['commit']}. A training step of Table I, "
        "medians."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", nargs="+", choices=list(PANELS), default=list(PANELS))
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    parser.add_argument("--most-pixels", type=int, default=1 << 20, help="in a batch")
    parser.add_argument("--results", type=Path, default=tables.RESULTS)
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / "scaling.json"
    results = begin(target)
    cores = len(os.sched_getaffinity(0))
    done = {tuple(kept[name] for name in Point._fields) for kept in results["points"]}
    for point in points(cores):
        fits = point.batch * point.side**2 <= options.most_pixels
        if point.panel in options.panels and fits and tuple(point) not in done:
            print(f"  {point.panel} {point.x}", file=sys.stderr, flush=True)
            ways = measure(point, options.compile)
            results["points"].append({**point._asdict(), "ways": ways})
            target.write_text(json.dumps(results, indent=1) + "\n")
    draw(options.results / "scaling.png", results)
    if options.results == tables.RESULTS:
        tables.fill("scaling", markdown(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
