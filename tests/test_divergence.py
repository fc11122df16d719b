"""Runs whose numbers run away: told where, and gone back with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scenes import Scenes
from test_resume import adam, logged, run, weights, without_times
from torch import Tensor

from pydenoise import models, nn, objectives, optim
from pydenoise.checkpoint import Checkpoints
from pydenoise.nn.hooks import outputs_seen
from pydenoise.training import TrainingDiverged, TrainingStopped


class Hopeless(objectives.Noise2Noise):
    """Finds no loss in the second epoch, the first `times` that it is asked for."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self._left = times
        self._epoch = 0

    def begin(self, epoch: int, progress: float, taken: int = 0) -> None:
        self._epoch = epoch

    def step(self, *pictures: Any, **terms: Any) -> float:
        loss = super().step(*pictures, **terms)
        if self._epoch == 1 and self._left > 0:
            self._left -= 1
            return math.nan
        return loss


def test_back_to_the_last_checkpoint_with_half_the_rate(tmp_path: Path) -> None:
    _, result = run(tmp_path / "run", objective=Hopeless(1), rollbacks=2, schedule=None)
    assert [record["lr"] for record in result.history] == [1e-2, 5e-3, 5e-3]
    assert [record["epoch"] for record in result.history] == [1, 2, 3]
    assert logged(tmp_path / "run") == result.history
    newest = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert newest is not None
    assert (newest.state["rollbacks"], newest.state["factor"]) == (1, 0.5)


def test_where_it_was_cut_off_does_not_matter_to_going_back(tmp_path: Path) -> None:
    """It goes to the end of an epoch, not to the newest checkpoint."""

    class Late(Hopeless):
        """Only in the fourth step of the epoch."""

        def begin(self, epoch: int, progress: float, taken: int = 0) -> None:
            super().begin(epoch, progress)
            self._taken = taken

        def step(self, *pictures: Any, **terms: Any) -> float:
            self._taken += 1
            left, self._left = self._left, self._left if self._taken == 4 else 0
            loss = super().step(*pictures, **terms)
            self._left = self._left if self._taken == 4 else left
            return loss

    model, whole = run(tmp_path / "whole", objective=Late(1), rollbacks=1)
    with pytest.raises(TrainingStopped):
        run(tmp_path / "cut", objective=Late(1), rollbacks=1, stop_at=8)
    again, result = run(tmp_path / "cut", objective=Late(1), rollbacks=1)
    assert torch.equal(weights(model), weights(again))
    assert without_times(result.history) == without_times(whole.history)


def test_a_run_that_went_back_is_resumed_at_its_lower_rate(tmp_path: Path) -> None:
    model, whole = run(tmp_path / "whole", objective=Hopeless(1), rollbacks=1, schedule=None)
    for name in ("cut", "again"):
        terms: dict[str, Any] = {"rollbacks": 1, "schedule": None, "stop_at": 8}
        with pytest.raises(TrainingStopped):
            run(tmp_path / name, objective=Hopeless(1), **terms)
    again, result = run(tmp_path / "cut", objective=Hopeless(0), rollbacks=1, schedule=None)
    assert [record["lr"] for record in result.history] == [1e-2, 5e-3, 5e-3]
    assert without_times(result.history) == without_times(whole.history)
    assert torch.equal(weights(model), weights(again))
    with pytest.raises(TrainingDiverged, match=r"with lr 0\.005"):
        run(tmp_path / "again", objective=Hopeless(1), rollbacks=1, schedule=None)


def test_no_more_often_than_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"at step 6 with lr 0\.005"):
        run(tmp_path / "run", objective=Hopeless(math.inf), rollbacks=1, schedule=None)
    newest = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert newest is not None
    assert newest.step == 5


def test_the_batch_and_what_broke_first_are_named(tmp_path: Path) -> None:
    class Poisoned(Scenes):
        def _pair(self, index: int) -> tuple[Tensor, Tensor]:
            first, second = super()._pair(index)
            return first, second * math.nan if index == 17 else second

    batch = r"in the batch of pairs \d+, \d+, \d+, \d+ and 4 more of epoch 1"
    with pytest.raises(TrainingDiverged, match=f"{batch}, the data of pairs 17 is not finite"):
        run(tmp_path / "a", pairs=Poisoned(36))
    place = "in the batch of pairs .* of epoch 1, first in layer 0 .Conv2d."
    with pytest.raises(TrainingDiverged, match=place):
        run(tmp_path / "b", optimizer=lambda model: adam(enlarged(model)))
    with pytest.raises(TrainingDiverged, match="behind the last layer, in the loss"):
        run(tmp_path / "c", objective=Hopeless(1))


