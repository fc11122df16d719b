"""Several processes train one network: the same pairs, the same weights, and nobody waits for ever.

Processes are forks that gloo connects over loopback; test_torchrun.py has torchrun start them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks as team
import torch
from kills import pictures
from ranks import Team, alone, commanded, together, trained
from torch import Tensor

from pydenoise import models, nn, objectives, optim
from pydenoise.checkpoint import Checkpoints
from pydenoise.distributed import BucketSteps, Ranks, Wish, _steps
from pydenoise.distributed._steps import bounds
from pydenoise.launch import launched
from pydenoise.ops import _library
from pydenoise.ops._backend import use_isa
from pydenoise.steps import Average, Steps
from pydenoise.training import train

EPOCHS_OF_50_STEPS = 10  # of 5 steps each, the last on 6 pairs
QUICKLY = 60.0
"""Seconds within which all have to be gone when one is."""


def distance(a: Any, b: Any) -> float:
    """Largest difference, relative to the largest weight."""
    return float(np.abs(a.weights - b.weights).max() / np.abs(b.weights).max())


# --- the same numbers ---------------------------------------------------------------------------


def test_sharded_steps_give_the_same_bits_for_1_2_3_and_4_processes() -> None:
    options = {"shards": 8}
    runs = [alone(job, options) for job in [in_shards]]
    runs += [together(size, in_shards, options)[rank] for size, rank in ((2, 1), (3, 2), (4, 0))]
    assert len({run.sha256 for run in runs}) == 1
    assert all(run.losses == runs[0].losses for run in runs)
    assert alone(in_shards, {"shards": 7}).sha256 != runs[0].sha256, "another sum, other bits"


def in_shards(options: dict[str, Any]) -> Any:
    return trained(EPOCHS_OF_50_STEPS, **options)


@pytest.mark.parametrize("kind", ["tensors", "singles"])
def test_whatever_is_drawn_for_a_pair_does_not_depend_on_who_sees_it(kind: str) -> None:
    one = alone(a_run, {"kind": kind, "shards": 4})
    two = together(2, a_run, {"kind": kind, "shards": 4})
    assert one.sha256 == two[0].sha256 == two[1].sha256


def a_run(options: dict[str, Any]) -> Any:
    return trained(**options)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("network", ["autoencoder", "unet"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_fast_steps_come_close_to_one_process(
    size: int, network: str, dtype: torch.dtype, bound: float
) -> None:
    """20 steps; batches of 16 and of 6 pairs, which 4 processes cut unevenly."""
    if dtype == torch.float32 and _library.kernels() is None:
        pytest.skip("torch's products round as batches are cut, and Adam makes much of it")
    options = {"epochs": 4, "network": network, "dtype": dtype}
    one, many = alone(a_run, options), together(size, a_run, options)
    assert len({run.sha256 for run in many}) == 1, "all ranks have the same weights"
    assert distance(many[0], one) < bound
    np.testing.assert_allclose(many[0].losses, one.losses, rtol=bound)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="nccl needs a GPU")
@pytest.mark.parametrize("shards", [0, 8])
def test_one_process_with_nccl_trains_as_one_without(shards: int) -> None:
    options = {"device": "cuda", "shards": shards}
    (connected,) = together(1, a_run, options)
    assert not isinstance(connected, str), connected
    assert distance(connected, alone(a_run, options)) < 1e-5


def test_every_pair_is_seen_once_an_epoch_in_the_order_of_one_process() -> None:
    one = alone(a_run, {"epochs": 1})
    many = together(4, a_run, {"epochs": 1})
    seen = [[pair for run in many for pair in run.seen[step]] for step in range(5)]
    assert seen == one.seen[:5]
    assert Counter(chain(*seen)) == Counter(range(70))


def test_nobody_but_who_saw_it_names_the_pairs_of_a_loss_that_is_none(tmp_path: Path) -> None:
    first, second = together(2, a_run, {"nan_on": 1})
    assert first == (
        "TrainingDiverged: training diverged: the loss is nan at step 1 with lr 0.001 (on another "
        "rank); start again with a smaller rate, 0.00025 say, and look for NaN in the data"
    )
    assert "in the batch of pairs " in second


# --- sums while backward goes on ----------------------------------------------------------------


class Watched(Ranks):
    """One rank that notes what of the gradient is summed, and how many layers were then done."""

    is_connected = True

    def __init__(self, model: nn.Module) -> None:
        self.model, self.sums = model, list[tuple[int, int]]()

    def start_sum(self, tensor: Tensor) -> Any:
        open_layers = sum(len(layer._entries) > 0 for layer in self.model.modules())
        self.sums.append((tensor.numel(), open_layers))
        return super().start_sum(tensor)


class Beside(Watched):
    """One rank, and what another beside it wants."""

    other_wants = 0.0

    def summed(self, numbers: Sequence[float]) -> list[float]:
        loss, wanted = super().summed(numbers)
        return [loss, wanted + self.other_wants]


def steps_of(
    model: nn.Module, ranks: Ranks | None, objective: Any, wish: Wish | None = None
) -> Steps:
    pairs = team.source_of("crops", 24)
    given = model, pairs, objective, optim.SGD(model, 0.01), 8, 0
    average = Average(model.flatten().data, 0.0)
    if ranks is None:
        return Steps(*given, average)
    return BucketSteps(*given, average, ranks=ranks, wishes=[wish or Wish(None)])


def test_what_one_rank_wants_all_hear() -> None:
    model, wish = models.autoencoder((4,), seed=1), Wish(None)
    ranks = Beside(model)
    steps = steps_of(model, ranks, objectives.Noise2Noise(), wish)
    for ranks.other_wants in (0.0, 1.0, 0.0):
        list(steps.epoch(0, 0, 0, 1, lambda step: 0.01))
        assert wish() == (ranks.other_wants > 0)


@pytest.mark.parametrize("objective", [objectives.Noise2Noise, objectives.Neighbor2Neighbor])
def test_buckets_are_summed_before_backward_has_ended(
    objective: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_steps, "BUCKET_BYTES", 2**16)
    model, twin = (models.small_unet(seed=1) for _ in range(2))
    ranks = Watched(model)
    done = list(steps_of(model, ranks, objective()).epoch(0, 0, 0, 3, lambda step: 0.01))
    plain = list(steps_of(twin, None, objective()).epoch(0, 0, 0, 3, lambda step: 0.01))
    assert torch.equal(model.flatten().data, twin.flatten().data)
    assert [each.loss for each in done] == [each.loss for each in plain]
    count = len(ranks.sums) // 3
    assert count > 3
    assert sum(size for size, _ in ranks.sums[:count]) == model.flatten().grad.numel()
    learning, step = ranks.sums[:count], ranks.sums[-count:]
    assert {waiting for _, waiting in learning} == {0}, "the first step learns when they are ready"
    early = [waiting for _, waiting in step]
    assert early == sorted(early, reverse=True)
    assert early[0] > early[-2] > 0, "all but the last begin with layers still to go back through"


def test_who_adds_to_gradients_in_ways_of_his_own_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Decayed(objectives.Noise2Noise):
        """Adds to the gradients behind backward, when nothing tells of it."""

        def step(self, model: nn.Module, *pictures: Any, **options: Any) -> float:
            loss = super().step(model, *pictures, **options)
            for value, gradient in model.param():
                gradient.add_(value, alpha=0.1)
            return loss

    monkeypatch.setattr(_steps, "BUCKET_BYTES", 2**16)
    model, twin = (models.small_unet(seed=1) for _ in range(2))
    ranks = Watched(model)
    list(steps_of(model, ranks, Decayed()).epoch(0, 0, 0, 3, lambda step: 0.01))
    list(steps_of(twin, None, Decayed()).epoch(0, 0, 0, 3, lambda step: 0.01))
    assert {waiting for _, waiting in ranks.sums} == {0}
    assert torch.equal(model.flatten().data, twin.flatten().data)


def test_a_way_back_that_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steps, "BUCKET_BYTES", 2**16)
    model = models.small_unet(seed=1)
    steps = steps_of(model, Watched(model), objectives.Noise2Noise())
    list(steps.epoch(0, 0, 0, 1, lambda step: 0.01))
    parts = "pydenoise.objectives.noise2noise._parts"
    monkeypatch.setattr(parts, lambda source: 2)
    with pytest.raises(RuntimeError, match="went back another way than in steps before"):
        list(steps.epoch(0, 1, 1, 1, lambda step: 0.01))


def test_parts_leave_nothing_out() -> None:
    for count in range(40):
        for parts in range(1, 12):
            cuts = bounds(count, parts)
            assert (cuts[0], cuts[-1], len(cuts)) == (0, count, parts + 1)
            sizes = np.diff(cuts)
            assert sizes.min() >= 0
            assert sizes.max() - sizes.min() <= 1


# --- stopping, dying, going on ------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4])
def test_a_run_of_two_goes_on_with_others_to_the_same_bits(size: int, tmp_path: Path) -> None:
    whole = alone(a_run, {"epochs": 3, "shards": 4})
    stopped = {"epochs": 3, "shards": 4, "folder": tmp_path, "stop": (8, 1)}
    ends = together(2, a_run, stopped)
    assert ends == ["TrainingStopped: training stopped after step 8 of 15"] * 2, "rank 1 asked"
    going_on = {"epochs": 3, "shards": 4, "folder": tmp_path, "resume": True}
    if size == 1:
        assert alone(a_run, going_on).sha256 == whole.sha256
    else:
        assert {each.sha256 for each in together(size, a_run, going_on)} == {whole.sha256}
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log] == whole.losses


def test_who_is_left_when_one_is_killed_names_him_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    running = Team(3, a_run, {"epochs": 500, "folder": tmp_path, "pause": 0.01})
    team.wait_for(lambda: Checkpoints(tmp_path / "checkpoints").newest() is not None)
    time.sleep(0.3)
    began = time.monotonic()
    team.kill(running.processes[1])
    outcomes = running.outcomes()
    assert time.monotonic() - began < QUICKLY
    assert outcomes[1].code == -signal.SIGKILL
    for outcome in (outcomes[0], outcomes[2]):
        assert "RanksLost: rank 1 was killed or cannot be reached" in outcome.result
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    assert newest is not None
    assert newest.step > 0


def test_a_kill_or_two_at_random(tmp_path: Path) -> None:
    """`tests/rank_kills.py` makes a hundred of them, and is sabotaged in vain."""
    command = [sys.executable, str(Path(__file__).with_name("rank_kills.py"))]
    command += ["2", "--seed", "1", "--kept", str(tmp_path / "kept.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith(" 0 faults")


# --- wrong use ----------------------------------------------------------------------------------


def test_other_data_on_one_rank_is_an_error_on_all() -> None:
    for end in together(3, a_run, {"other_data_on": 2}):
        assert end.startswith("RanksDiffer: rank 2 was not started as rank 0 was (")
        assert "data was" in end
        assert "give all processes the same code, data and options" in end


def test_other_options_on_one_rank_are_an_error_on_all(tmp_path: Path) -> None:
    words = ["train", str(tmp_path), "-o", str(tmp_path / "run"), "--noise", "gauss:25"]
    for code, _, heard in together(2, on_each, [[*words, "--lazy"], words]):
        assert code == 2
        assert "error: rank 1 was started with lazy None, rank 0 with True; give all" in heard


def on_each(words: list[list[str]]) -> Any:
    return commanded(words[int(os.environ["RANK"])])


@pytest.mark.skipif(_library.kernels() is None, reason="the kernels are not built")
def test_other_instruction_sets_on_one_rank_are_an_error_on_all() -> None:
    for end in together(2, with_scalar_kernels_on_rank_1):
        assert end.startswith("RanksDiffer: rank 1 was not started as rank 0 was (")
        assert "isa was " in end


def with_scalar_kernels_on_rank_1() -> Any:
    if os.environ["RANK"] == "1":
        with use_isa("scalar"):
            return trained()
    return trained()


def test_more_processes_than_pairs_of_a_batch() -> None:
    for end in together(3, a_run, {"batch_size": 2}):
        assert end.startswith("ValueError: train: 3 processes cannot share batches of 2 pairs")
    for end in together(3, a_run, {"shards": 2}):
        assert end.startswith("ValueError: train: 3 processes cannot share 2 shards")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_on_all(tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "pictures"), tmp_path / "run"
    words = ["train", str(data), "-o", str(out), "--noise", "gauss:25", "--device", "cuda"]
    for rank, (code, _, err) in enumerate(together(2, commanded, words)):
        assert code == 2
        assert f"rank {rank}: error: --device cuda: " in err
        assert "take --device cpu" in err
    assert not out.exists()


def test_a_rank_that_fails_before_the_first_step_is_named(tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "pictures"), tmp_path / "run"
    out.mkdir()
    (out / "other.txt").write_text("mine")
    words = ["train", str(data), "-o", str(out), "--noise", "gauss:25"]
    (first, _, own), (second, _, heard) = together(2, commanded, words)
    assert (first, second) == (2, 1)
    assert "rank 0: error: " in own
    assert "holds files" in own
    assert "rank 1: error: rank 0 ended" in heard


def test_what_the_launcher_says_has_to_be_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "many")
    with pytest.raises(ValueError, match="environment holds no numbers: RANK=many"):
        launched()


def test_one_process_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, no step goes through torch.distributed, nor through the classes for it."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for by a run of one process")

    monkeypatch.setattr(torch.distributed, "init_process_group", refuse)
    monkeypatch.setattr("pydenoise.distributed._steps.SharedSteps.__init__", refuse)
    model = models.autoencoder((4,), seed=0)
    pairs = team.source_of("crops", 8)
    train(model, pairs, epochs=1, batch_size=4, optimizer=optim.SGD(model, 0.01))
