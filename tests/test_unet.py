"""The U-Net of the paper and the small one: torch's numbers, and every size of picture."""

from __future__ import annotations

import json

import pytest
import torch
from layers import assert_near, unet_of_torch

from pydenoise import inference, models, nn, optim
from pydenoise.checkpoint import load_weights, save_weights
from pydenoise.objectives import Noise2Noise

SHAPES = [(3, 48, 5, False), (1, 6, 1, True), (3, 6, 2, False), (2, 9, 3, True)]


def _weights(model: nn.Module) -> int:
    return sum(parameter.data.numel() for parameter in model.parameters())


def test_the_weights_of_the_paper() -> None:
    assert _weights(models.unet()) == 991_203
    convolutions = [each for each in models.unet().modules() if isinstance(each, nn.Conv2d)]
    assert [layer.weight.shape[0] for layer in convolutions] == (
        [48] * 7 + [96] * 8 + [64, 32, 3]
    )  # fmt: skip
    slopes = {
        layer.negative_slope for layer in models.unet().modules() if isinstance(layer, nn.LeakyReLU)
    }
    assert slopes == {0.1}


@pytest.mark.parametrize(("channels", "width", "depth", "residual"), SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_output_and_gradients_equal_autograd(
    channels: int, width: int, depth: int, residual: bool, channels_last: bool
) -> None:
    model = models.unet(channels, width=width, depth=depth, residual=residual, seed=1)
    theirs = unet_of_torch(channels, width, depth, residual)
    model.to(torch.float64)
    theirs.double().load_state_dict(model.state_dict())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.rand(2, channels, 2 * 2**depth, 2**depth, dtype=torch.float64)
    input = input.contiguous(memory_format=memory_format)
    expected_input = input.clone().requires_grad_()
    grad_output = torch.randn_like(input)
    expected = theirs(expected_input)
    expected.backward(grad_output)

    output = model(input)
    assert_near(output, expected.detach(), "output", 20)
    assert output.is_contiguous(memory_format=memory_format)
    assert_near(model.backward(grad_output), expected_input.grad, "grad_input", 20)
    for name, parameter in model.named_parameters():
        assert_near(parameter.grad, theirs.get_parameter(name).grad, name, 20)


def test_twenty_steps_of_training_equal_autograd() -> None:
    model = models.small_unet(width=6, seed=0)
    theirs = unet_of_torch(3, 6, 3, True)
    theirs.load_state_dict(model.state_dict())
    ours_rule = optim.Adam(model, lr=1e-3, betas=(0.9, 0.99))
    their_rule = torch.optim.Adam(theirs.parameters(), lr=1e-3, betas=(0.9, 0.99))
    objective = Noise2Noise()
    for step in range(20):
        source, target = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        loss = objective.step(model, source, target)
        ours_rule.step()
        model.zero_grad()
        their_rule.zero_grad()
        expected = torch.nn.functional.mse_loss(theirs(source), target)
        expected.backward()
        their_rule.step()
        assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_same_seed_same_weights() -> None:
    first, again, other = (models.small_unet(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "weight" in name)


def test_first_values_are_he_s() -> None:
    weight = models.unet(seed=0)[4].weight  # 96 of fan-in to 64 channels and more
    assert weight.std().item() == pytest.approx((2 / (weight[0].numel())) ** 0.5, rel=0.02)


def test_a_description_builds_the_same_network_and_files_keep_it(tmp_path: object) -> None:
    for channels, width, depth, residual in SHAPES[1:]:
        model = models.unet(channels, width=width, depth=depth, residual=residual, seed=0)
        again = models.build(json.loads(json.dumps(model.architecture)))
        assert again.architecture == model.architecture
        assert again.size_multiple == model.size_multiple == 2**depth
        path = tmp_path / f"{width}-{depth}.safetensors"
        save_weights(path, model)
        loaded, header = load_weights(path)
        assert header["architecture"] == model.architecture
        input = torch.rand(1, channels, 2**depth, 2**depth)
        assert torch.equal(loaded(input), model(input))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (20, 40), (64, 33)])
def test_pictures_of_every_size_come_back_in_it(size: tuple[int, int]) -> None:
    model = models.unet(1, width=3, seed=0)
    assert model.size_multiple == 32
    assert inference.denoise(model, torch.rand(1, 1, *size)).shape == (1, 1, *size)


def test_pictures_are_continued_by_reflection() -> None:
    model = models.unet(1, width=3, seed=0)
    input = torch.rand(2, 1, 20, 45)
    continued = torch.nn.functional.pad(input, (0, 19, 0, 12), mode="reflect")
    assert torch.equal(inference.denoise(model, input), model(continued)[:, :, :20, :45])
    with pytest.raises(ValueError, match="Skip: the branch must keep"):
        model(torch.rand(1, 1, 72, 96))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"channels": 0}, ValueError, "unet: channels must be a whole number from 1 to 4096"),
        ({"channels": 3.0}, ValueError, "got 3.0"),
        ({"width": 20}, ValueError, "width must be a multiple of 3, got 20"),
        ({"width": 5001}, ValueError, "width must be a whole number from 1 to 4096, got 5001"),
        ({"depth": 9}, ValueError, "depth must be a whole number from 1 to 8, got 9"),
        ({"residual": 1}, TypeError, "residual must be True or False, got 1"),
        ({"init": "ones"}, ValueError, "init must be one of"),
    ],
)
def test_wrong_numbers_are_refused(
    options: dict[str, object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        models.unet(**options)


def test_a_residual_branch_keeps_the_shape() -> None:
    with pytest.raises(ValueError, match=r"Residual: .* input \(1, 3, 4, 4\), branch output"):
        nn.Residual(nn.Conv2d(3, 2, 1))(torch.rand(1, 3, 4, 4))
