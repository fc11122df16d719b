"""Damage files of every kind at random, and see that their readers refuse them or read on.

    python tests/damage.py [COUNT] [--seed SEED] [--sabotage crash|hang|traceback|memory]

A reader may return or raise its own error, on one line that names the file. What counts is a
process that dies, one that takes more than 10 s for a file, any other error, and more than 2 GB of
memory beside what the process held before. With a sabotaged reader the faults have to show.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from test_pictures_damage import FILES

from pydenoise import models
from pydenoise.checkpoint import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    WeightsError,
    load_weights,
    save_weights,
)
from pydenoise.checkpoint._one import load_checkpoint
from pydenoise.data import ImageError, PairsError, load_course_file, read_picture

LONGEST_S = 10
MOST_BYTES = 2 * 2**30
AT_ONCE = 50
OWN_ERRORS = ImageError, PairsError, WeightsError, CheckpointError
EXTREMES = (b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\x00\x00\x00")

Reader = Callable[[Path], object]


def originals(folder: Path) -> dict[str, tuple[bytes, Reader]]:
    """Whole files by name, each with what reads it."""
    files: dict[str, tuple[bytes, Reader]] = {
        name: (make(), read_picture) for name, make in FILES.items()
    }
    model = models.autoencoder((2, 3), in_channels=1, seed=0)
    save_weights(folder / "w.safetensors", model)
    files["weights.safetensors"] = (folder / "w.safetensors").read_bytes(), load_weights
    pair = torch.randint(256, (2, 3, 3, 8, 8), dtype=torch.uint8)
    for name, is_new in (("new.pkl", True), ("old.pkl", False)):
        torch.save((pair[0], pair[1]), folder / name, _use_new_zipfile_serialization=is_new)
        files[name] = (folder / name).read_bytes(), load_course_file
    tensors = {f"weights.{name}": value for name, value in model.state_dict().items()}
    saved = Checkpoints(folder / "run").save(Checkpoint(1, 20.0, {}, {"a": [1]}, {}, tensors))

    def of_json(path: Path) -> object:
        path.with_suffix(".safetensors").write_bytes(saved.with_suffix(".safetensors").read_bytes())
        return load_checkpoint(path)

    def of_tensors(path: Path) -> object:
        path.with_suffix(".json").write_bytes(saved.read_bytes())
        return load_checkpoint(path.with_suffix(".json"))

    files["checkpoint.json"] = saved.read_bytes(), of_json
    files["checkpoint.safetensors"] = saved.with_suffix(".safetensors").read_bytes(), of_tensors
    return files


def damaged(content: bytes, other: bytes, choose: random.Random) -> bytes:
    """The content after one to three mishaps; never as it was."""
    before = content
    while content == before:
        for _ in range(choose.randint(1, 3)):
            content = _mishap(bytearray(content or b"\x00"), other, choose)
    return content


def _mishap(content: bytearray, other: bytes, choose: random.Random) -> bytes:
    size = len(content)
    reach = size if choose.random() < 0.5 else min(size, 200)  # where headers lie, or anywhere
    place, length = choose.randrange(reach), choose.randint(1, 64)
    kind = choose.choice(["bits", "cut", "extreme", "drop", "double", "zeros", "noise", "splice"])
    if kind == "bits":
        for _ in range(choose.randint(1, 8)):
            content[choose.randrange(reach)] ^= 1 << choose.randrange(8)
    elif kind == "cut":
        del content[choose.randrange(size) :]
    elif kind == "extreme":
        content[place : place + 4] = choose.choice(EXTREMES)
    elif kind == "drop":
        del content[place : place + length]
    elif kind == "double":
        content[place:place] = content[place : place + length]
    elif kind == "zeros":
        content[place : place + length] = bytes(length)
    elif kind == "noise":
        content[place : place + length] = choose.randbytes(length)
    else:
        content[place:] = other[place:]
    return bytes(content)


def sabotaged(reader: Reader, how: str | None) -> Reader:
    """A reader that goes wrong with one file in five."""

    def read(path: Path) -> object:
        if zlib.crc32(path.read_bytes()) % 5:
            return reader(path)
        if how == "crash":
            os.abort()
        if how == "hang":
            time.sleep(10 * LONGEST_S)
        if how == "memory":
            return bytearray(os.urandom(2**20)) * 2100
        raise KeyError("sabotage")

    return reader if how is None else read


def most_held() -> int:
    """Bytes of memory that this process has held at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def try_all(jobs: list[tuple[Path, Reader]], most_bytes: int, answers: Any) -> None:
    """Read files one by one, telling before each which it is, and after it how it went."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    before = most_held()
    for index, (path, reader) in enumerate(jobs):
        answers.send((index, "died"))
        signal.alarm(LONGEST_S)
        try:
            reader(path)
            said = "read"
        except OWN_ERRORS as error:
            text = str(error)
            is_right = "\n" not in text and str(path.parent / path.stem) in text
            said = "refused" if is_right else f"not one line with the file's name: {text[:300]}"
        except BaseException as error:
            said = f"raised {type(error).__name__}: {error}"[:300]
        signal.alarm(0)
        if most_held() - before > most_bytes:
            said = f"took {(most_held() - before) >> 20} MB"
        answers.send((index, said))
        if said.startswith("took"):
            return


def outcomes(jobs: list[tuple[Path, Reader]], most_bytes: int = MOST_BYTES) -> list[str]:
    """How each file went, each batch in a process of its own, which may hold so much."""
    found: list[str] = []
    context = multiprocessing.get_context("fork")
    while len(found) < len(jobs):
        left = jobs[len(found) : len(found) + AT_ONCE]
        answers, theirs = context.Pipe(duplex=False)
        process = context.Process(target=try_all, args=(left, most_bytes, theirs))
        process.start()
        theirs.close()
        told: dict[int, str] = {}
        try:
            while True:
                index, said = answers.recv()
                told[index] = said
        except EOFError:
            process.join()
        code = process.exitcode
        ended = f"hung for {LONGEST_S} s" if code == -signal.SIGALRM else f"died with {code}"
        found += [ended if said == "died" else said for _, said in sorted(told.items())]
    return found


def damage(count: int, seed: int, sabotage: str | None, folder: Path) -> list[str]:
    """Damage so many files; returns the faults, one line each."""
    choose = random.Random(seed)
    files = originals(folder)
    for name, (content, reader) in files.items():
        (folder / name).write_bytes(content)
        reader(folder / name)
    names = list(files)
    jobs = []
    for number in range(count):
        name = names[number % len(names)]
        content, reader = files[name]
        path = folder / str(number) / name
        path.parent.mkdir()
        path.write_bytes(damaged(content, files[choose.choice(names)][0], choose))
        jobs.append((path, sabotaged(reader, sabotage)))
    said = outcomes(jobs)
    refused = said.count("refused")
    print(f"{count} files, {refused} refused, {said.count('read')} read", flush=True)
    return [
        f"{path.name} ({path.parent.name}): {each}"
        for (path, _), each in zip(jobs, said, strict=True)
        if each not in ("read", "refused")
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=["crash", "hang", "traceback", "memory"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = damage(options.count, options.seed, options.sabotage, Path(folder))
    print(*faults[:50], f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
