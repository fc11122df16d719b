"""Waiting for what may never come: other processes, and whoever answers for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

LOST = "lost"
"""What is written on the board when somebody is, for those who wait for all."""

_BEATS, _LONGEST_BEAT = 6, 1.0  # signs of life within the patience, and seconds between them
_SHORTEST, _LONGEST = 0.002, 0.05  # seconds between two looks


class Board(Protocol):
    """What all ranks write to and read from: torch.distributed's store."""

    def set(self, key: str, value: str) -> None:
        """Write."""

    def add(self, key: str, amount: int) -> int:
        """Add to a number; the sum."""

    def check(self, keys: list[str]) -> bool:
        """Whether all have been written."""

    def delete_key(self, key: str) -> bool:
        """Wipe off; whether it was there."""


class Meeting:
    """Ranks work apart for as long as it takes, and wait for each other behind it.

    Parameters
    ----------
    board : Board
    rank, size : int
    name : str
        Of this meeting, the same on all ranks.
    patience : float
        Seconds without a sign of life after which a rank is taken for lost.
    """

    def __init__(self, board: Board, rank: int, size: int, name: str, patience: float) -> None:
        self._board, self._rank, self._size = board, rank, size
        self._name, self._patience = name, patience

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Scope in which this rank gives signs of life."""
        is_over = threading.Event()

        def beat() -> None:
            with suppress(Exception):  # the board is gone, which the work shall not suffer from
                while not is_over.wait(min(self._patience / _BEATS, _LONGEST_BEAT)):
                    self._board.add(f"beat/{self._rank}", 1)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            is_over.set()

    def wait(self) -> None:
        """Until all are there.

        Raises
        ------
        RuntimeError
            When one gives no signs of life, has left, or the board does not answer.
        """
        self._answered = time.monotonic()
        errors: list[Exception] = []

        def look() -> None:
            try:
                self._look()
            except Exception as error:
                errors.append(error)

        looking = threading.Thread(target=look, daemon=True)  # what is lost may never answer
        looking.start()
        while looking.is_alive():
            looking.join(self._patience / _BEATS)
            if time.monotonic() - self._answered > self._patience:
                raise RuntimeError("the store of the ranks does not answer")
        if errors:
            raise RuntimeError(str(errors[0])) from errors[0]

    def clear(self) -> None:
        """Wipe this rank's words off the board, when nobody reads them any more."""
        self._board.delete_key(f"{self._name}/{self._rank}")
        if self._rank == 0:
            self._board.delete_key(self._name)

    def _look(self) -> None:
        self._board.set(f"{self._name}/{self._rank}", "")
        self._board.add(self._name, 1)
        heard: dict[int, tuple[int, float]] = {}
        pause = _SHORTEST
        # the more there are, the rarer each listens: one board answers all
        between = max(self._patience / _BEATS, min(self._size / 32, self._patience / 2))
        looked = time.monotonic()
        while self._board.add(self._name, 0) < self._size:
            self._answered = now = time.monotonic()
            if self._board.check([LOST]):
                raise RuntimeError("somebody is lost")
            if now - looked > between:
                looked = now
                self._listen(heard)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _listen(self, heard: dict[int, tuple[int, float]]) -> None:
        """For signs of life of all who are not here yet."""
        now = time.monotonic()
        for rank in range(self._size):
            if self._board.check([f"{self._name}/{rank}"]):
                continue
            beats = self._board.add(f"beat/{rank}", 0)
            if heard.setdefault(rank, (beats, now))[0] != beats:
                heard[rank] = beats, now
            if self._board.check([f"left/{rank}"]) or now - heard[rank][1] > self._patience:
                raise RuntimeError(f"no sign of life of rank {rank}")


def within(seconds: float, act: Callable[[], object]) -> bool:
    """Act, and wait so long at most: what is lost may never answer, nor let go. Whether it came to
    an end."""

    def quietly() -> None:
        with suppress(Exception):
            act()

    acting = threading.Thread(target=quietly, daemon=True)
    acting.start()
    acting.join(seconds)
    return not acting.is_alive()


def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Return when it is so, or the time is over."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
