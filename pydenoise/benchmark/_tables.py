"""A report as tables: ways that differ only in the memory format count as one, the faster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pydenoise.benchmark._case import CHANNELS_LAST

if TYPE_CHECKING:
    from rich.table import Table

Timings = Mapping[str, Mapping[str, Any]]


class Group(NamedTuple):
    """A table: its title, the figure in its cells, and our share of which limit it ends with."""

    title: str
    figure: Callable[[Mapping[str, Any]], float]
    share: str
    limit: str


GROUPS = {
    "convolution": Group(
        "Convolutions, GFLOP/s", lambda way: way["gflop_per_s"], "share_of_peak", "of the peak"
    ),
    "columns": Group(
        "im2col and col2im into a reused buffer, GB/s read and written",
        lambda way: way["gb_per_s"],
        "share_of_copy",
        "of a copy",
    ),
    "network": Group(
        "Networks, milliseconds",
        lambda way: way["median_us"] / 1e3,
        "share_of_peak",
        "of the peak",
    ),
}


def ours(ways: Timings) -> str:
    """Name of our way that counts: what a user gets without asking, in the better format."""
    names = [name for name in ways if name.removesuffix(CHANNELS_LAST) == "auto"]
    return _fastest(ways, names or ["reference"])


def torchs(ways: Timings, among: Collection[str] | None = None) -> str | None:
    """Name of torch's fastest way, or of the fastest among those named; None without one."""
    names = [
        name for name in ways if (name.startswith("torch") if among is None else name in among)
    ]
    return _fastest(ways, names) if names else None


def speedup(ways: Timings, among: Collection[str] | None = None) -> float | None:
    """How many times faster than that way of torch's we are; None where there is none."""
    rival = torchs(ways, among)
    return None if rival is None else ways[rival]["median_us"] / ways[ours(ways)]["median_us"]


def percent(share: float | None) -> str:
    """A share as words; empty where the limit is not known."""
    return "" if share is None else f"{100 * share:.0f} %"


def _fastest(ways: Timings, names: list[str]) -> str:
    return min(names, key=lambda name: ways[name]["median_us"])


def rows(report: Mapping[str, Any], group: str) -> tuple[list[str], list[list[str]]]:
    """A group of cases as a table: the column titles, and one row of words per case.

    The last columns are our share of the machine's limit, and how many times faster than torch's
    fastest way we are: above 1, we win.
    """
    _, figure, share, limit = GROUPS[group]
    chosen = [case for case in report["cases"] if case["group"] == group]
    titles = list(
        dict.fromkeys(name.removesuffix(CHANNELS_LAST) for case in chosen for name in case["ways"])
    )
    body = []
    for case in chosen:
        ways = case["ways"]
        row = [case["name"]]
        for title in titles:
            names = [name for name in ways if name.removesuffix(CHANNELS_LAST) == title]
            row.append(f"{figure(ways[_fastest(ways, names)]):.3g}" if names else "")
        faster = speedup(ways)
        row.append(percent(ways[ours(ways)][share]))
        row.append("" if faster is None else f"{faster:.2f}x")
        body.append(row)
    titles = ["ours" if title == "auto" else title for title in titles]
    return ["", *titles, limit, "ours / torch"], body


def tables(report: Mapping[str, Any]) -> list[Table]:
    """The report as rich tables, one for each group of cases."""
    from rich import box
    from rich.table import Table

    result = []
    for group, (title, *_) in GROUPS.items():
        titles, body = rows(report, group)
        if body:
            table = Table(
                title=title,
                title_justify="left",
                box=box.SIMPLE_HEAD,
                padding=0,
            )
            for index, name in enumerate(titles):
                two_lines = "\n".join(name.rsplit(" ", 1))
                table.add_column(two_lines, justify="right" if index else "left", no_wrap=True)
            for row in body:
                table.add_row(*row)
            result.append(table)
    return result
