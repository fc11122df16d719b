"""Write what bench/gpu.py measured on a GPU into README.md and RESULTS.md.

    python bench/gpu_report.py

Reads bench/results/gpu_*.json and fills the tables between their gpu markers.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import tables

FIGURES: dict[str, Any] = {}


def part(name: str) -> Any:
    if name not in FIGURES:
        text = (tables.RESULTS / f"gpu_{name}.json").read_text(encoding="utf-8")
        FIGURES[name] = json.loads(text)
        there, first = (FIGURES[each]["environment"] for each in (name, next(iter(FIGURES))))
        if there != first:
            raise SystemExit(f"gpu_{name}.json is of another run or device: {there}, not {first}")
    return FIGURES[name]["figures"]


def microseconds(found: Any, way: str) -> float:
    return float(found[way]["median_us"])


def steps() -> list[list[str]]:
    """A training step of Table I: ours, torch eager, and the best of torch's ways."""
    rows = []
    for batch, found in part("step").items():
        times = {way: microseconds(found, way) for way in found}
        ours = min(time for way, time in times.items() if way.startswith("ours"))
        theirs = {way: time for way, time in times.items() if way.startswith("torch")}
        eager = min(time for way, time in theirs.items() if way in ("torch", "torch channels_last"))
        best = min(theirs, key=lambda way: theirs[way])
        rows.append(
            [f"training step of Table I, {batch}", f"{ours:.0f} µs", f"{eager:.0f} µs",
             f"{theirs[best]:.0f} µs ({best})", f"{theirs[best] / ours:.2f}x"]
        )  # fmt: skip
    return rows


def operations() -> list[list[str]]:
    """cuDNN's time over ours, by operation and memory format."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for key, found in part("convolutions").items():
        *_, quantity, form = key.split()
        ratio = microseconds(found, "torch") / microseconds(found, "ours")
        ratios.setdefault((quantity, form), []).append(ratio)
    return [
        [f"{quantity}, {form}", f"{statistics.median(found):.2f}x",
         f"{min(found):.2f}x", f"{max(found):.2f}x",
         f"{sum(ratio >= 0.7 for ratio in found)} of {len(found)}"]
        for (quantity, form), found in ratios.items()
    ]  # fmt: skip


def columns() -> list[list[str]]:
    """im2col and col2im: torch's time over ours, and our share of the copies' bandwidth."""
    rows = []
    bandwidth = 1e3 * part("limits")["copy"]["gigabytes_a_second"]  # bytes in a microsecond
    for key, found in part("columns").items():
        us = {way: microseconds(found, way) for way in found if way != "bytes"}
        copied = found["bytes"] / bandwidth
        rows.append(
            [key, f"{us['unfold'] / us['im2col']:.1f}x", f"{us['fold'] / us['col2im']:.1f}x",
             f"{copied / us['im2col']:.0%}", f"{copied / us['col2im']:.0%}"]
        )  # fmt: skip
    return rows


def found_by() -> str:
    """How the tests and the sanitizer ended."""
    parts = json.loads((tables.RESULTS / "gpu_parts.json").read_text(encoding="utf-8"))
    names = "tests", "memcheck", "racecheck", "initcheck"
    ends = [(name, parts[name].partition(": ")[2].strip("= ")) for name in names]
    return "; ".join(f"{name}: {end}" for name, end in ends)


def summary() -> str:
    """A step, and a run of ten epochs."""
    untimed = [size for size, ways in part("step").items() if not any("compile" in w for w in ways)]
    environment = FIGURES["step"]["environment"]
    epochs, limits = part("epochs"), part("limits")
    second, capture = epochs["second run"], epochs["capture of a step"]
    return "\n\n".join(
        [
            f"{environment['device']}, torch {environment['torch']}, cuDNN {environment['cudnn']}, "
            f"float32 with TF32 off on both sides, commit {environment['commit']}; copies move "
            f"{limits['copy']['gigabytes_a_second'] / 1000:.1f} TB/s there, `torch.mm` reaches "
            f"{limits['mm']['tflops']:.0f} TFLOP/s. Medians of CUDA events, all ways in turns.",
            tables.table(["", "ours", "torch, eager", "torch, best", "best / ours"], steps())
            + "".join(f"\n\n`torch.compile` found no time at {size}." for size in untimed),
            f"10 epochs over {second['pairs']:,} pairs, batch 16, from pictures in host memory to "
            f"weights in host memory: **{second['seconds']:.1f} s** (the first run of a process "
            f"{epochs['first run']['seconds']:.1f} s; from its start to its first kernel, the "
            "drawing of the pictures between them, "
            f"{epochs['process start to first kernel']['seconds']:.1f} s, to capture a step "
            f"{1000 * capture['seconds']:.0f} ms).",
        ]
    )


def kernels() -> str:
    """Convolutions and patch matrices alone, and what looked for faults."""
    return "\n\n".join(
        [
            "3x3 convolutions of the paper's U-Net, batch 4, kernels alone: cuDNN's time by ours.",
            tables.table(["", "median", "worst", "best", "0.7x or more"], operations()),
            "The patch matrix, against torch's and against copying as many bytes at that rate:",
            tables.table(
                ["", "im2col / unfold", "col2im / fold", "im2col, of copy", "col2im, of copy"],
                columns(),
            ),
            f"What looked for faults: {found_by()}.",
        ]
    )


def main() -> None:
    tables.fill("gpu", summary())
    tables.fill("gpu-kernels", kernels())


if __name__ == "__main__":
    main()
