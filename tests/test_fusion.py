"""A container that fuses its layers gives the bits of its layers one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from conftest import FORMATS, Place
from oracle import assert_identical
from torch import Tensor

import pydenoise
from pydenoise import memory, nn, ops

EVERY_ALGORITHM = ("auto", "implicit", "im2col", "winograd4")


class Network(NamedTuple):
    """A container, made anew by each call, and the size of an input."""

    name: str
    make: Callable[[], nn.Module]
    size: tuple[int, int, int, int]

    def __str__(self) -> str:
        return self.name


def conv(channels: int, out_channels: int, kernel: int = 3, **rest: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, **rest)


def behind_a_conv(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(3, 5), *modules, conv(5, 4))


def layer_twice() -> nn.Sequential:
    layer = conv(5, 5)
    return nn.Sequential(conv(3, 5), nn.ReLU(), layer, nn.LeakyReLU(0.1), layer, nn.ReLU(), layer)


def one_rectifier(rectifier: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        conv(3, 5), rectifier, conv(5, 6, stride=2), rectifier, conv(6, 5), rectifier
    )


def nested() -> nn.Sequential:
    inner = nn.Sequential(nn.ReLU(), conv(5, 6), nn.LeakyReLU(0.2))
    return nn.Sequential(conv(3, 5), inner, nn.Sequential(nn.Sequential()), nn.ReLU(), conv(6, 2))


def with_skips() -> nn.Sequential:
    deep = nn.Sequential(nn.MaxPool2d(2), conv(4, 5), nn.ReLU(), nn.Upsample(scale_factor=2))
    branch = nn.Sequential(conv(3, 4), nn.LeakyReLU(0.1), nn.Skip(deep), conv(9, 4), nn.ReLU())
    return nn.Sequential(nn.Skip(branch), conv(7, 5), nn.ReLU(), nn.Skip(nn.Sequential()))


# fmt: off
NETWORKS = [
    *(Network(f"conv-{name}-conv", lambda m=make: behind_a_conv(m()), (2, 3, 7, 6))
      for name, make in {
          "relu": nn.ReLU,
          "slope-0": lambda: nn.LeakyReLU(0.0),
          "slope-0.2": lambda: nn.LeakyReLU(0.2),
          "slope-inf": lambda: nn.LeakyReLU(torch.inf),
          "negative-slope": lambda: nn.LeakyReLU(-0.5),
          "nan-slope": lambda: nn.LeakyReLU(torch.nan),
          "sigmoid": nn.Sigmoid,
          "nothing": nn.Sequential,
      }.items()),
    Network("conv-alone", lambda: nn.Sequential(conv(3, 4)), (2, 3, 5, 6)),
    Network("conv-relu", lambda: nn.Sequential(conv(3, 4), nn.ReLU()), (2, 3, 5, 6)),
    Network("relu-conv", lambda: nn.Sequential(nn.ReLU(), conv(3, 4)), (2, 3, 5, 6)),
    Network("relu-alone", lambda: nn.Sequential(nn.ReLU()), (2, 3, 5, 6)),
    Network("relu-relu", lambda: behind_a_conv(nn.ReLU(), nn.LeakyReLU(0.5), nn.ReLU()),
            (2, 3, 6, 6)),
    Network("pool-first", lambda: nn.Sequential(nn.MaxPool2d(2), conv(3, 4), nn.ReLU(), conv(4, 3)),
            (2, 3, 8, 6)),
    Network("pool-between", lambda: behind_a_conv(nn.ReLU(), nn.AvgPool2d(2)), (2, 3, 6, 8)),
    Network("pool-last", lambda: nn.Sequential(conv(3, 4), nn.ReLU(), nn.AvgPool2d(2)),
            (2, 3, 6, 8)),
    Network("nested", nested, (2, 3, 5, 7)),
    Network("skips", with_skips, (2, 3, 6, 4)),
    Network("layer-twice", layer_twice, (2, 3, 6, 5)),
    Network("one-relu", lambda: one_rectifier(nn.ReLU()), (2, 3, 7, 6)),
    Network("one-leaky-relu", lambda: one_rectifier(nn.LeakyReLU(0.3)), (2, 3, 7, 6)),
    Network("table1", lambda: pydenoise.models.autoencoder((7, 9)), (2, 3, 8, 12)),
    Network("transposed", lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 6, 3, 2, 1, 1), nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(6, 3, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(3, 1, 2)), (2, 3, 4, 5)),
    Network("output-padding-over-stride", lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 4, 2, 1, 0, 2, dilation=3), nn.ReLU(),
        nn.ConvTranspose2d(4, 5, 2, (1, 2), 0, (2, 3), 1, True, (3, 4)), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(5, 2, 2, (2, 1), 0, (1, 1), 1, True, (1, 2))), (2, 3, 4, 3)),
    Network("one-channel", lambda: nn.Sequential(
        conv(1, 1), nn.ReLU(), conv(1, 4), nn.ReLU(), conv(4, 1), nn.ReLU()), (2, 1, 5, 6)),
    Network("many-channels", lambda: nn.Sequential(
        conv(3, 40), nn.ReLU(), conv(40, 35), nn.ReLU(), conv(35, 33), nn.LeakyReLU(0.2),
        conv(33, 3)), (1, 3, 6, 5)),
    Network("many-to-many", lambda: nn.Sequential(conv(33, 32), nn.ReLU(), conv(32, 48), nn.ReLU()),
            (1, 33, 5, 7)),
    Network("groups", lambda: nn.Sequential(
        conv(6, 9, groups=3), nn.ReLU(), conv(9, 9, groups=9), nn.ReLU()), (2, 6, 5, 4)),
    Network("single-pixel", lambda: nn.Sequential(
        conv(3, 5), nn.ReLU(), conv(5, 5, 1), nn.ReLU(), conv(5, 4), nn.ReLU()), (2, 3, 1, 1)),
    Network("single-pixel-one-channel", lambda: nn.Sequential(
        conv(1, 1, 1), nn.LeakyReLU(0.2), conv(1, 1)), (1, 1, 1, 1)),
]
# fmt: on

BY_NAME = {network.name: network for network in NETWORKS}
each_network = pytest.mark.parametrize("network", NETWORKS, ids=str)


def forward_alone(module: nn.Module, x: Tensor) -> Tensor:
    """Output, each layer on its own."""
    if isinstance(module, nn.Sequential):
        for child in module:
            x = forward_alone(child, x)
        return x
    if isinstance(module, nn.Skip):
        return torch.cat([forward_alone(module.branch, x), x], dim=1)
    return module.forward(x)


def backward_alone(module: nn.Module, grad: Tensor) -> Tensor:
    """Gradient of the input, each layer on its own."""
    if isinstance(module, nn.Sequential):
        for child in list(module)[::-1]:
            grad = backward_alone(child, grad)
        return grad
    if isinstance(module, nn.Skip):
        channels = grad.shape[1] - channels_of_input(module.branch, grad.shape[1])
        through = backward_alone(module.branch, grad[:, :channels].contiguous())
        return grad[:, channels:] + through
    return module.backward(grad)


def channels_of_input(branch: nn.Module, channels: int) -> int:
    """Channels that a skip's branch takes, of which with its own `channels` come out."""
    for layer in branch.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
    return channels // 2


