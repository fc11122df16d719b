"""SIGINT and SIGTERM as a wish to stop: at the next good moment, or at once but in good order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = signal.SIGINT, signal.SIGTERM
_NOTED = b"stopping after this step; once more to stop at once\n"


class Stop:
    """Whether the work is to stop; by which signal.

    Attributes
    ----------
    number : int or None
        Of the first signal.
    """

    number: int | None = None

    def __call__(self) -> bool:
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """That of a process ended by the signal, as shells count; SIGTERM's where another process
        of the run got it."""
        return 128 + (self.number or signal.SIGTERM)


@contextmanager
def unwinding() -> Iterator[None]:
    """Scope that SIGTERM ends as Ctrl-C does, by an exception, so that no unfinished file is left;
    a second one changes nothing.

    Raises
    ------
    SystemExit
        With 143 for SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def sparing_children() -> Iterator[None]:
    """Scope whose new processes never see Ctrl-C, which a terminal sends to all that run in it;
    this one sees it behind the scope."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Scope in which the first signal is noted, and the second raises.

    Raises
    ------
    KeyboardInterrupt
        For a second SIGINT.
    SystemExit
        With 143 for a second SIGTERM.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python hands signals to the main thread alone
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.number is None:
            stop.number = number
            with suppress(OSError):  # whoever read it may have been stopped, too
                os.write(2, _NOTED)  # not through Python's buffers, which may be in the midst of it
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
