"""The CUDA backend's Python, on kernels that run on this machine's processor.

`tests/on_host.py` builds the kernels of csrc/cuda for the host; here they stand behind `pydenoise`
as they would on a GPU: scratch memory, numbers that stay on the device, whole training steps. Not
shown here are streams, graphs and speed, which need one: `tests/test_cuda.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from on_host import in_place_of_the_processor, why_not_on_host
from torch import Tensor

import pydenoise
from pydenoise import models, nn, ops, optim, playback
from pydenoise.data import Augmented, PairSource, TensorPairs
from pydenoise.objectives import Noise2Noise
from pydenoise.ops import _tape
from pydenoise.training import TrainingDiverged, TrainingResult, train

pytestmark = pytest.mark.skipif(why_not_on_host() is not None, reason=str(why_not_on_host()))


@pytest.fixture
def on_device() -> Iterator[Callable[[], None]]:
    """Call it, and all tensors belong to the CUDA kernels until the test ends."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(in_place_of_the_processor())


def test_tf32_is_asked_for(on_device: Callable[[], None]) -> None:
    x, w = torch.rand(1, 16, 8, 8), torch.rand(16, 16, 3, 3)
    on_device()
    exact = ops.conv2d(x, w, padding=1)
    with pydenoise.allow_tf32():
        rounded = ops.conv2d(x, w, padding=1)
    assert not torch.equal(rounded, exact)
    assert ((rounded - exact).abs() <= 1e-3 * exact.abs()).all()
    assert torch.equal(ops.conv2d(x, w, padding=1), exact)
    with pytest.raises(TypeError, match="expected True or False"):
        pydenoise.allow_tf32("yes")


RULES: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "sgd": lambda model: optim.SGD(model, lr=0.2),
    "momentum": lambda model: optim.SGD(model, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda model: optim.Adam(model, lr=3e-3, weight_decay=0.01),
    "adamw": lambda model: optim.AdamW(model, lr=3e-3),
}


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss])
@pytest.mark.parametrize("rule", RULES)
def test_twenty_steps_go_where_the_processor_goes(
    rule: str, loss: type[nn.Loss], on_device: Callable[[], None]
) -> None:
    model = models.autoencoder((4, 6), seed=0)
    twin = copy.deepcopy(model)
    pictures = torch.rand(20, 2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def go(model: nn.Module) -> Tensor:
        objective, optimizer = Noise2Noise(loss()), RULES[rule](model)
        for source, target in pictures:
            objective.step(model, source, target)
            optimizer.step()
            optimizer.zero_grad()
        return model.flatten().data

    before = go(model)
    on_device()
    after = go(twin)
    assert (before - after).abs().max() <= 1e-4 * before.abs().max()


def test_numbers_are_left_on_the_device(on_device: Callable[[], None]) -> None:
    x, y = torch.rand(2, 1, 3, 4, 4)
    weight, grad = torch.ones(5), torch.ones(5)
    on_device()
    rule = torch.tensor(ops.rule_row([0.25, 0, 0, 0]), dtype=torch.float64)
    with ops.Deferred(rule) as deferred:
        assert math.isnan(ops.mse_loss(x, y))
        assert math.isnan(ops.l1_loss(x, y))
        ops.sgd_step(weight, grad, None, lr=100.0)
        with ops.Deferred():
            ops.sgd_step(weight, grad, None, lr=0.5)
    assert [number.item() for number in deferred.numbers] == [ops.mse_loss(x, y), ops.l1_loss(x, y)]
    assert torch.equal(weight, torch.full((5,), 0.25))


# --- whole steps ----------------------------------------------------------------------------------


def levels(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, length, 3, 8, 8), generator=generator, dtype=torch.uint8)


def pairs(length: int = 21) -> PairSource:
    return Augmented(TensorPairs(*levels(length)), seed=3)


@pytest.fixture
def whole_steps(
    on_device: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[int]]:
    """Call it, and `train` takes whole steps; a replay runs what a graph would hold. Gives the
    list to which each replay adds."""

    def enter() -> list[int]:
        on_device()
        replays: list[int] = []

        def captured(whole_step: Callable[[], None], device: torch.device) -> Callable[[], None]:
            def replay() -> None:
                replays.append(1)
                optimizer = whole_step.__self__._optimizer
                optimizer.lr, optimizer.steps = math.nan, 0  # the device knows better
                whole_step()

            return replay

        monkeypatch.setattr(ops, "captured", captured)
        monkeypatch.setattr(playback, "can_capture", lambda model, loss, device: True)
        return replays

    return enter


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("average", [0.0, 0.9])
def test_whole_steps_train_as_single_ones(
    rule: str, average: float, whole_steps: Callable[[], list[int]]
) -> None:
    def run() -> tuple[list[dict[str, object]], Tensor, float]:
        model = models.autoencoder((4,), seed=0)
        optimizer = RULES[rule](model)
        result = train(
            model,
            pairs(),
            epochs=4,
            batch_size=4,
            optimizer=optimizer,
            schedule=optim.cosine(),
            average=average,
            validation=(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(4)),) * 2,
        )
        return result.history, model.flatten().data, optimizer.lr

    history, weights, lr = run()
    replays = whole_steps()
    whole_history, whole_weights, whole_lr = run()
    assert len(replays) == 4 * 5 - 2, "two steps and each epoch's last, smaller one go alone"
    assert lr == whole_lr
    assert (weights - whole_weights).abs().max() <= 1e-4 * weights.abs().max()
    for single, whole in zip(history, whole_history, strict=True):
        for name in ("epoch", "step", "lr"):
            assert single[name] == whole[name]
        for name in ("loss", "psnr_per_image"):
            assert single[name] == pytest.approx(whole[name], rel=1e-4)


