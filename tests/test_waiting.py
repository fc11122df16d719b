"""Ranks wait for each other: as long as the others live, and not much longer."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Team, alone, kill, together, wait_for

from pydenoise import models, optim, run
from pydenoise.checkpoint import Checkpoints
from pydenoise.data import TensorPairs
from pydenoise.distributed import RanksLost, _ranks, connected
from pydenoise.distributed._waiting import LOST, Meeting
from pydenoise.training import train

PATIENCE = 3.0
LONG = 7.0


class SlowDisk(Checkpoints):
    """Takes its time to save."""

    def save(self, checkpoint: Any) -> Path:
        if checkpoint.step:
            (self.folder.parent / "saving").touch()
            time.sleep(LONG)
        return super().save(checkpoint)


def slow(
    folder: Path, measures_slowly: int | None, saves_slowly: bool, resume: bool = False
) -> str:
    """Train where a rank measures, or the first one's disk saves, for longer than the patience."""
    _ranks.PATIENCE = PATIENCE
    evaluate = run.evaluate

    def slowly(*given: Any) -> Any:
        (folder / "measuring").touch()
        time.sleep(LONG)
        return evaluate(*given)

    if os.environ.get("RANK") == str(measures_slowly):
        run.evaluate = slowly
    numbers = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (2, 8, 3, 16, 16), dtype=torch.uint8, generator=numbers)
    pictures = levels / 255
    model = models.autoencoder((8,), seed=0)
    folder_kind = SlowDisk if saves_slowly else Checkpoints
    try:
        with connected(torch.device("cpu")) as ranks:
            train(
                model,
                TensorPairs(*levels),
                epochs=1,
                batch_size=4,
                optimizer=optim.SGD(model, 0.1),
                validation=(pictures[0], pictures[1]),
                checkpoints=folder_kind(folder / "checkpoints"),
                resume=resume,
                ranks=ranks,
            )
    except RanksLost as error:
        return str(error)
    return "done"


@pytest.mark.parametrize(("measures", "saves"), [(1, False), (None, True)])
def test_work_that_takes_long_is_waited_for(
    tmp_path: Path, measures: int | None, saves: bool
) -> None:
    began = time.monotonic()
    assert together(2, slow, tmp_path, measures, saves) == ["done", "done"]
    assert time.monotonic() - began > LONG > 2 * PATIENCE


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_who_dies_or_freezes_at_it_is_not(tmp_path: Path, number: signal.Signals) -> None:
    running = Team(2, slow, tmp_path, None, True)
    wait_for((tmp_path / "saving").exists, 30)
    frozen = running.processes[0]
    kill(frozen, number)
    running.processes[1].join(40)
    is_gone = not running.processes[1].is_alive()
    kill(frozen)
    _, outcome = running.outcomes()
    assert is_gone
    assert outcome.result == "rank 0 was killed or cannot be reached"


def test_who_dies_while_he_measures_costs_no_step(tmp_path: Path) -> None:
    running = Team(3, slow, tmp_path, 1, False)
    wait_for((tmp_path / "measuring").exists, 30)
    kill(running.processes[1])
    first, _, third = (outcome.result for outcome in running.outcomes())
    assert first == third == "rank 1 was killed or cannot be reached"
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    assert newest is not None
    assert (newest.step, newest.ends_epoch, newest.state["diary"]["history"]) == (2, False, [])
    assert alone(slow, tmp_path, None, False, True) == "done"
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    assert newest is not None
    assert (newest.step, newest.ends_epoch) == (2, True)
    (record,) = newest.state["diary"]["history"]
    assert record["psnr_per_image"] > 0


class Deaf:
    """A board that never answers."""

    def set(self, key: str, value: str) -> None:
        time.sleep(60)

    def add(self, key: str, amount: int) -> int:
        return 0

    def check(self, keys: list[str]) -> bool:
        return False

    def delete_key(self, key: str) -> bool:
        return False


class Written(Deaf):
    """A board of one process."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def set(self, key: str, value: str) -> None:
        self.numbers[key] = 0

    def add(self, key: str, amount: int) -> int:
        self.numbers[key] = self.numbers.get(key, 0) + amount
        return self.numbers[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.numbers for key in keys)

    def delete_key(self, key: str) -> bool:
        return self.numbers.pop(key, None) is not None


def test_a_store_that_does_not_answer_is_left() -> None:
    with pytest.raises(RuntimeError, match="the store of the ranks does not answer"):
        Meeting(Deaf(), 0, 2, "first", 0.3).wait()


def test_a_meeting_leaves_nothing_on_the_board() -> None:
    board = Written()
    meeting = Meeting(board, 0, 1, "first", 5.0)
    meeting.wait()
    assert board.numbers
    meeting.clear()
    assert not board.numbers


def test_who_hears_of_a_loss_waits_no_longer() -> None:
    board = Written()
    board.set(LOST, "")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="somebody is lost"):
        Meeting(board, 0, 2, "first", 30.0).wait()
    assert time.monotonic() - began < 10


def test_who_has_left_is_not_waited_for() -> None:
    board = Written()
    board.set("left/1", "")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="no sign of life of rank 1"):
        Meeting(board, 0, 2, "first", 30.0).wait()
    assert time.monotonic() - began < 10
