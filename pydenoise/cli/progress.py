"""How far the work is, on stderr: bars on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from pydenoise.cli.console import is_heard_with_others, say, visible

Watcher: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Takes records with step, steps, seconds_left; with loss, PSNR and speed where they are known."""

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def watching(what: str) -> Iterator[Watcher]:
    """A watcher of one piece of work."""
    with Batch(1).watching(what) as watcher:
        yield watcher


class Batch:
    """Watchers of several pieces of work, one after the other, and of how many are done."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._begun = 0
        self._bars: _Bars | None = None

    @contextmanager
    def watching(self, what: str) -> Iterator[Watcher]:
        """The next piece; nothing is left on the screen behind it."""
        from rich.console import Console

        self._begun += 1
        console = Console(stderr=True)
        if not console.is_terminal or is_heard_with_others():
            place = f"[{self._begun}/{self._pieces}] " if self._pieces > 1 else ""
            yield _Lines(place + what)
            return
        if self._bars is None:
            self._bars = _Bars(console, self._pieces)
        with self._bars.watching(what, self._begun - 1) as watcher:
            yield watcher


class Tally:
    """How many pieces are done of those that several processes work on: one bar for all."""

    def __init__(self, pieces: int) -> None:
        from rich.console import Console

        console = Console(stderr=True)
        self._pieces = pieces
        self._began = time.monotonic()
        self._lines = _Lines("all")
        self._bar = _progress(console) if console.is_terminal else None
        self._all = self._bar and self._bar.add_task("all", total=pieces, status="")

    @contextmanager
    def showing(self, done: int) -> Iterator[None]:
        """While nothing else is printed; nothing is left on the screen behind it."""
        if self._bar is not None:
            self._bar.update(self._all, completed=done, status=f"{done} of {self._pieces}")
            with self._bar:
                yield
            return
        if done:
            left = (time.monotonic() - self._began) * (self._pieces / done - 1)
            self._lines({"step": done, "steps": self._pieces, "seconds_left": left})
        yield


def _progress(console: Any) -> Any:
    """Bars with what they are of, how far, and how long it will take."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


class _Bars:
    """A bar for the piece at work and, below it, one for all if there are several."""

    def __init__(self, console: Any, pieces: int) -> None:
        self._progress = _progress(console)
        self._piece = self._progress.add_task("", total=None, status="")
        self._all = None
        if pieces > 1:
            self._all = self._progress.add_task("all", total=pieces, status="")

    @contextmanager
    def watching(self, what: str, done: int) -> Iterator[Watcher]:
        self._progress.reset(self._piece, total=None, description=visible(what), status="")
        if self._all is not None:
            self._progress.update(self._all, completed=done)

        def show(record: Mapping[str, Any]) -> None:
            self._progress.update(
                self._piece,
                total=record["steps"],
                completed=record["step"],
                status=_status(record),
            )
            if self._all is not None:
                share = record["step"] / record["steps"]
                self._progress.update(self._all, completed=done + share)

        with self._progress:
            yield show


class _Lines:
    """Progress where nobody watches a bar: a line every few seconds, and the last."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = time.monotonic()

    def __call__(self, record: Mapping[str, Any]) -> None:
        now = time.monotonic()
        is_last = record["step"] == record["steps"]
        if is_last or now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            share = record["step"] / record["steps"]
            left = f"{record['seconds_left']:.0f} s left"
            say(
                "  ".join(
                    part for part in (f"{self._what} {share:4.0%}", _status(record), left) if part
                )
            )


def _status(record: Mapping[str, Any]) -> str:
    parts = []
    if "loss" in record:
        parts.append(f"loss {record['loss']:.5f}")
    if record.get("psnr_per_image") is not None:
        parts.append(f"PSNR {record['psnr_per_image']:.2f} dB")
    if "pictures_per_second" in record:
        parts.append(f"{record['pictures_per_second']:,.0f} pictures/s")
    return "  ".join(parts)
