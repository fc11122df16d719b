"""A run that was cut off goes on to the bits it would have come to; where it cannot, it says so."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import Scenes
from torch import Tensor

from pydenoise import models, nn, objectives, optim
from pydenoise.checkpoint import (
    CheckpointError,
    Checkpoints,
    CheckpointWarning,
    load_weights,
)
from pydenoise.data import Augmented, NoisyCrops, SingleCrops, TensorPairs, parse
from pydenoise.run import Run
from pydenoise.training import TrainingResult, TrainingStopped, train

STEPS = 15
TIMES = {"seconds", "pictures_per_second"}


def sgd(model: nn.Module) -> optim.Optimizer:
    return optim.SGD(model, 0.05, momentum=0.9)


def adam(model: nn.Module) -> optim.Optimizer:
    return optim.Adam(model, 1e-2)


def plain(model: nn.Module) -> optim.Optimizer:
    return optim.SGD(model, 0.05)


class Stops:
    """Says stop when it is asked for the `at`-th time; never where `at` is None."""

    def __init__(self, at: int | None) -> None:
        self._left = math.inf if at is None else at

    def __call__(self) -> bool:
        self._left -= 1
        return self._left <= 0


def run(
    folder: Path,
    *,
    stop_at: int | None = None,
    resume: bool = True,
    optimizer: Callable[[nn.Module], optim.Optimizer] = adam,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    **terms: Any,
) -> tuple[nn.Module, TrainingResult]:
    """Three epochs of five steps; the log and the checkpoints are in the folder."""
    folder.mkdir(exist_ok=True)
    model = models.autoencoder((4, 8), seed=0).to(dtype).to(device)
    given: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 8,
        "optimizer": optimizer(model),
        "schedule": optim.cosine(),
        "average": 0.9,
        "seed": 3,
        "log": folder / "log.jsonl",
        "checkpoints": Checkpoints(folder / "checkpoints", every=1e9),
        "stop": Stops(stop_at),
    }
    pairs = terms.pop("pairs", None) or Augmented(Scenes(36))
    result = train(model, pairs, **{**given, "resume": resume, **terms})
    return model, result


def weights(model: nn.Module) -> Tensor:
    return model.flatten().data.clone()


def without_times(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: record[key] for key in record.keys() - TIMES} for record in history]


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def in_pieces(folder: Path, **terms: Any) -> tuple[nn.Module, TrainingResult, int]:
    """A run that is stopped over and over, with the number of stops."""
    for stops in range(STEPS + 4):
        try:
            return *run(folder, **terms), stops
        except TrainingStopped:
            pass
    raise AssertionError("it never ends")


# --- to the same bits ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [sgd, plain, adam])
@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [2, 3, 8])
def test_stopped_and_resumed_is_as_never_stopped(
    tmp_path: Path, optimizer: Any, average: float, stop_at: int
) -> None:
    terms: dict[str, Any] = {
        "optimizer": optimizer,
        "average": average,
        "validation": Scenes().batch(np.arange(4), 0),
    }
    model, whole = run(tmp_path / "whole", resume=False, **terms)
    again, result, stops = in_pieces(tmp_path / "pieces", stop_at=stop_at, **terms)
    assert stops >= STEPS // stop_at - 1
    assert torch.equal(weights(model), weights(again))
    assert without_times(result.history) == without_times(whole.history)
    assert logged(tmp_path / "pieces") == result.history
    assert result.final == whole.final
    assert result.pictures == whole.pictures == 3 * 36


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kind", ["captures", "crops", "single pictures", "sinking loss", "tensors"]
)
def test_whatever_is_learned_from(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (24, 20, 3), dtype=np.uint8) for _ in range(3)]
    terms: dict[str, Any] = {"dtype": dtype}
    if kind == "crops":
        noise = parse("poisson-gauss:10-50,5-20")
        terms["pairs"] = NoisyCrops(pictures, noise, crop=8, length=36, seed=1)
    elif kind == "single pictures":
        terms["pairs"] = SingleCrops(pictures, crop=16, length=36, seed=1)
        terms["objective"] = objectives.Neighbor2Neighbor(seed=4)
    elif kind == "sinking loss":
        terms["objective"] = objectives.Noise2Noise(nn.LOSSES["l0"]())
    elif kind == "tensors":
        first, second = torch.randint(256, (2, 36, 3, 8, 8), dtype=torch.uint8)
        terms["pairs"] = TensorPairs(first, second)
    if dtype == torch.float64:
        terms["pairs"] = _AsDouble(terms.get("pairs") or Augmented(Scenes(36)))
    model, whole = run(tmp_path / "whole", resume=False, **terms)
    again, result, _ = in_pieces(tmp_path / "pieces", stop_at=4, **terms)
    assert torch.equal(weights(model), weights(again))
    assert without_times(result.history) == without_times(whole.history)


class _AsDouble(Augmented):
    """The pairs of another source in float64, as they lie."""

    def __init__(self, source: Any) -> None:
        super().__init__(source, flips=False, transpose=False, swap=False)

    def batch(self, indices: Any, epoch: int) -> Any:
        source, target = super().batch(indices, epoch)
        return source.double(), target.double()


@pytest.mark.parametrize("forgotten", ["optimizer", "average", "place in the epoch"])
def test_a_run_that_forgot_something_would_be_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The negative control of the tests above."""
    model, _ = run(tmp_path / "whole", resume=False)
    if forgotten == "optimizer":
        monkeypatch.setattr(Run, "_restore_optimizer", lambda *_: None)
    elif forgotten == "average":
        monkeypatch.setattr("pydenoise.steps.Average.restart", lambda _: None)
    else:
        restore = Run._restore

        def forgetful(self: Run, checkpoint: Any) -> None:
            restore(self, checkpoint)
            self._epoch_start = self._step

        monkeypatch.setattr(Run, "_restore", forgetful)
    again, _, stops = in_pieces(tmp_path / "pieces", stop_at=4)
    assert stops
    assert not torch.equal(weights(model), weights(again))


