"""Training steps from tape: the same bits as layer by layer, and never a stale one."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from torch import Tensor

import pydenoise
from pydenoise import memory, models, nn, objectives, ops, optim, playback
from pydenoise.objectives import Noise2Noise
from pydenoise.ops import _backend

pytestmark = pytest.mark.skipif(
    pydenoise.ops.backends()["cpu"] is not None, reason="the tape records compiled kernels"
)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "autoencoder": lambda: models.autoencoder((6, 8), seed=0),
    "leaky": lambda: nn.Sequential(
        nn.Conv2d(3, 5, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(5, 3, 3, 1, 1), nn.LeakyReLU(-0.1)
    ),
    "no bias, groups": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1, groups=3)
    ),
    "winograd": lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 3, 1)
    ),
    "nested": lambda: nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 3, 1))
    ),
    "sigmoid first": lambda: nn.Sequential(nn.Sigmoid(), nn.Conv2d(3, 3, 1), nn.Sigmoid()),
}


def batches(count: int, size: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.rand(count, 2, *size, generator=generator, dtype=dtype)


class Count:
    """How often the layers of a network ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        forward = nn.Sequential.forward

        def counted(module: nn.Sequential, input: Tensor) -> Tensor:
            self.runs += 1
            return forward(module, input)

        monkeypatch.setattr(nn.Sequential, "forward", counted)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    return Count(monkeypatch)


@pytest.fixture
def by_layers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    @contextmanager
    def scope() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(objectives.noise2noise, "play", lambda *given: given[-1](*given[2]))
            yield

    return scope


def train(model: nn.Module, pictures: Tensor, loss: nn.Loss | None = None) -> list[Tensor]:
    """Losses and gradients of some steps; the weights move in between."""
    objective, rule = Noise2Noise(loss), optim.SGD(model, lr=0.01, momentum=0.9)
    seen = []
    for source, target in pictures:
        value = objective.step(model, source, target)
        seen += [torch.tensor(value), *(each.grad.clone() for each in model.parameters())]
        rule.step()
        rule.zero_grad()
    return seen


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_replayed_step_has_the_bits_of_the_layers(
    name: str,
    loss: type[nn.Loss],
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    count: Count,
    by_layers: Callable[[], AbstractContextManager],
) -> None:
    model = NETWORKS[name]().to(dtype)
    twin = copy.deepcopy(model)
    pictures = batches(6, (5, 3, 16, 16), dtype)
    steps = [[p.contiguous(memory_format=memory_format) for p in pair] for pair in pictures]
    taped = train(model, steps, loss())
    containers = sum(isinstance(each, nn.Sequential) for each in model.modules())
    assert count.runs == 2 * containers, "the third step and later are replayed"
    with by_layers():
        assert same(taped, train(twin, steps, loss()))
    assert count.runs == 8 * containers


@pytest.mark.parametrize("isa", _backend.available_isas())
def test_every_instruction_set_replays(isa: str, by_layers: Callable) -> None:
    model = NETWORKS["autoencoder"]()
    twin = copy.deepcopy(model)
    pictures = batches(5, (3, 3, 16, 16))
    with _backend.use_isa(isa):
        taped = train(model, pictures)
        with by_layers():
            assert same(taped, train(twin, pictures))


@pytest.mark.parametrize("batch", [70, 100])
def test_parts_of_large_batches_are_replayed(batch: int, count: Count, by_layers: Callable) -> None:
    model = models.autoencoder((4,), seed=0)
    twin = copy.deepcopy(model)
    pictures = batches(4, (batch, 3, 32, 32))
    taped = train(model, pictures)
    runs = count.runs
    assert runs <= 4
    with by_layers():
        assert same(taped, train(twin, pictures))


def test_batches_of_several_sizes_keep_their_tapes(count: Count, by_layers: Callable) -> None:
    model = models.autoencoder((4,), seed=0)
    twin = copy.deepcopy(model)
    steps = [each for _ in range(4) for n in (4, 3, 2) for each in batches(1, (n, 3, 8, 8))]
    taped = train(model, steps)
    assert count.runs == 6
    with by_layers():
        assert same(taped, train(twin, steps))
    for n in range(2 * playback.TAPES):
        train(model, batches(3, (n + 1, 3, 8, 8)))
    assert len(playback._of_thread.networks[model].of) == playback.TAPES


# --- what makes a tape stale --------------------------------------------------------------------


def other_memory(model: nn.Module) -> None:
    weight = next(model.parameters()).data
    weight.data = weight.clone() + 0.25


