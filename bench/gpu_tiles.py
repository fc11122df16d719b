"""Times every tile of the products on a GPU, and fits to it what the kernels expect of each.

    python bench/gpu_tiles.py [--rehearse]
    python bench/gpu_tiles.py --fit

The first, on a machine with a GPU, takes every operation of bench/gpu.py's convolutions and of
Table I by every tile, sums over pixels in several numbers of parts, and writes gpu_tiles.json under
bench/results/. The second needs numpy and scipy and no GPU: it prints what kFloatTiles,
kStepsOfStart and kTimeOfPart of csrc/cuda would be for that device, and where they would choose
another tile than the quickest. `--rehearse` runs small shapes on the processor.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from typing import Any, NamedTuple

import tables
import torch
from gpu import IN_GRAPH, UNET, Place, Report

from pydenoise import ops

SHAPES = [(4, before, after, side, 1) for before, after, side in UNET]
SHAPES += [(16, 3, 48, 32, 2), (16, 48, 96, 16, 2)]
MULTIPROCESSORS = 132
REPLAYS = 5


class Tile(NamedTuple):
    """A block's share of a product, and how many such blocks share a multiprocessor."""

    rows: int
    columns: int
    resident: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.resident}"

    def needed(self, sizes: Any) -> int:
        """How many cover one product."""
        return math.ceil(sizes["rows"] / self.rows) * math.ceil(sizes["columns"] / self.columns)


class Way(NamedTuple):
    """How a product is made."""

    tile: Tile
    parts: int

    def __str__(self) -> str:
        return f"{self.tile}/{self.parts}"

    @classmethod
    def of(cls, text: str) -> Way:
        tile, parts = text.split("/")
        return cls(Tile(*map(int, tile.split("x"))), int(parts))