def pictures(size: tuple[int, ...], seed: int, place: Place) -> Tensor:
    """Normal numbers, zeros of both signs, and in the last picture one that is none."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[::5] = -0.0
    if size[0] > 1:
        x[-1, -1, -1, -1] = torch.nan
    return place.put(x)


def prepare(model: nn.Module, place: Place) -> nn.Module:
    """Weights of which some make sums of exactly zero, and some of next to nothing."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        values = torch.randn(parameter.data.shape, generator=generator)
        values[:1] = 0
        values[1:2] *= 1e-25
        parameter.data = values
    return model.to(place.device)


def assert_same_gradients(model: nn.Module, alone: nn.Module, what: object) -> None:
    for (name, ours), theirs in zip(model.named_parameters(), alone.parameters(), strict=True):
        assert_identical(ours.grad, theirs.grad, f"{what}, gradient of {name}")


def nothing_is_open(model: nn.Module) -> bool:
    return not any(module._entries for module in model.modules())


@each_network
@pytest.mark.parametrize("format", FORMATS)
def test_container_and_layers(network: Network, format: str, place: Place) -> None:
    """Output, grad_input and every gradient, of several forward passes before the backward passes;
    the results in the memory format of what came in."""
    memory_format = FORMATS[format]
    for algorithm in EVERY_ALGORITHM:
        model, alone = prepare(network.make(), place), prepare(network.make(), place)
        passes = [pictures(network.size, seed, place) for seed in (1, 2)]
        passes = [x.to(memory_format=memory_format) for x in passes]
        with ops.use_algorithm(algorithm):
            outputs = [model(x) for x in passes]
            for x, output in zip(passes, outputs, strict=True):
                assert_identical(output, forward_alone(alone, x), f"{algorithm}, output")
                assert output.is_contiguous(memory_format=memory.format_of(x))
            for output in outputs[::-1]:
                grad = pictures(output.shape, 3, place).to(memory_format=memory_format)
                grad_input = model.backward(grad)
                assert_identical(grad_input, backward_alone(alone, grad), f"{algorithm}, gx")
                assert grad_input.is_contiguous(memory_format=memory.format_of(grad))
        assert_same_gradients(model, alone, algorithm)
        assert nothing_is_open(model)


