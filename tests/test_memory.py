"""Recycled memory: when it is handed out again, when never, and that training needs no new."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from layers import BY_NAME, CASES, LayerCase
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import pydenoise
from pydenoise import memory, models, nn, ops, optim
from pydenoise.objectives import Noise2Noise


@pytest.fixture(autouse=True)
def _own_pool() -> Iterator[None]:
    memory.clear()
    yield
    memory.clear()


@pytest.fixture
def _poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the pool hands out is full of NaN, or of wild indices."""
    take = memory._Pool.take

    def poisoned(pool: memory._Pool, *kind: object) -> Tensor:
        tensor = take(pool, *kind)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else -(2**40))

    monkeypatch.setattr(memory._Pool, "take", poisoned)


# --- the pool -----------------------------------------------------------------------------------


def test_outside_a_scope_every_tensor_is_fresh_and_counted() -> None:
    before = memory.allocations()
    addresses = {memory.empty((1000,)).data_ptr(): None for _ in range(3)}
    assert memory.allocations() - before == 3
    assert addresses
    tensor = memory.empty(
        [2, 3, 4, 5], dtype=torch.float64, device="cpu", memory_format=torch.channels_last
    )
    assert tensor.dtype == torch.float64
    assert tensor.stride() == (60, 1, 15, 3)


def test_inside_a_scope_what_nobody_holds_is_handed_out_again() -> None:
    with memory.recycling():
        first = memory.empty((3, 4))
        second = memory.empty((3, 4))
        assert first.data_ptr() != second.data_ptr()
        address = first.data_ptr()
        del first
        before = memory.allocations()
        again = memory.empty((3, 4))
        assert again.data_ptr() == address
        assert memory.allocations() == before
        assert memory.empty((3, 4), dtype=torch.float64).data_ptr() != address
        assert memory.empty((4, 3)).data_ptr() != address


@pytest.mark.parametrize(
    "look",
    [lambda x: x.detach(), lambda x: x[1:], lambda x: x.numpy(), lambda x: [x], lambda x: x.T],
    ids=["detached", "slice", "numpy", "list", "transposed"],
)
@pytest.mark.parametrize("gradients", [True, False])
def test_a_tensor_that_somebody_looks_into_is_not_free(look: object, gradients: bool) -> None:
    with memory.recycling(), torch.set_grad_enabled(gradients):
        tensor = memory.empty((3, 4))
        address = tensor.data_ptr()
        held = look(tensor)
        del tensor
        assert memory.empty((3, 4)).data_ptr() != address
        del held
        kept = [memory.empty((3, 4)) for _ in range(2)]
        assert address in {tensor.data_ptr() for tensor in kept}


def test_scopes_nest_and_end_with_an_exception() -> None:
    with pytest.raises(KeyError), memory.recycling(), memory.recycling():
        raise KeyError
    before = memory.allocations()
    for _ in range(3):
        memory.empty((3,))
    assert memory.allocations() - before == 3


def test_every_thread_has_its_own_pool() -> None:
    with memory.recycling():
        address = memory.empty((3, 4)).data_ptr()
        found: list[Tensor] = []

        def other() -> None:
            found.append(memory.empty((3, 4)))
            with memory.recycling():
                found.append(memory.empty((3, 4)))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert address not in {tensor.data_ptr() for tensor in found}


def test_what_the_latest_scopes_had_no_use_for_goes_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "IDLE_BYTES", 1500)

    def recycled(size: int) -> bool:
        before = memory.allocations()
        with memory.recycling():
            memory.empty((size,), dtype=torch.float32)
        return memory.allocations() == before

    assert [recycled(size) for size in (250, 251, 252, 253)] == [False] * 4
    assert [recycled(size) for size in (253, 252)] == [True] * 2
    assert [recycled(size) for size in (254, 255)] == [False] * 2
    assert recycled(252)
    assert not recycled(253)


def test_tensors_of_inference_mode_can_be_written_later() -> None:
    with torch.inference_mode(), memory.recycling():
        tensor = memory.empty((3,))
    tensor.zero_()
    assert not tensor.is_inference()


def test_join_moves_tensors_and_joined_finds_them() -> None:
    tensors = [torch.arange(6.0).view(2, 3), torch.ones(1), torch.zeros(0), torch.rand(2, 2).T]
    values = [tensor.clone() for tensor in tensors]
    assert memory.joined(tensors) is None
    flat = memory.join(tensors)
    assert torch.equal(flat, torch.cat([value.reshape(-1) for value in values]))
    assert all(torch.equal(*pair) for pair in zip(tensors, values, strict=True))
    flat += 1
    assert torch.equal(tensors[0], values[0] + 1)
    found = memory.joined(tensors)
    assert found is not None
    assert (found.data_ptr(), found.shape) == (flat.data_ptr(), flat.shape)
    assert memory.joined(tensors[::-1]) is None
    assert memory.joined([]) is None
    part = memory.joined(tensors[1:])
    assert torch.equal(part, flat[6:])
    with pytest.raises(ValueError, match=r"got torch\.float32 on cpu, torch\.float64 on cpu"):
        memory.join([torch.zeros(1), torch.zeros(1).double()])
    with pytest.raises(ValueError, match="no tensors"):
        memory.join([])