def trained(optimizer: type[optim.Optimizer], **given: Any) -> tuple[TrainingResult, Tensor]:
    model = models.autoencoder((4,), seed=0)
    rule = optimizer(model, lr=0.01)
    given = {"pairs": pairs(), "epochs": 2, "batch_size": 4, **given}
    return train(model, optimizer=rule, **given), model.flatten().data


def test_where_no_graph_is_made_the_same_steps_are_taken(
    whole_steps: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_steps()
    result, weights = trained(optim.SGD)
    monkeypatch.setattr(ops, "captured", lambda whole_step, device: None)
    result_without, weights_without = trained(optim.SGD)
    assert torch.equal(weights, weights_without)
    assert result.pictures == result_without.pictures == 2 * 21
    assert result.history[-1]["loss"] == result_without.history[-1]["loss"]


def test_pairs_that_do_not_fit_come_from_main_memory(
    whole_steps: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pairs: PairSource, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    replays = whole_steps()
    _, weights = trained(optim.SGD)
    assert replays
    replays.clear()
    monkeypatch.setattr(TensorPairs, "resident", full)
    with pytest.warns(RuntimeWarning, match="the pairs do not fit into the memory of cpu"):
        _, weights_without = trained(optim.SGD)
    assert not replays
    assert (weights - weights_without).abs().max() <= 1e-6 * weights.abs().max()


class Dimmed(TensorPairs):
    def batch(self, indices: Any, epoch: int) -> tuple[Tensor, Tensor]:
        source, target = super().batch(indices, epoch)
        return source / 2, target / 2


class Still(Augmented):
    def batch(self, indices: Any, epoch: int) -> tuple[Tensor, Tensor]:
        return super().batch(indices, 0)


class Doubled(Noise2Noise):
    def step(self, model: nn.Module, source: Tensor, target: Tensor, share: float = 1.0) -> float:
        return super().step(model, source, target, 2 * share)


class Slowing(optim.SGD):
    def step(self) -> None:
        self.lr /= 2
        super().step()


OF_THE_USERS: dict[str, dict[str, Any]] = {
    "pairs": {"pairs": Dimmed(*levels(21))},
    "pairs below": {"pairs": Augmented(Dimmed(*levels(21)))},
    "pairs above": {"pairs": Still(TensorPairs(*levels(21)))},
    "objective": {"objective": Doubled()},
    "optimizer": {"optimizer": Slowing},
}


@pytest.mark.parametrize("part", OF_THE_USERS)
def test_what_a_subclass_does_is_done(part: str, whole_steps: Callable[[], list[int]]) -> None:
    given = {"optimizer": optim.SGD, **OF_THE_USERS[part]}
    _, weights = trained(**given)
    replays = whole_steps()
    _, on_device = trained(**given)
    assert not replays
    assert (weights - on_device).abs().max() <= 1e-4 * weights.abs().max()


def test_a_graph_of_a_step_notices_that_a_watched_tensor_has_shrunk(
    on_device: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def captured(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
        function()
        return function

    on_device()
    monkeypatch.setattr(_tape, "captured", captured)
    x, y = torch.rand(2, 1, 3, 4, 4)
    watched = torch.rand(4)
    tape = _tape.DeviceTape(x, y, watched=[watched])
    assert tape.record(ops.mse_loss, x, y) == ops.mse_loss(x, y)
    assert tape.is_whole
    assert tape.replay(x, y) is not None
    watched.data = watched[:3]
    assert tape.replay(x, y) is None
    monkeypatch.setattr(_tape, "captured", lambda function, device: None)
    tape = _tape.DeviceTape(x, y, watched=[watched])
    assert tape.record(ops.mse_loss, x, y) == ops.mse_loss(x, y)
    assert not tape.is_whole


def test_whole_steps_name_the_one_that_diverged(whole_steps: Callable[[], list[int]]) -> None:
    whole_steps()
    model = models.autoencoder((4,), seed=0)
    optimizer = optim.SGD(model, lr=1.0)

    def explode(progress: float) -> float:
        return 1e39 if progress >= 0.3 else 1e-3

    with pytest.raises(
        TrainingDiverged, match="a weight is not finite at step 9 with lr"
    ) as caught:
        train(model, pairs(), epochs=4, batch_size=4, optimizer=optimizer, schedule=explode)
    assert caught.value.step == 9
    assert optimizer.lr == 1.0


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("epoch", [0, 1])
def test_resident_batches_have_the_bits_of_main_memory(square: bool, epoch: int) -> None:
    generator = torch.Generator().manual_seed(5)
    size = (50, 3, 6, 6 if square else 8)
    first, second = torch.randint(0, 256, (2, *size), generator=generator, dtype=torch.uint8)
    source = Augmented(TensorPairs(first, second), transpose=square, seed=6)
    resident = source.resident(torch.device("cpu"))
    assert resident is not None
    resident.begin(epoch)
    rows = torch.randperm(50, generator=generator)[:31]
    for here, there in zip(source.batch(rows.numpy(), epoch), resident.batch(rows), strict=True):
        assert torch.equal(here, there)
