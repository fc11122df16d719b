"""Kill training at random moments, resume it, and see that nothing is lost.

    python tests/kills.py [COUNT] [--seed SEED] [--sabotage optimizer|saves]

Each run is killed and resumed until it gets to its end; then its weights, its optimizer's state and
its log, but for the times, have to be those of a run that nobody killed. After every kill the
newest checkpoint has to be readable. Runs save after every step, so that many kills hit a save.
A sabotaged run has to be found out: then the exit status is 1, as for any fault, and no more are
killed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pydenoise import run as training_run
from pydenoise.checkpoint import (
    CheckpointError,
    Checkpoints,
    CheckpointWarning,
    _folder as checkpoint_folder,
)
from pydenoise.cli import main as command_line
from pydenoise.data import write

TIMES = {"seconds", "pictures_per_second"}
OPTIONS = [
    *("--noise", "gauss:25", "--hold-out", "1", "--crop", "16", "--channels", "8,12"),
    *("--batch-size", "8", "--pairs-count", "64", "--epochs", "8", "--average", "0.9"),
    *("--seed", "5", "--checkpoint-every", "0"),
]


class Outcome(NamedTuple):
    """What a finished run left, times left out."""

    weights: str
    state: str
    log: list[dict[str, Any]]


def pictures(folder: Path) -> Path:
    """Four pictures to learn from."""
    folder.mkdir()
    random_numbers = np.random.default_rng(0)
    for index in range(4):
        coarse = random_numbers.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        write(folder / f"{index}.png", coarse.repeat(4, 0).repeat(4, 1))
    return folder


def start(data: Path, out: Path, sabotage: str | None) -> int:
    """A process that trains into a folder, or goes on; returns its number."""
    process = os.fork()
    if process:
        return process
    quiet = os.open(out.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    code = 1
    try:
        with sabotaged(sabotage):
            code = command_line(["train", str(data), "-o", str(out), *OPTIONS, "--resume"])
    finally:
        os._exit(code)


@contextmanager
def sabotaged(how: str | None) -> Iterator[None]:
    """Training that forgets the optimizer's state, or saves that are not atomic."""
    if how == "optimizer":
        training_run.Run._restore_optimizer = lambda *_: None  # type: ignore[method-assign]
    elif how == "saves":

        @contextmanager
        def in_place(path: Path, *, overwrite: bool) -> Iterator[Any]:
            with open(path, "wb", buffering=0) as file:
                yield Slowly(file)

        checkpoint_folder.new_file = in_place  # type: ignore[assignment]
    yield


class Slowly:
    """Writes a file in two pieces, some time apart."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self._file.write(content[:half])
        time.sleep(0.01)
        self._file.write(content[half:])


def ended(process: int) -> int:
    """Wait for a process; minus the signal that killed it, or its exit code."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def outcome(out: Path) -> Outcome:
    """What a finished run left."""
    newest = Checkpoints(out / "checkpoints").newest()
    assert newest is not None
    state = sha256()
    for name, tensor in sorted(newest.tensors.items()):
        state.update(name.encode() + tensor.numpy().tobytes())
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    log = [{key: line[key] for key in line.keys() - TIMES} for line in lines]
    return Outcome(
        sha256((out / "model.safetensors").read_bytes()).hexdigest(), state.hexdigest(), log
    )


def is_cut_off(out: Path) -> bool:
    """Whether a save was under way when the process was killed."""
    folder = out / "checkpoints"
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    stems = {Path(name).stem for name in names if name.endswith(".json")}
    return any(
        name.endswith(".part") or (name.endswith(".safetensors") and Path(name).stem not in stems)
        for name in names
    )


def kill_and_resume(count: int, seed: int, sabotage: str | None, folder: Path) -> list[str]:
    """Kill so often; returns what went wrong, one line each."""
    torch.set_num_threads(1)
    random_numbers = random.Random(seed)
    data = pictures(folder / "pictures")
    for name in ("first", "whole"):  # in this process, so that the others find all imported
        began = time.monotonic()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            code = command_line(["train", str(data), "-o", str(folder / name), *OPTIONS])
        if code != 0:
            return ["the run that nobody kills failed"]
        duration = time.monotonic() - began
    wanted = outcome(folder / "whole")
    faults: list[str] = []
    kills = cut_off = finished = attempts = 0
    while kills < count and not (sabotage and faults):
        out = folder / f"run{finished}"
        process = start(data, out, sabotage)
        attempts += 1
        time.sleep(random_numbers.uniform(0, 1.1) * duration)
        os.kill(process, signal.SIGKILL)
        code = ended(process)
        if code == -signal.SIGKILL:
            kills += 1
            cut_off += is_cut_off(out)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", CheckpointWarning)
                    Checkpoints(out / "checkpoints").newest()
            except (CheckpointError, CheckpointWarning) as error:
                faults.append(f"kill {kills}: unreadable: {error}")
                finished += 1
        elif code == 0:
            if outcome(out) != wanted:
                faults.append(f"{out.name}: another outcome than of the run nobody killed")
            finished += 1
        else:
            return [*faults, f"{out.name} ended with {code}: {out.with_suffix('.txt').read_text()}"]
        if attempts > 20 * count + 20:
            return [*faults, f"only {kills} of {attempts} kills came in time"]
    last = folder / f"run{finished}"
    if last.exists():
        if ended(start(data, last, sabotage)) != 0 or outcome(last) != wanted:
            faults.append(f"{last.name}: another outcome than of the run nobody killed")
        finished += 1
    print(f"{kills} kills, {cut_off} within a save; {finished} runs to the end", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=["optimizer", "saves"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = kill_and_resume(options.count, options.seed, options.sabotage, Path(folder))
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
