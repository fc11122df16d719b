"""What the kernels have to show, line by line, beside what a run measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from pydenoise import benchmark

EAGER = ("torch", "torch channels_last")
COMPILED = ("torch.compile", "torch.compile channels_last")
LAYERS = ("conv1", "conv2", "deconv1", "deconv2")
STEP = "step 16x3x32x32"
EPOCHS, PAIRS = 10, 50_000

TITLES = ["", "ours", "torch", "faster by", "required", "of the peak", ""]


class Line(NamedTuple):
    """A requirement and its figures, as words; `met` is None where nothing is required."""

    what: str
    ours: str
    torch: str
    faster: str
    required: str
    share: str
    met: bool | None

    def cells(self) -> list[str]:
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        return [*self[:-1], verdict]


def _case(report: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((case for case in report["cases"] if case["name"] == name), None)


def counted(report: Mapping[str, Any]) -> str:
    threads = report["environment"]["threads"]
    return "1 thread" if threads == 1 else f"{threads} threads"


def said(way: str) -> str:
    """A way of torch's without its name."""
    return way.removeprefix("torch").strip(" .") or "contiguous"


def milliseconds(way: Mapping[str, Any]) -> str:
    return f"{way['median_us'] / 1e3:.3g} ms"


def _against(case: Mapping[str, Any], what: str, rival: str, required: float | None) -> Line:
    """One case against one of torch's ways."""
    ways = case["ways"]
    mine = ways[benchmark.ours(ways)]
    faster = ways[rival]["median_us"] / mine["median_us"]
    return Line(
        what,
        milliseconds(mine),
        f"{milliseconds(ways[rival])} ({said(rival)})",
        f"{faster:.2f}x",
        "" if required is None else f"{required:.1f}x",
        benchmark.percent(mine.get("share_of_peak")),
        None if required is None else faster >= required,
    )


def _timed(
    what: str,
    report: Mapping[str, Any],
    name: str,
    required: float,
    among: Collection[str] | None = None,
) -> Iterator[Line]:
    """One case against torch's fastest way, or the fastest of some of them.

    Where another way of torch's is faster than those, a second line says so.
    """
    case = _case(report, name)
    rival = case and benchmark.torchs(case["ways"], among)
    if case is None or rival is None:
        return
    yield _against(case, what, rival, required)
    fastest = benchmark.torchs(case["ways"])
    if among and fastest and fastest not in among:
        yield _against(case, f"{what}, torch's fastest", fastest, None)


def _share(report: Mapping[str, Any], required: float) -> Iterator[Line]:
    """Of the algorithm that does all the products which are counted."""
    case = _case(report, STEP)
    share = case and case["ways"]["implicit"]["share_of_peak"]
    if share:
        limit = f"{100 * required:.0f} %"
        yield Line(
            "share of the multiply-add peak over that step, no product saved",
            "",
            "",
            "",
            limit,
            benchmark.percent(share),
            share >= required,
        )


def _overhead(
    single: Mapping[str, Any], report: Mapping[str, Any], required: float
) -> Iterator[Line]:
    """Python's and the dispatch's part of the step: a step with nothing to compute beside it, on
    one thread, where no kernel waits for another one's."""
    little, whole = _case(single, benchmark.LITTLE), _case(report, STEP)
    if little is None or whole is None:
        return
    mine, step = (case["ways"][benchmark.ours(case["ways"])] for case in (little, whole))
    share = mine["median_us"] / step["median_us"]
    yield Line(
        f"all but arithmetic: a step of 2 channels on one picture of 8x8, {counted(single)}",
        milliseconds(mine),
        "",
        "",
        f"{100 * required:.0f} % of that step",
        f"{100 * share:.1f} % of it",
        share <= required,
    )


