"""The loop: every pair once an epoch, the same bits from run to run, ends as promised."""

from __future__ import annotations

import json
import math
import pickle
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scenes import Scenes, Watched
from torch import Tensor

from pydenoise import metrics, models, nn, optim
from pydenoise.data.pairs import Batch, Indices
from pydenoise.objectives import Noise2Noise
from pydenoise.training import TrainingDiverged, train


@pytest.fixture
def model() -> nn.Sequential:
    return models.autoencoder((4, 8), seed=0)


def weights(model: nn.Module) -> Tensor:
    return model.flatten().data.clone()


def keeps_nothing(model: nn.Module) -> bool:
    """Whether backward finds no forward pass to go back through."""
    with pytest.raises(RuntimeError, match="without a forward pass"):
        model.backward(torch.zeros(1, 3, 8, 8))
    return True


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("pydenoise-batches")]


@pytest.fixture(params=["in line", "ahead"])
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Batches cut between the steps, and by a thread of their own."""
    count = 1 if request.param == "in line" else 10**6
    monkeypatch.setattr("pydenoise.steps.cores", lambda: count)
    return str(request.param)


def test_every_pair_once_an_epoch_and_the_last_batch_smaller(
    model: nn.Sequential, cores: str
) -> None:
    pairs = Scenes(length=21)
    result = train(model, pairs, epochs=3, batch_size=8, optimizer=optim.SGD(model, 0.1), seed=5)
    orders = []
    for epoch in range(3):
        batches = [indices for asked, indices in pairs.asked if asked == epoch]
        assert [len(batch) for batch in batches] == [8, 8, 5]
        orders.append([index for batch in batches for index in batch])
        assert sorted(orders[-1]) == list(range(21))
    assert orders[0] != orders[1] != orders[2], "shuffled anew in every epoch"
    assert result.pictures == 63
    again = Scenes(length=21)
    train(model, again, epochs=3, batch_size=8, optimizer=optim.SGD(model, 0.1), seed=5)
    assert again.asked == pairs.asked
    other = Scenes(length=21)
    train(model, other, epochs=1, batch_size=8, optimizer=optim.SGD(model, 0.1), seed=6)
    assert other.asked != pairs.asked[:3]


def test_same_bits_whoever_cuts_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for count in (1, 10**6, 10**6):
        monkeypatch.setattr("pydenoise.steps.cores", lambda count=count: count)
        model = models.autoencoder((4, 8), seed=0)
        train(model, Scenes(), epochs=2, optimizer=optim.Adam(model, 1e-2), average=0.9)
        ends.append(weights(model))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[1], ends[2])


def test_it_learns_from_noisy_pairs_alone(tmp_path: Path) -> None:
    model = models.autoencoder((16, 32), seed=0)
    pairs = Scenes(length=160, noise=0.4)
    noisy, _ = pairs.batch(np.arange(16), 0)
    clean, _ = Scenes(noise=0).batch(np.arange(16), 0)
    reports: list[dict[str, Any]] = []
    result = train(
        model,
        pairs,
        epochs=12,
        optimizer=optim.Adam(model, 1e-2),
        schedule=optim.cosine(),
        validation=(noisy, clean),
        log=tmp_path / "log.jsonl",
        progress=reports.append,
    )
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert result.final["psnr_per_image"] > metrics.psnr_per_image(noisy, clean) + 3
    assert result.final["psnr_global"] > metrics.psnr_global(noisy, clean) + 3
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    assert set(result.history[0]) == {
        "epoch",
        "step",
        "lr",
        "loss",
        "psnr_per_image",
        "psnr_global",
        "pictures_per_second",
        "seconds",
    }
    assert [record["epoch"] for record in result.history] == list(range(1, 13))
    assert result.history[-1]["step"] == 120
    assert result.final["psnr_per_image"] == result.history[-1]["psnr_per_image"]
    assert reports[-1]["step"] == reports[-1]["steps"] == 120
    assert reports[-1]["seconds_left"] == 0


def test_the_end_is_told_of_once(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydenoise.diary._SECONDS_BETWEEN_REPORTS", 0.0)
    told: list[dict[str, Any]] = []
    rule = optim.SGD(model, 0.1)
    train(model, Scenes(8), epochs=1, batch_size=2, optimizer=rule, progress=told.append)
    assert [record["step"] for record in told] == [1, 2, 3, 4]


def test_loss_of_the_log_is_the_mean_over_pictures() -> None:
    """With a rate of 0 every batch meets the same weights: the loss can be computed again."""
    model = models.autoencoder((4, 8), seed=0)
    pairs = Scenes(length=21)
    result = train(model, pairs, epochs=1, batch_size=8, optimizer=optim.SGD(model, 0.0))
    source, target = pairs.batch(np.arange(21), 0)
    assert result.history[0]["loss"] == pytest.approx(
        float((model.eval()(source) - target).square().mean()), rel=1e-5
    )


def test_rate_follows_the_schedule_and_is_handed_back(model: nn.Sequential) -> None:
    optimizer = Watched(model, 0.2)
    train(model, Scenes(), epochs=2, batch_size=10, optimizer=optimizer, schedule=optim.cosine())
    expected = [0.2 * (0.5 + 0.5 * math.cos(math.pi * step / 8)) for step in range(8)]
    assert optimizer.rates == pytest.approx(expected)
    assert optimizer.lr == 0.2


def test_average_of_the_weights(model: nn.Sequential) -> None:
    first = weights(model)
    optimizer = Watched(model, 0.5, momentum=0.9)
    train(model, Scenes(), epochs=5, batch_size=8, optimizer=optimizer, average=0.6)
    expected = first.double()
    for step, now in enumerate(optimizer.weights, start=1):
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * now.double()
    torch.testing.assert_close(weights(model).double(), expected, rtol=1e-5, atol=1e-6)


def test_validation_measures_the_average_and_puts_the_latest_back() -> None:
    validation = Scenes().batch(np.arange(4), 0)
    plain, measured = (models.autoencoder((4, 8), seed=0) for _ in range(2))
    for model, extra in ((plain, None), (measured, validation)):
        train(
            model,
            Scenes(),
            epochs=3,
            optimizer=optim.SGD(model, 0.5),
            average=0.9,
            validation=extra,
        )
    assert torch.equal(weights(plain), weights(measured))


def test_no_average_leaves_the_latest_weights(model: nn.Sequential) -> None:
    optimizer = Watched(model, 0.5)
    train(model, Scenes(), epochs=1, optimizer=optimizer)
    assert torch.equal(weights(model), optimizer.weights[-1])


def test_loss_that_is_no_number_stops_it(model: nn.Sequential, cores: str) -> None:
    class Poisoned(Scenes):
        def _pair(self, index: int) -> tuple[Tensor, Tensor]:
            source, target = super()._pair(index)
            return source, target * (math.nan if index == 7 else 1)

    before = weights(model)
    optimizer = Watched(model, 0.25)
    with pytest.raises(
        TrainingDiverged, match=r"the loss is nan at step \d+ with lr 0\.25"
    ) as stop:
        train(model, Poisoned(), epochs=1, batch_size=8, optimizer=optimizer)
    assert stop.value.step == len(optimizer.rates) + 1
    assert stop.value.lr == 0.25
    assert "smaller" in str(stop.value)
    again = pickle.loads(pickle.dumps(stop.value))
    assert type(again) is TrainingDiverged
    assert (str(again), again.step, again.lr) == (str(stop.value), stop.value.step, 0.25)
    kept = optimizer.weights[-1] if optimizer.weights else before
    assert torch.equal(weights(model), kept), "the poisoned step was not taken"
    assert keeps_nothing(model)
    assert not threads()


def test_weights_that_are_no_numbers_stop_it(model: nn.Sequential) -> None:
    class Careless(optim.SGD):
        def step(self) -> None:
            super().step()
            model[0].weight[0, 0, 0, 0] = math.inf

    with pytest.raises(TrainingDiverged, match="a weight is not finite at step 1 "):
        train(model, Scenes(), epochs=1, optimizer=Careless(model, 0.1))


def test_weights_of_the_last_step_are_looked_at_too(model: nn.Sequential) -> None:
    """They are finite, and no loss is computed with them any more."""
    optimizer = Watched(model, 1e30)
    with pytest.raises(TrainingDiverged, match=r"the result is not finite at step 1 .* smaller"):
        train(model, Scenes(), epochs=1, batch_size=40, optimizer=optimizer, average=0.5)
    (after,) = optimizer.weights
    assert after.isfinite().all() and torch.equal(weights(model), after)
    assert keeps_nothing(model)


def test_gradients_do_not_outlive_a_failed_update(model: nn.Sequential) -> None:
    class Failing(optim.SGD):
        def step(self) -> None:
            assert model.flatten().grad.any()
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        train(model, Scenes(), epochs=1, optimizer=Failing(model, 0.1))
    assert not model.flatten().grad.any()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_exception_leaves_nothing_behind(
    model: nn.Sequential, cores: str, error: type[BaseException]
) -> None:
    class Unlucky(Scenes):
        def batch(self, indices: Indices, epoch: int) -> Batch:
            if len(self.asked) == 2:
                raise error
            return super().batch(indices, epoch)

    optimizer = optim.SGD(model, 0.1)
    model(torch.rand(1, 3, 8, 8))
    with pytest.raises(error):
        train(
            model,
            Unlucky(),
            epochs=1,
            batch_size=4,
            optimizer=optimizer,
            schedule=optim.cosine(),
        )
    assert keeps_nothing(model)
    assert not model.flatten().grad.any()
    assert optimizer.lr == 0.1
    assert not threads()


class Clocked(Scenes):
    """Takes 10 ms for every batch by a clock of its own, and longer in the first epochs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow_epochs: int) -> None:
        super().__init__()
        self.now = 0.0
        self.slow_epochs = slow_epochs
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("pydenoise.diary.time", clock)
        monkeypatch.setattr("pydenoise.steps.cores", lambda: 1)

    def batch(self, indices: Indices, epoch: int) -> Batch:
        self.now += 0.05 if epoch < self.slow_epochs else 0.01
        return super().batch(indices, epoch)