def calls(place: Place, rehearse: bool) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """What is to be timed: the sizes of a product, and the call."""
    for batch, before, after, side, stride in SHAPES[-2:] if rehearse else SHAPES:
        for form in (torch.contiguous_format, torch.channels_last):
            x = place.random(batch, before, side, side).contiguous(memory_format=form)
            w = place.random(after, before, 3, 3, seed=1)
            z = ops.conv2d(x, w, None, stride, 1)
            gz = torch.rand_like(z, memory_format=torch.preserve_format)
            pixels, terms, phases = z[:, 0].numel(), 9 * before, stride**2
            sizes = {
                "forward": (pixels, after, 1, terms),
                "grad_input": (x[:, 0].numel() // phases, before, phases, 9 * after // phases),
                "grad_weight": (terms, after, 1, pixels),
            }
            ways = {
                "forward": partial(ops.conv2d, x, w, None, stride, 1),
                "grad_input": partial(ops.conv2d_grad_input, x.shape, w, gz, stride, 1),
                "grad_weight": partial(ops.conv2d_grad_weight, x, w.shape, gz, stride, 1),
            }
            name = "channels_last" if form is torch.channels_last else "contiguous"
            for quantity, (rows, columns, times, steps) in sizes.items():
                if columns <= 4:
                    continue
                found = {"rows": rows, "columns": columns, "times": times, "steps": steps}
                key = f"{batch}x{before}->{after} {side}x{side} stride {stride} {quantity} {name}"
                yield {"key": key, "sums": quantity == "grad_weight", **found}, ways[quantity]


def part_numbers(sizes: dict[str, Any], tile: Tile) -> list[int]:
    """Parts that a sum over pixels is tried in: a quarter to the double of what runs at once."""
    if not sizes["sums"]:
        return [1]
    blocks = [MULTIPROCESSORS * tile.resident * quarters // 4 for quarters in (1, 2, 3, 4, 8)]
    counts = [min(512, max(1, count // tile.needed(sizes))) for count in blocks]
    return sorted({math.ceil(sizes["steps"] / steps_of(sizes, count)) for count in counts})


def steps_of(sizes: dict[str, Any], parts: int) -> int:
    """Those of one part: whole panels."""
    steps = math.ceil(sizes["steps"] / parts)
    return 32 * math.ceil(steps / 32) if sizes["sums"] else steps


class Timer:
    """Times calls, many of them in one CUDA graph; torch's own scope would clean up each time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._graph: Any = None  # the last one holds the memory that the next one takes

    def microseconds(self, call: Callable[[], Any]) -> float:
        """The median of a call."""
        if self._place.rehearse:
            return self._place.microseconds(call, 1)
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        pool = torch.cuda.graph_pool_handle() if self._graph is None else self._graph.pool()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            call()
            graph.capture_begin(pool=pool)
            try:
                for _ in range(IN_GRAPH):
                    call()
            finally:
                graph.capture_end()
        torch.cuda.synchronize()
        self._graph = graph
        graph.replay()
        taken = [self._place.microseconds(graph.replay, 1) / IN_GRAPH for _ in range(REPLAYS)]
        return statistics.median(taken)


def choices(rehearse: bool) -> tuple[list[Tile], Callable[[int, int], None]]:
    """The tiles there are, and what makes the kernels take one and a number of parts."""
    if rehearse:
        return [Tile(32, 16, 6), Tile(16, 16, 6)], lambda tile, parts: None
    from pydenoise import _cuda

    return list(starmap(Tile, _cuda.FLOAT_TILES)), _cuda.prescribe


def measure(rehearse: bool) -> None:
    place, (tiles, prescribe) = Place(rehearse), choices(rehearse)
    report, timer = Report("tiles", place), Timer(place)
    try:
        for sizes, call in calls(place, rehearse):
            key = sizes.pop("key")
            prescribe(-1, 0)
            right = call()
            found = {}
            for index, tile in enumerate(tiles):
                for way in (Way(tile, parts) for parts in part_numbers(sizes, tile)):
                    prescribe(index, way.parts if sizes["sums"] else 0)
                    if report.same(f"{key}, {way}", call(), right, 1e-5):
                        found[str(way)] = timer.microseconds(call)
            report.keep(key, {**sizes, "microseconds": found})
    finally:
        prescribe(-1, 0)
    print(f"tiles: {len(report.figures)} operations")
    if report.wrong:
        raise SystemExit("\n".join(report.wrong))


def expected(sizes: Any, way: Way, speed: float, rest: Any) -> float:
    """What product_plan.cpp says, and the launches beside it."""
    (rows, columns, resident), parts = way
    steps_of_start, time_of_part, launches, adding = rest
    blocks = way.tile.needed(sizes) * sizes["times"] * parts
    rounds, left = divmod(blocks, MULTIPROCESSORS * resident)
    turns = rounds * (resident + 1) + (math.ceil(left / MULTIPROCESSORS) + 1 if left else 0)
    steps = steps_of(sizes, parts) + steps_of_start
    time = turns * steps * rows * columns * MULTIPROCESSORS / (1e6 * speed) + launches
    if sizes["sums"]:
        time += adding + time_of_part * parts * sizes["rows"] * sizes["columns"]
    return time


def fit() -> None:
    import numpy as np
    from scipy.optimize import least_squares

    text = (tables.RESULTS / "gpu_tiles.json").read_text(encoding="utf-8")
    figures = json.loads(text)["figures"]
    taken = [
        (sizes, Way.of(way), time)
        for sizes in figures.values()
        for way, time in sizes["microseconds"].items()
    ]
    tiles = list(dict.fromkeys(way.tile for _, way, _ in taken))

    def errors(logarithms: Any) -> list[float]:
        numbers = np.exp(logarithms)
        speeds, rest = dict(zip(tiles, numbers, strict=False)), numbers[len(tiles) :]
        return [
            math.log(expected(sizes, way, speeds[way.tile], rest) / time)
            for sizes, way, time in taken
        ]

    start = np.log([*[15.0] * len(tiles), 30.0, 3e-6, 3.0, 2.0])
    found = least_squares(errors, start, loss="soft_l1", f_scale=0.1).x
    numbers = np.exp(found)
    speeds, rest = dict(zip(tiles, numbers, strict=False)), numbers[len(tiles) :]
    for tile, speed in speeds.items():
        print(f"{tile.rows} x {tile.columns}: speed {speed:.1f}")
    steps_of_start, time_of_part, *_ = rest
    print(f"kStepsOfStart {steps_of_start:.0f}, kTimeOfPart {time_of_part:.2g}")
    off = np.abs(errors(found))
    print(f"of {len(taken)}, half within {np.median(off):.0%}, 9 in 10 within "
          f"{np.quantile(off, 0.9):.0%}")  # fmt: skip
    for key, sizes in figures.items():
        times = sizes["microseconds"]

        def guess(text: str, sizes: Any = sizes) -> float:
            way = Way.of(text)
            return expected(sizes, way, speeds[way.tile], rest)

        chosen, best = min(times, key=guess), min(times, key=times.__getitem__)
        if times[chosen] > 1.05 * times[best]:
            print(f"{key}: {chosen} takes {times[chosen]:.1f} µs, {best} {times[best]:.1f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    if options.fit:
        fit()
        return
    reason = ops.backends()["cuda"]
    if reason is not None and not options.rehearse:
        raise SystemExit(f"no GPU to measure on: {reason}")
    measure(options.rehearse)


if __name__ == "__main__":
    main()