def test_a_finished_run_is_what_it_was(tmp_path: Path) -> None:
    model, whole = run(tmp_path / "run")
    again, result = run(tmp_path / "run")
    assert torch.equal(weights(model), weights(again))
    assert result.history == whole.history
    assert result.pictures_per_second == pytest.approx(whole.pictures_per_second)


def test_lines_behind_the_checkpoint_are_cut_off_and_those_before_the_run_stay(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.jsonl"
    log.write_text('{"of": "another run"}\n')
    with pytest.raises(TrainingStopped):
        run(tmp_path / "run", stop_at=9)
    before = log.read_text()
    assert before.count("\n") == 2
    log.write_text(before + '{"epoch": 2, "cut')
    run(tmp_path / "run")
    lines = log.read_text().splitlines()
    assert lines[:2] == before.splitlines()
    assert [json.loads(line)["epoch"] for line in lines[1:]] == [1, 2, 3]


def test_lines_of_a_run_that_came_between_stay(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(TrainingStopped):
        run(tmp_path / "a", stop_at=9, log=log)
    _, other = run(tmp_path / "b", log=log)
    _, result = run(tmp_path / "a", log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [result.history[0], *other.history, *result.history[1:]]
    _, result = run(tmp_path / "a", log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [*result.history, *other.history]
    log.rename(tmp_path / "moved")
    _, again = run(tmp_path / "a", log=tmp_path / "moved")
    lines = [json.loads(line) for line in (tmp_path / "moved").read_text().splitlines()]
    assert lines == [*again.history, *other.history]
    _, again = run(tmp_path / "a", log=tmp_path / "elsewhere")
    lines = (tmp_path / "elsewhere").read_text().splitlines()
    assert [json.loads(line) for line in lines] == again.history


def test_the_limit_counts_the_time_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("pydenoise.diary.time.perf_counter", lambda: clock[0])

    def ticking() -> bool:
        clock[0] += 1.0
        return clock[0] == 7.0

    with pytest.raises(TrainingStopped):
        run(tmp_path / "run", stop=ticking, time_limit=11.0)
    clock[0] = 1000.0
    _, result = run(tmp_path / "run", stop=ticking, time_limit=11.0)
    assert 10 <= result.history[-1]["step"] < STEPS
    assert result.seconds < 20


# --- what does not fit --------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    with pytest.raises(TrainingStopped) as caught:
        run(tmp_path / "run", stop_at=7)
    assert (caught.value.step, caught.value.steps) == (6, STEPS)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"seed": 4}, "seed was 3, is 4"),
        ({"batch_size": 4}, "batch_size was 8, is 4"),
        ({"epochs": 4}, "epochs was 3, is 4"),
        ({"average": 0.5}, "average was 0.9, is 0.5"),
        ({"optimizer": sgd}, "optimizer kind was Adam, is SGD"),
        ({"optimizer": lambda model: optim.Adam(model, 2e-2)}, "optimizer lr was 0.01, is 0.02"),
        ({"schedule": optim.constant()}, "schedule was"),
        ({"objective": objectives.Noise2Noise(nn.L1Loss())}, "loss was MSELoss, is L1Loss"),
        ({"pairs": Augmented(Scenes(36, noise=0.2))}, "data was"),
        ({"pairs": Augmented(Scenes(36), seed=1)}, "pairs seed was 0, is 1"),
        ({"validation": Scenes().batch(np.arange(4), 0)}, "validation was None"),
        ({"dtype": torch.float64}, "dtype was torch.float32, is torch.float64"),
        ({"time_limit": 100.0}, "time_limit was None, is 100.0"),
    ],
)
def test_another_run_is_not_gone_on_with(stopped: Path, terms: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match="is of another run") as caught:
        run(stopped, **terms)
    assert re.search(re.escape(words), str(caught.value)), str(caught.value)
    assert str(stopped / "checkpoints" / "000000006.json") in str(caught.value)
    run(stopped)


