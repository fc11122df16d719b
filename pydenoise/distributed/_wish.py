"""What one of the ranks wants of all."""

from __future__ import annotations

from collections.abc import Callable


class Wish:
    """What some rank wants, the run to stop say: all hear of it behind the same step.

    Parameters
    ----------
    own : callable, optional
        What this rank wants.
    """

    def __init__(self, own: Callable[[], bool] | None) -> None:
        self._own, self._is_heard = own, False

    def own(self) -> bool:
        """What this rank wants now."""
        return self._own is not None and self._own()

    def hear(self, is_wanted: bool) -> None:
        """Be told what some rank wants."""
        self._is_heard = is_wanted

    def __call__(self) -> bool:
        return self._is_heard
