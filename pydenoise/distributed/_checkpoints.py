"""Checkpoints of a run of several processes: the first keeps them, and tells the others of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydenoise.checkpoint import Checkpoint, Checkpoints
from pydenoise.distributed._ranks import Ranks
from pydenoise.distributed._wish import Wish


class SharedCheckpoints(Checkpoints):
    """A run's folder of checkpoints, of which the first rank's disk alone needs to know."""

    def __init__(self, own: Checkpoints, ranks: Ranks) -> None:
        super().__init__(own.folder)
        self._own, self._ranks = own, ranks
        self.wish = Wish(own.is_due if ranks.is_first else None)

    def is_due(self) -> bool:
        return self.wish()

    def save(self, checkpoint: Checkpoint) -> Path:
        """Keep a checkpoint, for which all wait; the first alone where others are lost."""
        path = self.path(checkpoint.step)
        if self._ranks.is_connected:
            self._ranks.told(lambda: str(self._own.save(checkpoint)))
        elif self._ranks.is_first:
            self._own.save(checkpoint)
        return path

    def newest(self, *, ends_epoch: bool = False, before: int | None = None) -> Checkpoint | None:
        def content() -> bytes:
            found = self._own.newest(ends_epoch=ends_epoch, before=before)
            return b"" if found is None else found.to_bytes()

        told = self._ranks.told_bytes(content)
        return Checkpoint.from_bytes(told) if told else None

    def refuse_filled(self) -> None:
        self._ranks.told(self._own.refuse_filled)

    def is_empty(self) -> bool:
        return bool(self._ranks.told(self._own.is_empty))

    @contextmanager
    def held(self) -> Iterator[None]:
        with ExitStack() as stack:
            self._ranks.told(lambda: stack.enter_context(self._own.held()))
            yield