def enlarged(model: Any) -> nn.Module:
    """A network whose first layer's sums pass the largest number of its type."""
    model[0].weight = model[0].weight.abs() * 1e20 * 1e19
    return model  # type: ignore[no-any-return]


def test_the_weight_that_broke_is_named(tmp_path: Path) -> None:
    class Careless(optim.SGD):
        def step(self) -> None:
            super().step()
            list(self._module.parameters())[3].data[0] = math.inf  # type: ignore[union-attr]

    match = r"a weight is not finite at step 1 .*\(first in the weight 2\.bias\)"
    with pytest.raises(TrainingDiverged, match=match):
        run(tmp_path / "run", optimizer=lambda model: Careless(model, 0.1))


def test_behind_an_end_of_an_epoch_that_is_broken_already(tmp_path: Path) -> None:
    """Its first step diverges at any rate: the one before is gone back to."""

    class Broken(Hopeless):
        """Until the rate has been halved twice, in the first step of the second epoch."""

        rate: Any = None

        def step(self, *pictures: Any, **terms: Any) -> float:
            self._left = 1 if self.rate.lr > 3e-3 else 0
            return super().step(*pictures, **terms)

    objective = Broken(1)

    def watched(model: nn.Module) -> optim.Optimizer:
        objective.rate = adam(model)
        return objective.rate

    terms: dict[str, Any] = {"objective": objective, "optimizer": watched, "schedule": None}
    _, result = run(tmp_path / "run", rollbacks=4, **terms)
    assert [record["lr"] for record in result.history] == [2.5e-3, 2.5e-3, 2.5e-3]
    with pytest.raises(TrainingDiverged):
        run(tmp_path / "less", rollbacks=1, **terms)


def test_a_measure_that_is_no_number_is_no_end_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures = iter([20.0, math.nan, 21.0, 22.0])
    monkeypatch.setattr(
        "pydenoise.run.evaluate",
        lambda *_: dict.fromkeys(("psnr_per_image", "psnr_global"), next(measures)),
    )
    validation = Scenes().batch(np.arange(4), 0)
    _, result = run(tmp_path / "run", rollbacks=1, validation=validation)
    assert [record["psnr_global"] for record in result.history] == [20.0, 21.0, 22.0]


def test_a_result_that_is_not_finite_goes_back_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([math.nan, math.nan, 0.5])
    monkeypatch.setattr("pydenoise.run.denoise", lambda model, x: x * 0 + next(answers))
    with pytest.raises(TrainingDiverged, match=r"the result is not finite at step 15 .*pairs 0, 1"):
        run(tmp_path / "run")
    _, result = run(tmp_path / "run", rollbacks=2)
    assert [record["epoch"] for record in result.history] == [1, 2, 3]


def test_outputs_are_seen_layer_by_layer_and_the_network_is_as_before() -> None:
    model = models.small_unet(1, seed=0)
    x = torch.rand(1, 1, 16, 16)
    before, seen = model(x), []
    with outputs_seen(model, lambda name, layer, output: seen.append((name, type(layer)))):
        within = model(x)
    assert torch.equal(before, within)
    leaves = [(name, type(m)) for name, m in model.named_modules() if not any(m.children())]
    assert sorted(seen, key=str) == sorted(leaves, key=str)
    assert model.stays_inside()
    assert torch.equal(model(x), before)
    assert len(seen) == len(leaves), "nothing is seen any more"


def test_a_forward_of_the_user_s_is_given_back() -> None:
    layer = nn.Conv2d(1, 2, 3)
    forward, calls = layer.forward, []

    def mine(x: Tensor) -> Tensor:
        calls.append(x)
        return forward(x)

    layer.forward = mine  # type: ignore[method-assign]
    model = nn.Sequential(layer, nn.ReLU())
    with outputs_seen(model, lambda *_: None):
        model(torch.rand(1, 1, 4, 4))
    model(torch.rand(1, 1, 4, 4))
    assert len(calls) == 2
    assert not model.stays_inside()
