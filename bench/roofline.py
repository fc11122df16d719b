"""The roofline plot: each operation's speed under the limits of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pydenoise import benchmark

MARKS = {"conv1": "o", "conv2": "s", "deconv1": "^", "deconv2": "v", "picture": "D"}
OURS, TORCHS, LIMIT = "#c0392b", "#2c6fbb", "#555555"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Write the plot of a report's convolutions as a PNG file."""
    peak, copied = report["peak_gflop_per_s"], report["copy_gb_per_s"]
    cases = [case for case in report["cases"] if case["group"] == "convolution"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    intensities = [case["flop"] / case["moved_bytes"] for case in cases]
    left, right = min(intensities) / 3, max(intensities) * 3
    if peak:
        ridge = min(max(peak / copied, left), right)
        axes.plot([left, ridge], [left * copied, ridge * copied], color=LIMIT)
        axes.plot([ridge, right], [peak, peak], color=LIMIT)
        axes.text(ridge * 1.1, peak * 1.04, f"multiply-adds {peak:.0f} GFLOP/s", color=LIMIT)
        axes.text(left * 1.05, left * copied, f"copy {copied:.0f} GB/s", va="top", color=LIMIT)
    for case, intensity in zip(cases, intensities, strict=True):
        ways = case["ways"]
        mark = MARKS[case["name"].split()[0]]
        rival = benchmark.torchs(ways)
        shown = [(benchmark.ours(ways), OURS), *([(rival, TORCHS)] if rival else [])]
        for way, colour in shown:
            axes.plot(intensity, ways[way]["gflop_per_s"], mark, color=colour, alpha=0.75)
    for label, colour in (("pydenoise", OURS), ("torch, its fastest way", TORCHS)):
        axes.plot([], [], "o", color=colour, label=label)
    for name, mark in MARKS.items():
        axes.plot([], [], mark, color=LIMIT, label=name)
    axes.set(xscale="log", yscale="log", xlim=(left, right))
    axes.set_xlabel("operations per byte that must be moved")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{report['environment']['cpu']}, {report['environment']['threads']} threads")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=110)