@each_network
def test_formats_change_no_bit(network: Network, place: Place) -> None:
    if place.backend == "reference":
        pytest.skip("the reference leaves the order of its sums to torch's matrix product")
    results = []
    for memory_format in FORMATS.values():
        model = prepare(network.make(), place)
        output = model(pictures(network.size, 1, place).to(memory_format=memory_format))
        grad = pictures(output.shape, 3, place).to(memory_format=memory_format)
        results.append([output, model.backward(grad), *(p.grad for p in model.parameters())])
    for one, other in zip(*results, strict=True):
        assert_identical(one, other, network)


@pytest.mark.parametrize("mixed", ["layers-then-container", "container-then-layers"])
@each_network
def test_each_layer_keeps_what_it_alone_needs(network: Network, mixed: str, place: Place) -> None:
    if "skip" in network.name:
        pytest.skip("a skip's own entry says how many channels to part with")
    model, alone = prepare(network.make(), place), prepare(network.make(), place)
    x = pictures(network.size, 1, place)
    to, back = (forward_alone, nn.Module.__call__), (backward_alone, lambda m, g: m.backward(g))
    forward = to[0] if mixed.startswith("layers") else to[1]
    backward = back[1] if mixed.startswith("layers") else back[0]
    output = forward(model, x)
    grad = pictures(output.shape, 3, place)
    assert_identical(output, alone(x), "output")
    assert_identical(backward(model, grad), alone.backward(grad), "grad_input")
    assert_same_gradients(model, alone, mixed)
    assert nothing_is_open(model)


@each_network
def test_parameters_alone(network: Network, place: Place) -> None:
    model, alone = prepare(network.make(), place), prepare(network.make(), place)
    x = pictures(network.size, 1, place)
    grad = pictures(model(x).shape, 3, place)
    model.backward_parameters(grad)
    forward_alone(alone, x)
    backward_alone(alone, grad)
    assert_same_gradients(model, alone, network)
    assert nothing_is_open(model)


@each_network
def test_without_backward(network: Network, place: Place) -> None:
    model = prepare(network.make(), place)
    x = pictures(network.size, 1, place)
    wanted = model(x)
    model.forget()
    with pydenoise.no_backward():
        assert_identical(model(x), wanted, "no_backward")
    assert nothing_is_open(model)
    assert_identical(model.eval()(x), wanted, "eval")
    assert nothing_is_open(model)


# What changes between the calls


def assert_as_its_layers(model: nn.Sequential, place: Place) -> None:
    """Once forward and backward, and with a copy layer by layer."""
    model.zero_grad()
    alone = copy.deepcopy(model)
    x = pictures((2, 3, 6, 5), 1, place)
    output = model(x)
    assert_identical(output, forward_alone(alone, x), "output")
    grad = pictures(output.shape, 3, place)
    assert_identical(model.backward(grad), backward_alone(alone, grad), "grad_input")
    assert_same_gradients(model, alone, model)


def test_a_changed_container(place: Place) -> None:
    leaky = nn.LeakyReLU(0.2)
    model = prepare(nn.Sequential(conv(3, 5), leaky, conv(5, 4)), place)
    assert_as_its_layers(model, place)
    for slope in (0.7, -0.5, torch.nan, 0.0):
        leaky.negative_slope = slope
        assert_as_its_layers(model, place)
    model.append(nn.ReLU())
    assert_as_its_layers(model, place)
    model.append(prepare(nn.Sequential(nn.ReLU(), conv(4, 2), nn.Sigmoid()), place))
    assert_as_its_layers(model, place)
    model.add_module("1", nn.ReLU())
    assert_as_its_layers(model, place)
    model.add_module("1", nn.Sigmoid())
    assert_as_its_layers(model, place)
    model[4].add_module("0", nn.LeakyReLU(0.3))
    assert_as_its_layers(model, place)
    model.add_module("2", prepare(conv(5, 4), place))
    assert_as_its_layers(model, place)


