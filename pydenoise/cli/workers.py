"""The jobs of a batch shared by several processes, and told of in the order of the plan."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from pydenoise.batches import portable
from pydenoise.cli.console import Failures, say, unsaid
from pydenoise.cli.methods import chosen
from pydenoise.cli.plan import Job
from pydenoise.cli.progress import Tally
from pydenoise.cli.signals import sparing_children, unwinding
from pydenoise.cli.work import Done, Task, perform
from pydenoise.launch import cores

_SECONDS_TO_LEAVE = 10.0
_IMPORTED_ONCE = [
    f"pydenoise.{room}"
    for room in ("cli.workers", "builtin", "data", "diagnosis", "inference", "zero_shot")
]


class WorkerLost(RuntimeError):
    """A process that ended in the midst of a picture."""


class _Outcome(NamedTuple):
    """What became of a job, and what was said meanwhile."""

    result: Done | Exception
    lines: list[str]


def shared(jobs: list[Job], task: Task, size: int, failures: Failures) -> Generator[Done]:
    """Do jobs in so many processes; the screen is free whenever one is handed out.

    Notes
    -----
    The first failure, where it ends the batch, lets those jobs be finished that are begun: then
    what is written is told of, whatever came first.
    """
    with _team(jobs, task, min(size, len(jobs))) as team:
        tally = Tally(len(jobs))
        outcomes: dict[int, _Outcome] = {}
        told = 0
        fatal: Exception | None = None
        while team.is_at_work:
            with tally.showing(len(outcomes)):
                finished = team.finished()
            outcomes |= finished
            is_failed = any(isinstance(each.result, Exception) for each in finished.values())
            team.go_on(begin=failures.keep_going or not is_failed)
            while told in outcomes:
                result, lines = outcomes[told]
                for line in lines:
                    say(line)
                if isinstance(result, Done):
                    yield result
                elif failures.keep_going:
                    with failures.of(jobs[told].source):
                        raise result
                else:
                    fatal = fatal or result
                told += 1
        if fatal is not None:
            raise fatal


class _Worker:
    """A process, and the job that it is at."""

    def __init__(self, task: Task) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, task), daemon=True)
        with sparing_children():
            self._process.start()
        theirs.close()
        self.index = -1
        self.is_lost = False

    def begin(self, index: int, job: Job) -> None:
        self.index, self._job = index, job
        with suppress(OSError):  # it is gone, as will show
            self.connection.send(job)

    def outcome(self) -> _Outcome:
        """What became of its job, when there is something to receive."""
        try:
            outcome: _Outcome = self.connection.recv()
        except (EOFError, OSError):
            self.is_lost = True
            self._process.join(_SECONDS_TO_LEAVE)
            return _Outcome(WorkerLost(f"{self._job.source}: {_why(self._process.exitcode)}"), [])
        return outcome

    def terminate(self) -> None:
        self._process.terminate()

    def leave(self) -> None:
        """Wait for its end, but not long."""
        self.connection.close()
        self._process.join(_SECONDS_TO_LEAVE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class _Team:
    """Workers at the jobs of a list, in its order; a lost one is replaced."""

    def __init__(self, jobs: list[Job], task: Task) -> None:
        self._task = task
        self._waiting = deque(enumerate(jobs))
        self.workers: list[_Worker] = []
        self._free: list[_Worker] = []

    @property
    def is_at_work(self) -> bool:
        return bool(self.workers)

    def hire(self) -> None:
        """One worker more, at the next job."""
        worker = _Worker(self._task)
        self.workers.append(worker)
        worker.begin(*self._waiting.popleft())

    def finished(self) -> dict[int, _Outcome]:
        """Wait for the next outcomes, by the number of the job."""
        ready = wait([worker.connection for worker in self.workers])
        self._free = [worker for worker in self.workers if worker.connection in ready]
        return {worker.index: worker.outcome() for worker in self._free}

    def go_on(self, *, begin: bool) -> None:
        """Let those that have finished begin the next jobs, or nobody any more."""
        if not begin:
            self._waiting.clear()
        for worker in self._free:
            if self._waiting and not worker.is_lost:
                worker.begin(*self._waiting.popleft())
                continue
            self.workers.remove(worker)
            worker.leave()
            if self._waiting:
                self.hire()


@contextmanager
def _team(jobs: list[Job], task: Task, size: int) -> Iterator[_Team]:
    """Processes at work, none of which is left behind."""
    fair = max(1, cores() // size)
    team = _Team(jobs, task._replace(threads=task.threads or fair))
    try:
        for _ in range(size):
            team.hire()
        yield team
    finally:
        for worker in team.workers:
            worker.terminate()
        for worker in team.workers:
            worker.leave()


def _context() -> Any:
    """Processes are never forked from this one, whose threads would be missing in them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    resource_tracker.ensure_running()  # where it starts by itself, it lets Ctrl-C through again
    return context


def _why(code: int | None) -> str:
    """How a process ended before its time, and what to do."""
    if code == 128 + signal.SIGTERM:  # from whomever; it left in good order
        code = -signal.SIGTERM
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        cure = "; if memory was short, take fewer --workers" if name == "SIGKILL" else ""
        return f"the process that denoised it was ended by {name}{cure}"
    return f"the process that denoised it ended with exit code {code}; --workers 1 shows why"


# --- in a worker --------------------------------------------------------------------------------

_method_of = cache(chosen)


def _serve(connection: Connection, task: Task) -> None:
    """Do jobs as they come, until nobody gives any more."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends us
    torch.set_num_threads(task.threads or 1)
    with unwinding(), suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(_outcome(connection.recv(), task))


def _outcome(job: Job, task: Task) -> _Outcome:
    with unsaid() as lines:
        try:
            method = _method_of(task.wishes)
            done = perform(job, method, task.reading, _unwatched, overwrite=task.overwrite)
        except Exception as error:
            error.add_note(f"in a worker:\n{traceback.format_exc()}")
            return _Outcome(portable(error), lines)
    return _Outcome(done, lines)


def _unwatched(record: Mapping[str, Any]) -> None:
    pass
