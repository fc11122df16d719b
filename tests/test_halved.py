"""The network at half the resolution: torch's numbers, what it sees, and its description."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pydenoise import models, nn, optim
from pydenoise.data import TensorPairs
from pydenoise.training import train


def awake(**terms: Any) -> nn.Sequential:
    """A network that finds noise: a fresh one finds none."""
    model = models.halved(seed=1, **terms)
    generator = torch.Generator().manual_seed(2)
    for _, parameter in model.named_parameters():
        parameter.data += 0.05 * torch.randn(parameter.data.shape, generator=generator)
    return model


def in_torch(state: dict[str, Tensor], dilations: tuple[int, ...], x: Tensor) -> Tensor:
    weights = [(w, b) for w, b in zip(*[iter(state.values())] * 2, strict=True)]
    x = functional.leaky_relu(functional.conv2d(x, *weights[0], stride=2, padding=2), 0.1)
    for each, layer in zip(dilations, weights[1:-1], strict=True):
        more = functional.conv2d(x, *layer, padding=each, dilation=each)
        x = x + functional.leaky_relu(more, 0.1)
    return functional.conv_transpose2d(x, *weights[-1], stride=2, padding=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_numbers_are_those_of_torch(channels: int) -> None:
    model = awake(channels=channels, width=5, dilations=(1, 3))
    model.to(torch.float64)
    x = torch.rand(2, channels, 12, 16, generator=torch.Generator().manual_seed(0)).double()
    state = {name: values.requires_grad_() for name, values in model.state_dict().items()}
    expected = in_torch(state, (1, 3), x)
    assert expected.shape == x.shape
    torch.testing.assert_close(model(x), expected.detach(), rtol=0, atol=1e-13)
    expected.square().sum().backward()
    model.backward(2 * expected.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-11, atol=1e-11)


def test_a_fresh_network_finds_no_noise_and_learns_at_once() -> None:
    model = models.halved(1, 4, (1,), seed=0)
    output = model(torch.rand(1, 1, 8, 8))
    assert not output.any()
    model.backward(torch.ones_like(output))
    assert model[-1].weight.shape == (4, 1, 6, 6)
    assert dict(model.named_parameters())[f"{len(model) - 1}.weight"].grad.any()


@pytest.mark.parametrize("row", [30, 31])
def test_what_a_pixel_sees(row: int) -> None:
    model = awake(channels=1, width=4)
    picture = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    gradient = torch.zeros_like(model(picture))
    gradient[0, 0, row, 20] = 1
    seen = model.backward(gradient)[0, 0].any(1).nonzero()
    assert (seen.min(), seen.max()) == (30 - 20, 30 + 21)


def test_same_seed_same_weights() -> None:
    first, again, other = (models.halved(1, 4, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_it_can_be_built_again() -> None:
    model = awake(channels=1, width=4, dilations=(2, 1))
    again = models.build(model.architecture or {})
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 1, 6, 8)
    assert torch.equal(again(x), model(x))
    assert again.size_multiple == 2


@pytest.mark.parametrize("build", [models.halved, models.zero_shot])
def test_pairs_do_not_teach_a_network_of_noise(build: Any) -> None:
    model = build(3, 4, seed=0)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    before = model.flatten().data.clone()
    with pytest.raises(ValueError, match=r"one that predicts noise; take models\.autoencoder"):
        train(model, TensorPairs(pictures, pictures), epochs=1, optimizer=optim.SGD(model, 0.1))
    assert torch.equal(model.flatten().data, before)


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"channels": 0}, "halved: channels must be a whole number from 1"),
        ({"width": True}, "halved: width must be a whole number"),
        ({"dilations": ()}, "halved: dilations must be 1 to 8 whole numbers"),
        ({"dilations": (1, 0)}, r"halved: dilations\[1\] must be a whole number"),
    ],
)
def test_what_is_refused(terms: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        models.halved(**terms)
