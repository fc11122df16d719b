"""Several processes that train together, started at once: forks of one that has all imported."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pydenoise import models, objectives, optim
from pydenoise.checkpoint import Checkpoints
from pydenoise.cli import main as command_line
from pydenoise.data import NoisyCrops, PairSource, SingleCrops, TensorPairs, parse
from pydenoise.distributed import _ranks, connected
from pydenoise.training import TrainingStopped, train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [f"pydenoise.{name}" for name in ("training", "distributed", "models", "report", "cli.train")]
)

SECONDS = 120.0


class Outcome(NamedTuple):
    """What became of a process: its exit code, what its job returned, and when it ended."""

    code: int
    result: Any
    seconds: float


class Team:
    """Processes that know each other, each at the same job.

    Parameters
    ----------
    size : int
    job : callable
        Of this module, or of one that children can import.
    *given
        What it takes.
    """

    def __init__(self, size: int, job: Callable[..., Any], *given: Any) -> None:
        port = free_port()
        self.began = time.monotonic()
        self._ends, self.processes = [], []
        for rank in range(size):
            receiver, sender = CONTEXT.Pipe(duplex=False)
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            said = {name: str(number) for name, number in told.items()}
            said |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            process = CONTEXT.Process(target=_at_work, args=(said, sender, job, given))
            process.start()
            sender.close()
            self._ends.append(receiver)
            self.processes.append(process)

    def outcomes(self, seconds: float = SECONDS) -> list[Outcome]:
        """Wait for all, so long at most; whoever is still there is killed, with code -9."""
        return [
            _outcome(process, end, self.began, seconds)
            for process, end in zip(self.processes, self._ends, strict=True)
        ]


def together(size: int, job: Callable[..., Any], *given: Any) -> list[Any]:
    """What each of so many processes returned; all have to end well."""
    outcomes = Team(size, job, *given).outcomes()
    assert [outcome.code for outcome in outcomes] == [0] * size, outcomes
    return [outcome.result for outcome in outcomes]


def alone(job: Callable[..., Any], *given: Any) -> Any:
    """What one process returns that was not started as one of some."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_at_work, args=({}, sender, job, given))
    process.start()
    sender.close()
    outcome = _outcome(process, receiver, time.monotonic(), SECONDS)
    assert outcome.code == 0, outcome
    return outcome.result


def _outcome(process: BaseProcess, end: Any, began: float, seconds: float) -> Outcome:
    result = None
    with contextlib.suppress(EOFError, OSError):
        if end.poll(max(0.0, began + seconds - time.monotonic())):
            result = end.recv()
    process.join(max(0.1, began + seconds - time.monotonic()))
    if process.is_alive():
        process.kill()
        process.join()
    return Outcome(process.exitcode or 0, result, time.monotonic() - began)


def _at_work(said: dict[str, str], sender: Any, job: Callable[..., Any], given: Any) -> None:
    os.environ.update(said)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where torch's C++ would write traces
    torch.set_num_threads(1)
    try:
        result = job(*given)
    except BaseException as error:
        sender.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        os._exit(1)
    sender.send(result)
    sender.close()


def wait_for(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it is so, so long at most."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


# --- jobs ---------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What a run left in a process."""

    weights: np.ndarray[Any, Any]
    losses: list[float]
    seen: list[list[int]]

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return sha256(self.weights.tobytes()).hexdigest()


class Noting(PairSource):
    """A source that remembers which pairs it was asked for."""

    def __init__(self, source: PairSource) -> None:
        self._source, self.shape = source, source.shape
        self.seen: list[list[int]] = []

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Any, epoch: int) -> Any:
        self.seen.append(np.asarray(indices).tolist())
        return self._source.batch(indices, epoch)

    def contents(self) -> Any:
        return self._source.contents()

    def describe(self) -> dict[str, Any]:
        return self._source.describe()


class Stops:
    """Says stop when it is asked for the `at`-th time, on one rank."""

    def __init__(self, at: int, rank: int) -> None:
        self._left = at if int(os.environ.get("RANK", "0")) == rank else 10**9

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


class Hopeless(objectives.Noise2Noise):
    """Finds no loss."""

    def step(self, *pictures: Any, **terms: Any) -> float:
        return super().step(*pictures, **terms) * math.nan

    def describe(self) -> dict[str, Any]:
        return objectives.Noise2Noise().describe()


def source_of(kind: str, length: int) -> PairSource:
    """Pairs to learn from, by name."""
    numbers = np.random.default_rng(3)
    if kind == "tensors":
        levels = torch.from_numpy(numbers.integers(0, 256, (2, length, 3, 16, 16), dtype=np.uint8))
        return TensorPairs(levels[0], levels[1])
    picture = numbers.integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    if kind == "singles":
        return SingleCrops([picture], crop=16, length=length)
    return NoisyCrops([picture], parse("gauss:25"), crop=16, length=length)


def trained(
    epochs: int = 2,
    *,
    kind: str = "crops",
    network: str = "autoencoder",
    length: int = 70,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
    shards: int = 0,
    folder: Path | None = None,
    resume: bool = False,
    stop: tuple[int, int] | None = None,
    pause: float = 0.0,
    other_data_on: int | None = None,
    nan_on: int | None = None,
    device: str = "cpu",
) -> Trained | str:
    """Train a small network; what is left, or why it ended."""
    rank = int(os.environ.get("RANK", "0"))
    model = models.small_unet(seed=0) if network == "unet" else models.autoencoder((8, 12), seed=0)
    model.to(dtype).to(device)
    source = Noting(source_of(kind, length + (rank == other_data_on)))
    objective = Hopeless() if rank == nan_on else objectives.Noise2Noise()
    if kind == "singles":
        objective = objectives.Neighbor2Neighbor()  # type: ignore[assignment]
    try:
        with connected(torch.device(device)) as ranks:
            result = train(
                model,
                _InDtype(source, dtype),
                epochs=epochs,
                batch_size=batch_size,
                optimizer=optim.Adam(model, 1e-3),
                schedule=optim.cosine(),
                objective=objective,
                average=0.9,
                seed=4,
                log=folder and folder / "log.jsonl",
                checkpoints=folder and Checkpoints(folder / "checkpoints", every=0.0),
                resume=resume,
                stop=stop and Stops(*stop),
                progress=(lambda _: time.sleep(pause)) if pause else None,
                ranks=ranks,
                shards=shards,
            )
    except (TrainingStopped, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    losses = [record["loss"] for record in result.history]
    return Trained(model.flatten().data.cpu().numpy().copy(), losses, source.seen)


class _InDtype(PairSource):
    """A source whose pictures come in another floating point type."""

    def __init__(self, source: PairSource, dtype: torch.dtype) -> None:
        self._source, self._dtype, self.shape = source, dtype, source.shape

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices: Any, epoch: int) -> Any:
        first, second = self._source.batch(indices, epoch)
        return first.to(self._dtype), second.to(self._dtype)

    def contents(self) -> Any:
        return self._source.contents()

    def describe(self) -> dict[str, Any]:
        return self._source.describe()


def commanded(words: list[str], patience: float | None = None) -> tuple[int, str, str]:
    """Run a command line; its exit code, and what it said on both channels. So many seconds are
    waited for a rank that does not answer, if others than usual."""
    _ranks.PATIENCE = patience or _ranks.PATIENCE
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command_line(words)
    return code, out.getvalue(), err.getvalue()


def kill(process: BaseProcess, number: int = signal.SIGKILL) -> None:
    """Send a signal to one of a team."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):  # it came to its end first
        os.kill(process.pid, number)