def test_time_limit_bends_the_schedule_to_its_end(
    model: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 steps an epoch at the planned pace of 500, the other 55 of those that fit faster."""
    optimizer = Watched(model, 1.0)
    train(
        model,
        Clocked(monkeypatch, slow_epochs=0),
        epochs=100,
        batch_size=8,
        optimizer=optimizer,
        schedule=lambda progress: 1 - progress,
        time_limit=0.605,
    )
    at_the_end_of_the_first = 1 - 5 / 500
    expected = [1 - step / 500 for step in range(5)]
    expected += [at_the_end_of_the_first * (1 - step / 55) for step in range(55)]
    assert optimizer.rates == pytest.approx(expected)


def test_time_won_back_is_used(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = Clocked(monkeypatch, slow_epochs=2)
    optimizer = Watched(model, 1.0)
    train(
        model,
        pairs,
        epochs=100,
        batch_size=8,
        optimizer=optimizer,
        schedule=lambda progress: 1 - progress,
        time_limit=2.0,
    )
    assert 1.8 < pairs.now < 2.01, "near the limit, though 40 steps was the first estimate"
    assert (np.diff(optimizer.rates) < 0).all(), "the rate only falls"
    assert optimizer.rates[-1] < 0.05, "and reaches its end"


def test_time_that_is_not_needed_changes_nothing() -> None:
    ends = []
    for limit in (None, 1000.0):
        model = models.autoencoder((4, 8), seed=0)
        optimizer = Watched(model, 0.3)
        train(model, Scenes(), epochs=3, optimizer=optimizer, time_limit=limit)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_no_tensor_is_made_after_the_first_steps(model: nn.Sequential) -> None:
    optimizer = Watched(model, 0.1, momentum=0.9)
    train(model, Scenes(length=105), epochs=1, batch_size=1, optimizer=optimizer, average=0.9)
    assert len(optimizer.allocations) == 105
    assert optimizer.allocations[5] == optimizer.allocations[-1]


def test_a_log_is_continued_not_replaced(model: nn.Sequential, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    for _ in range(2):
        train(model, Scenes(), epochs=1, optimizer=optim.SGD(model, 0.1), log=log)
    assert len(log.read_text().splitlines()) == 2


def test_works_with_gradients_switched_off(model: nn.Sequential) -> None:
    with torch.no_grad():
        train(model, Scenes(), epochs=1, optimizer=optim.SGD(model, 0.1))
    assert not model[0].weight.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"average": 1.0}, r"average must lie in \[0, 1\), got 1.0"),
        ({"average": -0.1}, r"average must lie in \[0, 1\), got -0.1"),
        ({"optimizer": Watched(nn.Sequential(nn.Conv2d(1, 1, 1)), math.inf)}, "lr must be .* inf"),
        ({"time_limit": 0.0}, "time_limit must be positive and finite, got 0.0"),
        ({"pairs": Scenes(length=0)}, "the source of pairs is empty"),
        ({"objective": "l1"}, "the objective is a str; give one of pydenoise.objectives, or"),
    ],
)
def test_bad_arguments_are_named(
    model: nn.Sequential, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"epochs": 1, "pairs": Scenes(), "log": tmp_path / "log"}
    with pytest.raises((TypeError, ValueError), match=message):
        train(model, **{"optimizer": optim.SGD(model, 0.1)} | arguments | change)
    assert not (tmp_path / "log").exists()


def test_little_time_beside_the_step(model: nn.Sequential) -> None:
    """A step of the loop over nothing costs well under the 4 ms of a real one."""

    class Idle(Noise2Noise):
        def step(self, model: nn.Module, source: Tensor, target: Tensor) -> float:
            return 0.0

    class Ready(Scenes):
        ready = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)

        def batch(self, indices: Indices, epoch: int) -> Batch:
            return self.ready

    class Still(optim.SGD):
        def step(self) -> None:
            pass

        def zero_grad(self) -> None:
            pass

    began = time.process_time()
    train(
        model,
        Ready(length=2000),
        epochs=1,
        batch_size=1,
        optimizer=Still(model, 0.1),
        objective=Idle(),
        average=0.999,
    )
    assert (time.process_time() - began) / 2000 < 200e-6