def other_slope(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.5


def one_more(model: nn.Module) -> None:
    assert isinstance(model, nn.Sequential)
    model.append(nn.Sigmoid())


def of_the_users(model: nn.Module) -> None:
    first = next(iter(model.children()))
    forward = first.forward
    first.forward = lambda input: forward(input * 2)


def of_double(model: nn.Module) -> None:
    model.to(torch.float64)
    model.to(torch.float32)


def another_weight(model: nn.Sequential) -> None:
    model[0].register_parameter("weight", torch.full_like(model[0].weight, 0.2))


CHANGES = {
    "flattened": nn.Module.flatten,
    "moved": other_memory,
    "slope": other_slope,
    "layer": one_more,
    "forward": of_the_users,
    "dtype and back": of_double,
    "new values": lambda model: model.load_state_dict(
        {name: value + 0.1 for name, value in model.state_dict().items()}
    ),
    "another parameter": another_weight,
    "memory let go": lambda model: memory.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_between_two_steps_is_noticed(change: str, by_layers: Callable) -> None:
    def run() -> list[Tensor]:
        model = NETWORKS["leaky"]()
        model.load_state_dict({k: torch.full_like(v, 0.1) for k, v in model.state_dict().items()})
        objective, seen = Noise2Noise(), []
        for i, (source, target) in enumerate(batches(8, (2, 3, 8, 8))):
            if i == 4:
                CHANGES[change](model)
            seen.append(torch.tensor(objective.step(model, source, target)))
        return seen + [each.grad.clone() for each in model.parameters()]

    taped = run()
    with by_layers():
        assert same(taped, run())


@pytest.mark.parametrize(
    "scope",
    [
        lambda: pydenoise.use_backend("reference"),
        lambda: pydenoise.use_algorithm("im2col"),
        lambda: pydenoise.use_algorithm("winograd4"),
    ],
    ids=["reference", "im2col", "winograd4"],
)
def test_the_switches_are_looked_at(scope: Callable, count: Count, by_layers: Callable) -> None:
    def run() -> list[Tensor]:
        model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1))
        model.load_state_dict({k: torch.full_like(v, 0.1) for k, v in model.state_dict().items()})
        pictures = batches(4, (2, 3, 8, 8))
        seen = train(model, pictures)
        with scope():
            seen += train(model, pictures)
        return seen + train(model, pictures)

    taped = run()
    with by_layers():
        assert same(taped, run())


def test_a_step_that_the_layers_refuse_is_refused_from_tape() -> None:
    model = models.autoencoder((4,), seed=0)
    objective = Noise2Noise()
    pictures = batches(4, (2, 3, 8, 8))
    for source, target in pictures:
        objective.step(model, source, target)
    with pytest.raises(RuntimeError, match="eval mode"):
        objective.step(model.eval(), *pictures[0])
    model.train()
    with pytest.raises(RuntimeError, match="no_backward"), pydenoise.no_backward():
        objective.step(model, *pictures[0])
    grad = model.flatten().grad
    for source, target in batches(3, (1, 3, 4, 4)):
        objective.step(model, source, target)
    with pytest.raises(ValueError, match="shares memory"):
        objective.step(model, grad[-48:].view(1, 3, 4, 4), target)
    with pytest.raises(TypeError, match="float32 or float64"):
        objective.step(model, pictures[0][0].half(), pictures[0][1])


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.Upsample(2)], ids=repr)
def test_layers_that_do_more_than_call_kernels_run_every_time(
    layer: nn.Module, count: Count
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer)
    source = batches(1, (2, 3, 8, 8))[0, 0]
    target = torch.zeros_like(model.eval()(source))
    model.train()
    before = count.runs
    for _ in range(5):
        Noise2Noise().step(model, source, target)
    assert count.runs - before == 5


def test_weights_that_must_be_copied_first_run_every_time(count: Count) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    weight = next(model.parameters()).data
    weight.data = weight.contiguous(memory_format=torch.channels_last)
    target = torch.zeros(2, 4, 6, 6)
    for source, _ in batches(5, (2, 3, 8, 8)):
        Noise2Noise().step(model, source, target)
    assert count.runs == 5


# --- what a tape holds --------------------------------------------------------------------------


def test_a_tape_holds_no_picture_and_dies_with_its_network() -> None:
    model = models.autoencoder((4,), seed=0)
    source, target = batches(1, (2, 3, 8, 8))[0]
    source = source.clone()
    for _ in range(4):
        Noise2Noise().step(model, source, target)
    tape = weakref.ref(next(iter(playback._of_thread.networks[model].of.values())))
    seen = weakref.ref(source)
    del source
    assert seen() is None
    assert tape() is not None
    del model
    gc.collect()
    assert tape() is None


def test_nobody_else_gets_the_memory_of_a_tape() -> None:
    model = models.autoencoder((4,), seed=0)
    twin = copy.deepcopy(model)
    pictures = batches(6, (2, 3, 8, 8))
    train(model, pictures[:3])
    train(twin, pictures[:3])
    with memory.recycling():
        for tape in playback._of_thread.networks[model].of.values():
            assert tape is not None
            for tensor in tape._calls.others():
                if tensor is not None:
                    memory_format = memory.format_of(tensor)
                    other = memory.empty(tuple(tensor.shape), memory_format=memory_format)
                    assert other.data_ptr() != tensor.data_ptr()
                    other.fill_(torch.nan)
    assert same(train(model, pictures[3:]), train(twin, pictures[3:]))


def test_threads_have_their_own_tapes() -> None:
    pictures = batches(20, (3, 3, 16, 16))
    expected = train(models.autoencoder((6, 8), seed=0), pictures)
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: train(models.autoencoder((6, 8), seed=0), pictures), range(8))
    assert all(same(run, expected) for run in runs)


def test_steps_in_a_step_and_a_tape_twice() -> None:
    pictures = batches(1, (1, 1, 2, 2))[0]
    tape = ops.new_tape(*pictures, watched=[])
    with pytest.raises(RuntimeError, match="records once"):
        tape.record(lambda *pictures: tape._calls.start(), *pictures)