# --- who sees recycled memory -------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.usefixtures("_poisoned")
def test_recycled_memory_changes_no_bit(case: LayerCase, algorithm: str) -> None:
    """Two passes forward, then two back, inside a pool that hands out garbage."""

    def results(model: nn.Module) -> list[Tensor]:
        outputs = [model(case.draw(seed=seed)) for seed in (1, 2)]
        grads = [model.backward(torch.cos(output)) for output in outputs[::-1]]
        return [*outputs, *grads, *(grad for _, grad in model.param())]

    layer, _ = case.twins(torch.float64)
    wanted = [tensor.clone() for tensor in results(layer)]
    layer.zero_grad()
    identity = nn.Sequential(nn.Sequential(), layer, nn.Sequential())
    for _ in range(3):
        for tensor, value in zip(results(identity), wanted, strict=True):
            assert torch.equal(tensor, value)
        identity.zero_grad()


@pytest.mark.usefixtures("_poisoned")
def test_what_a_network_returns_is_fresh() -> None:
    network, _ = BY_NAME["network"].twins(torch.float64)
    held, values = [], []
    for seed in range(4):
        output = network(BY_NAME["network"].draw(seed=seed))
        grad_input = network.backward(output)
        with pydenoise.no_backward():
            again = network(BY_NAME["network"].draw(seed=seed))
        held += [output, grad_input, again]
        values += [output.clone(), grad_input.clone(), again.clone()]
    assert len({tensor.data_ptr() for tensor in held}) == len(held)
    assert all(torch.equal(*pair) for pair in zip(held, values, strict=True))


@pytest.mark.parametrize("is_eval", [True, False])
def test_without_backward_layers_live_on_two_tensors(is_eval: bool) -> None:
    """One to read, one to write; what the network returns is not among them."""
    layers = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(6)]
    model = nn.Sequential(nn.Sequential(*layers), nn.Sequential(*layers[:3])).train(not is_eval)
    with ops.use_algorithm("implicit"):
        before = memory.allocations()
        if is_eval:
            model(torch.rand(1, 2, 8, 8))
        else:
            with pydenoise.no_backward():
                model(torch.rand(1, 2, 8, 8))
    # Between both inner containers a third is held, as their input and output.
    assert memory.allocations() - before <= 4


class Watcher(nn.Module):
    """A user's layer, which might keep a pointer to what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.depths: set[int] = set()

    def forward(self, input: Tensor) -> Tensor:
        self.depths.add(memory._pools.own.depth)
        return input

    def backward(self, grad_output: Tensor) -> Tensor:
        self.depths.add(memory._pools.own.depth)
        return grad_output


def test_a_layer_of_the_users_runs_in_no_scope() -> None:
    watcher = Watcher()
    branch = nn.Sequential(nn.ReLU(), watcher, nn.ReLU())
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Skip(branch), nn.Conv2d(4, 2, 1))
    assert not model.stays_inside()
    Noise2Noise().step(model, *torch.rand(2, 1, 2, 4, 4))
    assert watcher.depths == {0}


def test_a_layer_whose_forward_was_replaced_is_the_users() -> None:
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    assert model.stays_inside()
    model[0].forward = lambda input: input
    assert not model.stays_inside()


# --- training needs no new memory ---------------------------------------------------------------


class Created(TorchDispatchMode):
    """Counts torch's operations whose result lies in memory that none of their arguments had."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        given = {
            tensor.untyped_storage().data_ptr()
            for tensor in (*args, *(kwargs or {}).values())
            if isinstance(tensor, Tensor)
        }
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in given:
            self.counts[str(function)] += 1
        return result


def test_a_hundred_training_steps_create_nothing(algorithm: str) -> None:
    model = models.autoencoder((8, 12), seed=0)
    optimizer = optim.SGD(model, lr=0.5, momentum=0.9)
    objective = Noise2Noise()
    source, target = torch.rand(2, 4, 3, 16, 16)

    def train(steps: int) -> None:
        for _ in range(steps):
            objective.step(model, source, target)
            optimizer.step()
            optimizer.zero_grad()

    train(5)
    before = memory.allocations()
    train(100)
    assert memory.allocations() == before
    if ops.backends()["cpu"] is not None:
        pytest.skip(f"torch's own count: the cpu backend is {ops.backends()['cpu']}")
    with ops.use_backend("cpu"), Created() as created:
        train(10)
        assert not created.counts
        model(source)  # the first one layer by layer since the steps come from tape
        model.forget()
        created.counts.clear()
        model(source)
        assert sum(created.counts.values()) == 1, "the output: the counter does see one"


def test_batches_of_changing_size_create_nothing_once_seen() -> None:
    model = models.autoencoder((4,), seed=0)
    objective = Noise2Noise()
    batches = [torch.rand(2, n, 3, 8, 8) for n in (4, 4, 2)]
    for _ in range(5):
        for source, target in batches:
            objective.step(model, source, target)
    before = memory.allocations()
    for _ in range(5):
        for source, target in batches:
            objective.step(model, source, target)
    assert memory.allocations() == before
