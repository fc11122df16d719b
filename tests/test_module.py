"""What torch users know of a module: parameters, states, devices, copies; and first values."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from layers import (
    CONVOLUTIONS,
    WITH_PARAMETERS,
    LayerCase,
    autoencoder_of_torch,
    untouched_random_state,
)
from torch import Tensor

from pydenoise import models, nn

each_learning = pytest.mark.parametrize("case", WITH_PARAMETERS, ids=str)


class Residual(nn.Module):
    """A module of a user's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.inner = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1, bias=False))

    def forward(self, input: Tensor) -> Tensor:
        return input + self.inner(self.conv(input))

    def backward(self, grad_output: Tensor) -> Tensor:
        return grad_output + self.conv.backward(self.inner.backward(grad_output))


# --- parameters and states ----------------------------------------------------------------------


@each_learning
def test_states_pass_both_ways_between_ours_and_torch(case: LayerCase) -> None:
    ours, theirs = case.make(), case.make_torch()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)
    other = case.make()
    theirs.load_state_dict(other.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    model = models.autoencoder((4, 5), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: torch.zeros_like(value) for name, value in before.items()}
    del state["0.bias"]
    state["2.weight"] = torch.zeros(5, 4, 1, 1)
    state["9.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    message = str(caught.value)
    assert "loading state_dict for Sequential" in message
    assert 'Missing key(s) in state_dict: "0.bias"' in message
    assert 'Unexpected key(s) in state_dict: "9.weight"' in message
    assert "size mismatch for 2.weight: shape (5, 4, 1, 1)" in message
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with pytest.raises(RuntimeError, match=r"0\.weight is a list, expected a tensor"):
        model.load_state_dict({**before, "0.weight": [1.0]})

    del state["2.weight"]
    passed_over = model.load_state_dict(state, strict=False)
    assert passed_over.missing_keys == ["0.bias", "2.weight"]
    assert passed_over.unexpected_keys == ["9.weight"]
    assert not model.state_dict()["0.weight"].any()


def test_assigning_a_weight_copies_it() -> None:
    layer = nn.Conv2d(2, 3, 1)
    held, values = layer.weight, torch.rand(3, 2, 1, 1)
    layer.weight = values
    assert layer.weight is held
    assert torch.equal(held, values)
    values.zero_()
    assert held.any()
    with pytest.raises(ValueError, match=r"Conv2d\.weight: expected shape \(3, 2, 1, 1\), got"):
        layer.weight = torch.rand(3, 2)
    with pytest.raises(TypeError, match=r"Conv2d\.bias: expected a tensor, got list"):
        layer.bias = [0.0, 0.0, 0.0]
    with pytest.raises(TypeError, match="made without it"):
        nn.Conv2d(2, 3, 1, bias=False).bias = torch.zeros(3)


def test_param_gives_live_pairs() -> None:
    layer = nn.Conv2d(1, 1, 1, bias=False)
    ((weight, gradient),) = layer.param()
    weight.fill_(3)
    assert layer(torch.ones(1, 1, 1, 1)).item() == 3
    layer.backward(torch.ones(1, 1, 1, 1))
    assert gradient.item() == 1
    assert nn.ReLU().param() == []
    parameter = next(layer.parameters())
    parameter.grad = torch.full((1, 1, 1, 1), 2.0)
    assert gradient.item() == 2
    assert repr(parameter) == "Parameter('weight', (1, 1, 1, 1), torch.float32)"


def test_a_parameter_needs_a_gradient_like_itself() -> None:
    with pytest.raises(ValueError, match=r"grad must match data, \(2,\).*got \(3,\)"):
        nn.Parameter(torch.zeros(2), torch.zeros(3))
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.int64"):
        nn.Parameter(torch.zeros(2, dtype=torch.int64))


def test_a_module_of_a_users_own() -> None:
    module = Residual()
    assert [name for name, _ in module.named_parameters()] == [
        "conv.weight",
        "conv.bias",
        "inner.1.weight",
    ]
    assert [name for name, _ in module.named_modules()] == [
        "",
        "conv",
        "inner",
        "inner.0",
        "inner.1",
    ]
    output = module(torch.rand(1, 2, 4, 4))
    assert module.backward(torch.ones_like(output)).shape == (1, 2, 4, 4)
    assert not any(child.training for child in module.eval().modules())
    module.conv = nn.Conv2d(2, 2, 1)
    assert module.conv.kernel_size == (1, 1)
    assert len(list(module.children())) == 2
    module.conv = None
    assert [name for name, _ in module.named_parameters()] == ["inner.1.weight"]
    with pytest.raises(TypeError, match="Half defines no backward"):
        type("Half", (nn.Module,), {})().backward(output)


def test_a_module_that_skipped_init_says_so() -> None:
    class Hasty(nn.Module):
        def __init__(self) -> None:
            self.conv = nn.Conv2d(1, 1, 1)

    with pytest.raises(AttributeError, match=r"Hasty: call super\(\)\.__init__\(\) before 'conv'"):
        Hasty()


def test_containers_are_read_like_lists() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sigmoid())
    assert len(model) == 2
    assert model[-1] is list(model)[1]
    assert [type(layer).__name__ for layer in model[:1]] == ["ReLU"]
    assert model.append(nn.ReLU()) is model
    assert len(model) == 3
    x = torch.rand(3)
    assert nn.Sequential()(x) is x
    assert nn.Sequential().backward(x) is x
    seen: list[str] = []
    nn.Skip(model).apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["ReLU", "Sigmoid", "ReLU", "Sequential", "Skip"]
    assert "(branch): Sequential(\n    (0): ReLU()" in repr(nn.Skip(model))


# --- moving and copying -------------------------------------------------------------------------


def test_flatten_lays_the_last_layer_first_and_keeps_every_tensor() -> None:
    model = models.autoencoder((4,), seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = model.param()
    flat = model.flatten()
    assert flat.data.shape == flat.grad.shape == (sum(p.numel() for p, _ in held),)
    for (data, grad), (data_now, grad_now) in zip(held, model.param(), strict=True):
        assert data is data_now
        assert grad is grad_now
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    backwards = torch.cat([data.flatten() for data, _ in held[::-1]])
    assert torch.equal(flat.data, backwards)
    flat.grad.fill_(2)
    assert all((grad == 2).all() for _, grad in held)
    again = model.flatten()
    assert again.data.data_ptr() == flat.data.data_ptr()
    with pytest.raises(ValueError, match="ReLU has no parameters"):
        nn.ReLU().flatten()


def test_to_moves_values_and_gradients_and_stays_flat() -> None:
    model = models.autoencoder((4,), seed=0)
    held = model.param()
    model.flatten().grad.fill_(3)
    assert model.to(torch.float64) is model
    assert model[0].weight.dtype == torch.float64
    assert model[0].weight is held[0][0]
    assert all((grad == 3).all() for _, grad in held)
    assert model.flatten().data.dtype == torch.float64
    address = model[0].weight.data_ptr()
    assert model.to("cpu").to(torch.rand(1).double()) is model
    assert model[0].weight.data_ptr() == address
    assert model(torch.rand(1, 3, 4, 4).double()).dtype == torch.float64
    with pytest.raises(TypeError, match=r"float32 or float64, got torch\.float16"):
        model.to(torch.float16)
    with pytest.raises(TypeError, match="a dtype, a device or a tensor"):
        model.to(3.5)


def test_copies_live_on_their_own() -> None:
    model = models.autoencoder((4,), seed=0)
    model.flatten()
    model(torch.rand(1, 3, 4, 4))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin[0].weight, model[0].weight)
        twin[0].weight.zero_()
        assert model[0].weight.any()
        assert twin.architecture == model.architecture
        with pytest.raises(RuntimeError, match="without a forward pass"):
            twin.backward(torch.rand(1, 3, 4, 4))


# --- first values -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_default_init_draws_what_torch_draws(case: LayerCase) -> None:
    torch.manual_seed(11)
    theirs = case.make_torch().state_dict()
    generator = torch.Generator().manual_seed(11)
    layer = case.make()
    nn.init.fill(layer.weight, layer.bias, generator=generator)
    for name, value in layer.state_dict().items():
        assert torch.allclose(value, theirs[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("init", "deviation", "bound"),
    [
        ("default", math.sqrt(1 / (3 * 400)), math.sqrt(1 / 400)),
        ("kaiming_normal", math.sqrt(2 / 400), None),
        ("kaiming_uniform", math.sqrt(2 / 400), math.sqrt(6 / 400)),
        ("xavier_normal", math.sqrt(2 / 1200), None),
        ("xavier_uniform", math.sqrt(2 / 1200), math.sqrt(6 / 1200)),
    ],
)
def test_inits_have_their_spread(init: str, deviation: float, bound: float | None) -> None:
    layer = nn.Conv2d(100, 200, 2, init=init, generator=nn.init.seeded(0))
    assert layer.weight.mean().abs() < deviation / 100
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.01)
    if bound is not None:
        assert 0.999 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.any() == (init == "default")


def test_weights_depend_on_their_seed_alone() -> None:
    with untouched_random_state():
        first = models.autoencoder((4,), seed=5).state_dict()
        torch.rand(3, generator=torch.Generator())
        again = models.autoencoder((4,), seed=5).state_dict()
        other = models.autoencoder((4,), seed=6).state_dict()
        unseeded = [nn.Conv2d(3, 4, 3).weight for _ in range(2)]
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())
    assert not torch.equal(*unseeded)


def test_names_of_parameters_are_those_of_torchs_network() -> None:
    ours, theirs = models.autoencoder(), autoencoder_of_torch()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert list(ours.state_dict())[:3] == ["0.weight", "0.bias", "2.weight"]


def test_a_gradient_of_another_dtype_leaves_the_entry() -> None:
    layer = nn.Conv2d(2, 3, 3)
    gradient = torch.ones_like(layer(torch.randn(1, 2, 5, 5)))
    with pytest.raises(TypeError, match="float64"):
        layer.backward(gradient.double())
    layer.backward(gradient)
