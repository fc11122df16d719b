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


def in_torch(state: dict[str, Tensor], scales: int, x: Tensor) -> Tensor:
    weights = iter(zip(*[iter(state.values())] * 2, strict=True))

    def conv(x: Tensor, **terms: int) -> Tensor:
        return functional.leaky_relu(functional.conv2d(x, *next(weights), **terms), 0.1)

    def blocks(x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + conv(x, padding=1)
        return x

    seen = [blocks(conv(x, stride=2, padding=2))]
    for _ in range(scales - 1):
        seen.append(blocks(conv(seen[-1], stride=2)))
    x = blocks(seen.pop())
    while seen:
        x = blocks(seen.pop() + functional.conv_transpose2d(x, *next(weights), stride=2))
    return functional.conv_transpose2d(x, *next(weights), stride=2, padding=2)


@pytest.mark.parametrize(("channels", "widths"), [(1, (5,)), (1, (4, 6)), (3, (5, 4, 7))])
def test_the_numbers_are_those_of_torch(channels: int, widths: tuple[int, ...]) -> None:
    model = awake(channels=channels, widths=widths)
    model.to(torch.float64)
    x = torch.rand(2, channels, 16, 24, generator=torch.Generator().manual_seed(0)).double()
    state = {name: values.requires_grad_() for name, values in model.state_dict().items()}
    expected = in_torch(state, len(widths), x)
    assert expected.shape == x.shape
    torch.testing.assert_close(model(x), expected.detach(), rtol=0, atol=1e-13)
    expected.square().sum().backward()
    model.backward(2 * expected.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-11, atol=1e-11)


def test_a_fresh_network_finds_no_noise_and_learns_at_once() -> None:
    model = models.halved(1, (4,), seed=0)
    output = model(torch.rand(1, 1, 8, 8))
    assert not output.any()
    model.backward(torch.ones_like(output))
    assert model[-1].weight.shape == (4, 1, 6, 6)
    assert dict(model.named_parameters())[f"{len(model) - 1}.weight"].grad.any()


@pytest.mark.parametrize("row", [30, 31])
def test_what_a_pixel_sees(row: int) -> None:
    model = awake(channels=1, widths=(4, 4))
    picture = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    gradient = torch.zeros_like(model(picture))
    gradient[0, 0, row, 20] = 1
    seen = model.backward(gradient)[0, 0].any(1).nonzero()
    # rows 14 to 16 at half the resolution, with two blocks 12 to 18; at a quarter 6 to 9, with four
    # blocks 2 to 13, which are 4 to 27 at half of it, with two blocks more 2 to 29
    assert (seen.min(), seen.max()) == (2 * 2 - 2, 2 * 29 + 3)


def test_same_seed_same_weights() -> None:
    first, again, other = (models.halved(1, (4, 5), seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_it_can_be_built_again() -> None:
    model = awake(channels=1, widths=(4, 3))
    again = models.build(model.architecture or {})
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 1, 12, 8)
    assert torch.equal(again(x), model(x))
    assert again.size_multiple == 4


def test_what_gives_the_picture_adds_what_it_finds_and_learns_from_pairs() -> None:
    change = awake(channels=1, widths=(4, 6))
    model = models.halved(1, (4, 6), residual=True, seed=0)
    x = torch.rand(1, 1, 16, 24)
    assert torch.equal(model(x), x), "a fresh one changes nothing"
    assert isinstance(model, nn.Residual)
    model.branch.load_state_dict(change.state_dict())
    assert torch.equal(model(x), x + change(x))
    again = models.build(model.architecture or {})
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(x), model(x)) and again.size_multiple == 4
    pictures = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    before = model.flatten().data.clone()
    pairs = TensorPairs(pictures, pictures.flip(0))
    train(model, pairs, epochs=1, optimizer=optim.SGD(model, 0.1))
    assert not torch.equal(model.flatten().data, before)


@pytest.mark.parametrize("model", [models.halved(3, (4,), seed=0), models.zero_shot(3, 4, seed=0)])
def test_pairs_do_not_teach_a_network_of_noise(model: nn.Module) -> None:
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    before = model.flatten().data.clone()
    with pytest.raises(ValueError, match=r"one that predicts noise; take models\.autoencoder"):
        train(model, TensorPairs(pictures, pictures), epochs=1, optimizer=optim.SGD(model, 0.1))
    assert torch.equal(model.flatten().data, before)


@pytest.mark.parametrize(
    ("terms", "match"),
    [
        ({"channels": 0}, "halved: channels must be a whole number from 1"),
        ({"widths": 48}, "halved: widths must be 1 to 8 whole numbers"),
        ({"widths": ()}, "halved: widths must be 1 to 8 whole numbers"),
        ({"widths": (4, 0)}, r"halved: widths\[1\] must be a whole number"),
        ({"widths": (4, True)}, r"halved: widths\[1\] must be a whole number"),
    ],
)
def test_what_is_refused(terms: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        models.halved(**terms)
    with pytest.raises(TypeError, match="halved: residual must be True or False, got 1"):
        models.halved(residual=1)  # type: ignore[arg-type]