def test_other_versions_are_warned_of(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", "99.0")
    with pytest.warns(CheckpointWarning, match=r"computed otherwise \(torch was .*, is 99.0\)"):
        run(stopped)


def test_a_new_run_removes_no_checkpoints(stopped: Path) -> None:
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run; resume it"):
        run(stopped, resume=False)
    run(stopped)


def test_resume_and_rollbacks_need_checkpoints(tmp_path: Path) -> None:
    for terms in ({"resume": True}, {"resume": False, "rollbacks": 1}):
        with pytest.raises(ValueError, match="need checkpoints"):
            run(tmp_path / "run", checkpoints=None, **terms)


def test_without_checkpoints_it_stops_as_well(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match="after step 2 of 15"):
        run(tmp_path / "run", checkpoints=None, resume=False, stop_at=3)


# --- what a checkpoint is good for --------------------------------------------------------------


def test_a_checkpoint_s_averaged_weights_denoise(tmp_path: Path) -> None:
    model, _ = run(tmp_path / "run", validation=Scenes().batch(np.arange(4), 0))
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    again, header = load_weights(checkpoints.path(STEPS))
    assert torch.equal(weights(again), weights(model))
    assert header["architecture"] == model.architecture
    assert json.loads(header["trained_on"])["kind"] == "augmented"
    assert len(header["sha256"]) == 64
    assert again.value_range is None


def test_fingerprints_know_every_picture() -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (24, 20, 3), dtype=np.uint8) for _ in range(3)]
    changed = [*pictures[:2], pictures[2].copy()]
    changed[2][23, 19, 2] ^= 1
    noise = parse("gauss:25")
    for make in (
        lambda them: NoisyCrops(them, noise, crop=8),
        lambda them: SingleCrops(them, crop=8),
        lambda them: Augmented(SingleCrops(them, crop=8)),
        lambda them: TensorPairs(*[torch.from_numpy(np.stack(them).transpose(0, 3, 1, 2))] * 2),
    ):
        prints = [make(them).fingerprint() for them in (pictures, pictures, changed)]
        assert prints[0] == prints[1] != prints[2]
        assert re.fullmatch("[0-9a-f]{64}", prints[0])


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    terms = {"epochs": np.int64(3), "seed": np.int64(3), "average": np.float64(0.9)}
    terms["schedule"] = lambda progress: np.float64(1 - progress)
    with pytest.raises(TrainingStopped):
        run(tmp_path / "run", stop_at=7, **terms)
    run(tmp_path / "run", **{**terms, "epochs": 3, "seed": 3})

    class Odd(Scenes):
        def describe(self) -> dict[str, Any]:
            return {"folder": tmp_path}

    with pytest.raises(ValueError, match="keep the run's pairs as JSON, which cannot hold it"):
        run(tmp_path / "odd", pairs=Odd(36))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer_steps": math.inf},
        {"epoch": -1},
        {"epoch": 99},
        {"epoch_start": 99},
        {"epoch_start": -5},
        {"factor": -1.0},
        {"plan": {"steps": 0, "bend": [0, 0.0]}},
        {"plan": {"steps": 10**400, "bend": [0, 0.0]}},
        {"diary": {"history": [5, 6]}},
        {"diary": {"history": [{}]}},
        {"plan": None},
        {},
    ],
)
def test_made_up_states_are_refused(stopped: Path, change: dict[str, Any]) -> None:
    """With the right SHA-256."""
    checkpoints = Checkpoints(stopped / "checkpoints")
    newest = checkpoints.newest()
    assert newest is not None
    state = {**newest.state, **change}
    tensors = newest.tensors
    if not change:
        tensors = {name: each.double() for name, each in tensors.items()}
    checkpoints.save(replace(newest, state=state, tensors=tensors))
    with pytest.raises(CheckpointError, match=r"000000006\.json: does not fit the run"):
        run(stopped)
