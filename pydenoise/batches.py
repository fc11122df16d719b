"""Batches, cut before the steps that see them ask: by a thread, or by processes of their own.

A batch depends on its numbers and the epoch alone, so it has the same bits whoever cuts it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import cycle
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from pydenoise.data import PairSource
    from pydenoise.data.pairs import Batch, Indices

Batches: TypeAlias = "Generator[Batch, None, None]"

_AHEAD_OF_A_THREAD = 3
_AHEAD_OF_A_PROCESS = 2  # one that it cuts, and one that it finds then


class WorkersLost(RuntimeError):
    """A process that cuts batches has died."""


def cut_by_thread(parts: Iterable[Indices], cut: Callable[[Indices], Batch]) -> Batches:
    """The batches of the given pairs, cut ahead by a thread.

    Closing the generator waits for the batch under way and drops the rest.
    """
    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="pydenoise-batches") as worker:
        try:
            for part in parts:
                ahead.append(worker.submit(cut, part))
                if len(ahead) > _AHEAD_OF_A_THREAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            worker.shutdown(wait=False, cancel_futures=True)


class Cutters:
    """Processes that cut a source's batches; a context at whose end they end.

    They are started with the first batch, and end with this process, however it ends. Ctrl-C and
    SIGTERM, which a terminal or a scheduler sends to all, they leave to it.

    Parameters
    ----------
    pairs : PairSource
        Each process gets a copy, with the pictures that lie in memory.
    count : int
        How many; 0 for none.
    """

    def __init__(self, pairs: PairSource, count: int) -> None:
        self._pairs, self.count = pairs, count
        self._workers: list[_Worker] = []
        self._asked = 0

    def __enter__(self) -> Cutters:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def cut(self, parts: Iterable[Indices], epoch: int, cut: Callable[[Indices], Batch]) -> Batches:
        """The batches of the given pairs, in their order, each cut by the process whose turn it is.

        Parameters
        ----------
        parts : iterable of (N,) arrays of int
        epoch : int
        cut : callable
            Makes the batch of no pairs.

        Raises
        ------
        WorkersLost
            When one has died.
        Exception
            What cutting raises.
        """
        if not self._workers:
            self._start()
        turns = cycle(self._workers)
        ahead: deque[Callable[[], Batch]] = deque()
        for part in parts:
            ahead.append(
                self._asked_of(next(turns), part, epoch) if len(part) else partial(cut, part)
            )
            if len(ahead) >= _AHEAD_OF_A_PROCESS * self.count:
                yield ahead.popleft()()
        while ahead:
            yield ahead.popleft()()

    def _asked_of(self, worker: _Worker, part: Indices, epoch: int) -> Callable[[], Batch]:
        """Ask for a batch; what comes back waits for it."""
        self._asked += 1
        worker.ask(self._asked, part, epoch)
        return partial(worker.answer, self._asked)

    def _start(self) -> None:
        try:
            copy = pickle.dumps(self._pairs)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(
                f"train: workers need pairs that can be pickled ({error}); take workers=0"
            ) from error
        methods = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        for _ in range(self.count):
            self._workers.append(_Worker(context))
        for worker in self._workers:
            worker.tell(copy)


class _Worker:
    """A process at the other end of a line that nobody else holds: its death ends the line."""

    def __init__(self, context: Any) -> None:
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, copy: bytes) -> None:
        try:
            self._line.send_bytes(copy)
        except OSError as error:
            raise self._lost() from error

    def ask(self, number: int, part: Indices, epoch: int) -> None:
        try:
            self._line.send((number, part, epoch))
        except OSError as error:
            raise self._lost() from error

    def answer(self, number: int) -> Batch:
        """What it has cut; answers to questions that are no longer asked are passed over."""
        answered: int | None = 0
        while answered not in (number, None):
            try:
                answered, answer = self._line.recv()
            except (EOFError, OSError) as error:
                raise self._lost() from error
        if isinstance(answer, Exception):
            raise answer
        source, target = answer
        return torch.from_numpy(source), torch.from_numpy(target)

    def end(self) -> None:
        """At once: it holds nothing."""
        self._line.close()
        self._process.kill()
        self._process.join()

    def _lost(self) -> WorkersLost:
        self._process.join(5)
        code = self._process.exitcode
        how = f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return WorkersLost(
            f"train: a process that cuts batches {how}; if memory ran out, take fewer workers"
        )


def _work(line: Connection) -> None:
    """Cut what is asked for, until the other end of the line is closed."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    torch.set_num_threads(1)
    asked: SimpleQueue[tuple[int, Indices, int]] = SimpleQueue()
    with suppress(EOFError, OSError):
        copy = line.recv_bytes()
        try:
            pairs: PairSource = pickle.loads(copy)
        except Exception as error:
            line.send((None, portable(error)))
            return
        threading.Thread(target=_listen, args=(line, asked), daemon=True).start()
        while True:
            number, part, epoch = asked.get()
            line.send((number, _cut(pairs, part, epoch)))


def _listen(line: Connection, asked: SimpleQueue[Any]) -> None:
    """Take what is asked for off the line, so that asking never waits for an answer."""
    try:
        while True:
            asked.put(line.recv())
    except (EOFError, OSError):
        os._exit(0)


def _cut(pairs: PairSource, part: Indices, epoch: int) -> Any:
    try:
        return tuple(pictures.numpy() for pictures in pairs.batch(part, epoch))
    except Exception as error:
        return portable(error)


def portable(error: Exception) -> Exception:
    """An error that arrives at the other end as it is, or else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
