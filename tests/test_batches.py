"""Batches cut by processes of their own: the same bits in the same order, and none outlives us."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import random_picture

from pydenoise import models, training
from pydenoise.batches import Cutters
from pydenoise.data import ImageError, NoisyCrops, PairSource, open_folder, parse, write
from pydenoise.data.pairs import Batch, Indices
from pydenoise.optim import SGD

# fork one that has imported all
multiprocessing.get_context("forkserver").set_forkserver_preload(["pydenoise.training"])


class Unusual(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Numbered(PairSource):
    """Pairs that show their number and their epoch; some numbers bring harm."""

    shape = (1, 2, 2)

    def __len__(self) -> int:
        return 10**6

    def batch(self, indices: Indices, epoch: int) -> Batch:
        if 13 in indices:
            raise ImageError("thirteen.png: is no picture")
        if 14 in indices:
            raise Unusual(1, 4)
        if 15 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        source = torch.as_tensor(indices, dtype=torch.float32)[:, None, None, None]
        return source.expand(-1, *self.shape).contiguous(), torch.full((1,), float(epoch))

    def describe(self) -> dict[str, object]:
        return {}


def nothing(part: Indices) -> Batch:
    assert not len(part)
    return torch.empty(0), torch.empty(0)


def parts(*numbers: int) -> Iterator[Indices]:
    return (np.array([number]) for number in numbers)


@pytest.fixture(scope="module")
def cutters() -> Iterator[Cutters]:
    with Cutters(Numbered(), 3) as cutters:
        yield cutters


def test_batches_come_in_order_and_an_empty_share_is_empty(cutters: Cutters) -> None:
    asked = [np.arange(n, n + n % 3) for n in range(100, 130)]
    found = list(cutters.cut(iter(asked), 7, nothing))
    assert len(found) == len(asked)
    for part, (source, target) in zip(asked, found, strict=True):
        assert source.flatten().tolist() == np.repeat(part, 4).tolist()
        assert target.tolist() == [7.0] * bool(len(part))


def test_what_an_epoch_left_lying_is_not_taken_for_the_next(cutters: Cutters) -> None:
    with closing(cutters.cut(parts(*range(100, 150)), 1, nothing)) as batches:
        next(batches)
    found = [float(source[0, 0, 0, 0]) for source, _ in cutters.cut(parts(5, 6, 7), 2, nothing)]
    assert found == [5, 6, 7]


def test_batches_larger_than_a_pipe_do_not_stop_each_other(cutters: Cutters) -> None:
    asked = [np.arange(100, 200_000)] * 12
    assert sum(len(source) for source, _ in cutters.cut(asked, 0, nothing)) == 12 * 199_900


def test_what_cutting_raises_is_raised(cutters: Cutters) -> None:
    with pytest.raises(ImageError, match=r"^thirteen.png: is no picture$"):
        list(cutters.cut(parts(1, 13, 2, 3), 0, nothing))
    with pytest.raises(RuntimeError, match=r"^Unusual: 1 and 4$"):
        list(cutters.cut(parts(1, 14), 0, nothing))
    assert len(list(cutters.cut(parts(1, 2, 3), 0, nothing))) == 3, "and the processes live on"


def test_a_process_that_dies_ends_the_run_in_words() -> None:
    began, others = time.monotonic(), multiprocessing.active_children()
    with Cutters(Numbered(), 2) as cutters:
        with pytest.raises(training.WorkersLost) as caught:
            list(cutters.cut(parts(1, 2, 3, 15, 4, 5, 6, 7), 0, nothing))
        workers = set(multiprocessing.active_children()) - set(others)
    assert workers
    assert str(caught.value) == (
        "train: a process that cuts batches was killed by SIGKILL; if memory ran out, take fewer "
        "workers"
    )
    assert time.monotonic() - began < 30
    assert not any(worker.is_alive() for worker in workers)


def test_pairs_that_cannot_travel_are_refused_before_a_process_starts() -> None:
    pairs = Numbered()
    pairs.open = (part for part in [])  # type: ignore[attr-defined]
    before = set(multiprocessing.active_children())
    with Cutters(pairs, 1) as cutters, pytest.raises(TypeError, match=r"pickled .*take workers=0"):
        next(cutters.cut(parts(1), 0, nothing))
    assert set(multiprocessing.active_children()) == before


def test_training_has_the_same_bits_with_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(3):
        write(tmp_path / f"{number}.png", random_picture(3, 40, 40 + number))
    pairs = NoisyCrops(open_folder(tmp_path).pictures, parse("gauss:25"), 16, length=21)
    weights = []
    for workers in (0, 2):
        model = models.autoencoder((4, 8), seed=0)
        rule = SGD(model.parameters(), lr=0.1)
        training.train(model, pairs, epochs=2, batch_size=4, optimizer=rule, workers=workers)
        weights.append(model.flatten().data.clone())
    assert torch.equal(*weights)
    with pytest.raises(ValueError, match=r"workers must be a whole number, 0 or more, got -1"):
        training.train(model, pairs, epochs=1, optimizer=rule, workers=-1)


FOREVER = """
import multiprocessing, sys
sys.path[:0] = [{tests!r}]
from test_batches import Cutters, Numbered, nothing, parts

if __name__ == "__main__":
    with Cutters(Numbered(), 1) as cutters:
        for _ in cutters.cut(parts(*range(100, 110)), 0, nothing):
            pass
        print(*(each.pid for each in multiprocessing.active_children()), flush=True)
        sys.stdin.read()
"""


def test_processes_end_with_the_one_that_they_work_for(tmp_path: Path) -> None:
    script = tmp_path / "forever.py"
    script.write_text(FOREVER.format(tests=str(Path(__file__).parent)))
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 1
        for worker in workers:
            os.kill(worker, signal.SIGTERM)  # left to the one they work for
        time.sleep(0.1)
        assert all(map(is_alive, workers))
        process.kill()
    until = time.monotonic() + 20
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