@pytest.mark.parametrize("slopes", [(0.2, 0.7), (0.2, -0.5), (-0.5, 0.2), (0.0, torch.nan)])
def test_a_slope_changed_before_backward(slopes: tuple[float, float], place: Place) -> None:
    """Backward takes the slope that is there when it runs, on its own or in the container."""
    grads = []
    for fused in (True, False):
        model = prepare(behind_a_conv(nn.LeakyReLU(slopes[0])), place)
        x = pictures((2, 3, 6, 5), 1, place)
        output = model(x) if fused else forward_alone(model, x)
        model[1].negative_slope = slopes[1]
        grad = pictures(output.shape, 3, place)
        grad_input = model.backward(grad) if fused else backward_alone(model, grad)
        grads.append([grad_input, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*grads, strict=True):
        assert_identical(one, other, slopes)


@pytest.mark.parametrize("make", [nn.LeakyReLU, nn.Sigmoid, nn.ReLU])
def test_a_gradient_made_in_the_output(make: Callable[[], nn.Module], place: Place) -> None:
    """What a layer does not keep, the caller of a container may write into."""
    model, alone = (prepare(nn.Sequential(conv(3, 5), make()), place) for _ in range(2))
    x, target = pictures((2, 3, 6, 5), 1, place), pictures((2, 5, 6, 5), 2, place)
    grad, grad_alone = model(x).sub_(target), forward_alone(alone, x).sub_(target)
    assert_identical(model.backward(grad), backward_alone(alone, grad_alone), "grad_input")
    assert_same_gradients(model, alone, model)


class Seen(nn.Module):
    """The identity, of a user's own, that notes what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.strides: list[tuple[int, ...]] = []
        self.addresses: list[int] = []

    def forward(self, input: Tensor) -> Tensor:
        self.strides.append(input.stride())
        self.addresses.append(input.data_ptr())
        assert not memory.is_recycling()
        return input

    def backward(self, grad_output: Tensor) -> Tensor:
        self.strides.append(grad_output.stride())
        assert not memory.is_recycling()
        return grad_output


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("deep", [False, True])
def test_a_users_module_sees_what_it_would_see_alone(deep: bool, format: str, place: Place) -> None:
    """Among layers that pass their memory format on, and nothing of it is fused."""
    seen, seen_alone = Seen(), Seen()

    def make(own: Seen) -> nn.Sequential:
        middle = nn.Sequential(own, nn.ReLU()) if deep else own
        return prepare(nn.Sequential(conv(3, 5), nn.ReLU(), middle, conv(5, 4), nn.ReLU()), place)

    model, alone = make(seen), make(seen_alone)
    x = pictures((2, 3, 6, 5), 1, place).to(memory_format=FORMATS[format])
    output = model(x)
    assert_identical(output, forward_alone(alone, x), "output")
    grad = pictures(output.shape, 3, place).to(memory_format=FORMATS[format])
    assert_identical(model.backward(grad), backward_alone(alone, grad), "grad_input")
    assert_same_gradients(model, alone, "a user's module")
    assert seen.strides == seen_alone.strides
    steps, fused = model._plan()
    assert not fused and all(step.rectifier is None for step in steps)


def test_a_layer_replaced_by_a_users_own(place: Place) -> None:
    model = prepare(nn.Sequential(nn.Sequential(conv(3, 5), nn.ReLU()), conv(5, 4)), place)
    assert_as_its_layers(model, place)
    assert model._plan()[1]
    model[0].add_module("1", Seen())
    assert_as_its_layers(model, place)
    assert not model._plan()[1]


def test_fused_steps_are_what_they_are_meant_to_be() -> None:
    model = nn.Sequential(conv(3, 4), nn.ReLU(), nn.ReLU(), conv(4, 4), nn.MaxPool2d(2), nn.ReLU())
    steps, fused = model._plan()
    assert fused
    assert [(type(step.module).__name__, step.rectifier) for step in steps] == [
        ("Conv2d", model[1]), ("ReLU", None), ("Conv2d", None), ("MaxPool2d", None), ("ReLU", None)
    ]  # fmt: skip
    assert [step.is_first_convolution for step in steps] == [True, False, False, False, False]
    assert [step.is_last_convolution for step in steps] == [False, False, True, False, False]


def test_a_convolution_of_the_user_s_runs_its_own_way() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

        def backward(self, grad_output: Tensor) -> Tensor:
            return 2 * super().backward(grad_output)

    plain, doubled = nn.Conv2d(1, 2, 3, padding=1), Doubled(1, 2, 3, padding=1)
    doubled.load_state_dict(plain.state_dict())
    x, gz = torch.rand(1, 1, 5, 5), torch.rand(1, 2, 5, 5)
    for behind in ([], [nn.LeakyReLU()]):
        one, two = nn.Sequential(plain, *behind), nn.Sequential(doubled, *behind)
        assert torch.allclose(two(x), 2 * one(x))
        assert torch.allclose(two.backward(gz), 2 * one.backward(gz))