def _together(
    what: str,
    report: Mapping[str, Any],
    belongs: Callable[[str], bool],
    of: Callable[[list[float]], float],
    required: float,
    among: Collection[str],
) -> Iterator[Line]:
    """A figure of several cases: the smallest or the middle one of their ratios."""
    ratios = {
        case["name"]: benchmark.speedup(case["ways"], among)
        for case in report["cases"]
        if belongs(case["name"])
    }
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    if known:
        figure = of(list(known.values()))
        names = [name for name, ratio in known.items() if ratio == figure]
        whose = f"{what} ({names[0]})" if of is min else what
        yield Line(whose, "", "", f"{figure:.2f}x", f"{required:.1f}x", "", figure >= required)


def _epochs(report: Mapping[str, Any], required: float) -> Iterator[Line]:
    """Seconds for the report's experiment, from the speed of a shorter run of `train`."""
    case = _case(report, "training run")
    if case is None:
        return
    ways = case["ways"]
    rival = benchmark.torchs(ways)
    mine = ways[benchmark.ours(ways)]

    def seconds(way: Mapping[str, Any]) -> float:
        return float(way["median_us"] / 1e6 * EPOCHS * PAIRS / case["pictures"])

    yield Line(
        f"{EPOCHS} epochs of {PAIRS:,} pairs, extrapolated from runs of {case['pictures']}",
        f"{seconds(mine):.0f} s",
        f"{seconds(ways[rival]):.0f} s ({said(rival)})" if rival else "",
        f"{ways[rival]['median_us'] / mine['median_us']:.2f}x" if rival else "",
        f"{required:.0f} s",
        benchmark.percent(mine["share_of_peak"]),
        seconds(mine) <= required,
    )


def _memory(memory: Mapping[str, Mapping[str, float]]) -> Iterator[Line]:
    for what, peaks in memory.items():
        mine, theirs = peaks["ours"], min(v for name, v in peaks.items() if name != "ours")
        yield Line(
            f"peak memory of training, batch {what}",
            f"{mine:.1f} MB",
            f"{theirs:.1f} MB",
            "",
            "not more",
            "",
            mine <= theirs,
        )


def lines(
    reports: list[dict[str, Any]], memory: Mapping[str, Mapping[str, float]]
) -> Iterator[Line]:
    """Every requirement that the reports have figures for; most are for the last, all threads."""
    most = reports[-1]
    for report in reversed(reports):
        threads = counted(report)
        required = 1.5 if threads == "1 thread" else 1.7
        yield from _timed(f"training step, batch 16, 3x32x32, {threads}", report, STEP, required)
    yield from list(_timed("the same, torch eager alone", most, STEP, 2.5, EAGER))[:1]
    yield from _share(most, 0.7)
    yield from _overhead(reports[0], most, 0.03)
    yield from _timed("batch 128, 3x32x32", most, "step 128x3x32x32", 1.7)
    yield from _timed("batch 16, 3x128x128", most, "step 16x3x128x128", 1.7)

    def is_layer(name: str) -> bool:
        layer, _, quantity = name.partition(" ")
        return layer in LAYERS and quantity in ("forward", "grad_input", "grad_weight")

    def is_columns(name: str) -> bool:
        return name.endswith(("im2col", "col2im"))

    twelve, median = "of the 12 operations of its layers", statistics.median
    yield from _together(f"slowest {twelve}", most, is_layer, min, 1.0, EAGER)
    yield from _together(f"median {twelve}", most, is_layer, median, 1.8, EAGER)
    yield from _together("slowest im2col or col2im", most, is_columns, min, 8.0, ("torch",))
    for quantity, required in (("forward", 1.4), ("grad_input", 1.4), ("grad_weight", 1.0)):
        name = f"picture {quantity}"
        what = f"3x3, 64->64, 256x256, {quantity}"
        yield from _timed(what, most, name, required, ("torch channels_last",))
    yield from _timed("zero-shot network, 256x256", most, "zero-shot 256x256", 1.5, COMPILED)
    yield from _timed("inference, 1024x1024", most, "inference 1024x1024", 1.5, COMPILED)
    yield from _epochs(most, 180)
    yield from _memory(memory)
