"""Networks by name: Table I as torch computes it, and descriptions that build again."""

from __future__ import annotations

import json

import pytest
import torch
from layers import assert_near, autoencoder_of_torch

import pydenoise
from pydenoise import models, nn
from pydenoise.objectives import Noise2Noise


def test_table_one() -> None:
    model = models.autoencoder(seed=0)
    assert [type(layer).__name__ for layer in model] == [
        "Conv2d",
        "ReLU",
        "Conv2d",
        "ReLU",
        "ConvTranspose2d",
        "ReLU",
        "ConvTranspose2d",
        "Sigmoid",
    ]
    theirs = autoencoder_of_torch()
    theirs.load_state_dict(model.state_dict())
    input = torch.rand(2, 3, 32, 32)
    output = model(input)
    assert output.shape == input.shape
    assert_near(output, theirs(input).detach(), "output")
    assert model.size_multiple == 4


@pytest.mark.parametrize("channels", [(6,), (4, 6), [4, 5, 6]])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_description_builds_the_same_network(channels: object, in_channels: int) -> None:
    model = models.autoencoder(channels, in_channels, seed=0)
    again = models.build(json.loads(json.dumps(model.architecture)))
    again.load_state_dict(model.state_dict())
    assert again.architecture == model.architecture
    assert again.size_multiple == model.size_multiple == 2 ** len(channels)
    input = torch.rand(1, in_channels, 2 * model.size_multiple, model.size_multiple)
    assert torch.equal(again(input), model(input))


def test_inits_by_name_reach_every_layer() -> None:
    model = models.autoencoder((4, 5), init="kaiming_normal", seed=0)
    assert not any(layer.bias.any() for layer in model if hasattr(layer, "bias"))


@pytest.mark.parametrize(
    ("architecture", "error", "match"),
    [
        ("autoencoder", TypeError, "must be a dict, got str"),
        ({}, ValueError, "unknown network None; known are autoencoder, halved, unet"),
        (
            {"name": "unet"},
            ValueError,
            r"described by \['channels', 'depth', 'residual', 'width'\]",
        ),
        (
            {"name": "halved", "channels": 3, "residual": True},
            ValueError,
            r"described by \['channels', 'widths'\] and perhaps \['residual'\], got",
        ),
        ({"name": ["autoencoder"]}, ValueError, "unknown network"),
        ({"name": "autoencoder"}, ValueError, r"described by \['channels', 'in_channels'\], got"),
        (
            {"name": "autoencoder", "channels": [4], "in_channels": 3, "seed": 1},
            ValueError,
            "'seed'",
        ),
        ({"name": "autoencoder", "channels": [], "in_channels": 3}, ValueError, "1 to 8 whole"),
        ({"name": "autoencoder", "channels": 48, "in_channels": 3}, ValueError, "got 48"),
        ({"name": "autoencoder", "channels": [4.0], "in_channels": 3}, ValueError, "got 4.0"),
        ({"name": "autoencoder", "channels": [10**9], "in_channels": 3}, ValueError, "from 1 to"),
        ({"name": "autoencoder", "channels": [4], "in_channels": True}, ValueError, "got True"),
    ],
)
def test_wrong_descriptions_are_refused(
    architecture: object, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        models.build(architecture)


@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss])
def test_a_step_of_the_objective_is_the_gradient_of_its_loss(loss: type[nn.Loss]) -> None:
    model = models.autoencoder((4, 5), seed=0)
    source, target = torch.rand(2, 2, 3, 8, 8)
    criterion = loss()
    wanted_loss = criterion(model(source), target)
    model.backward(criterion.backward())
    wanted = model.flatten().grad.clone()
    model.zero_grad()
    assert Noise2Noise(loss()).step(model, source, target) == wanted_loss
    assert torch.equal(model.flatten().grad, wanted)


def test_a_failed_step_leaves_nothing_open() -> None:
    model, objective = models.autoencoder((4,), seed=0), Noise2Noise()
    with pytest.raises(ValueError, match="target"):
        objective.step(model, torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5))
    with pytest.raises(RuntimeError, match="without a forward pass"):
        model.backward(torch.rand(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match="without a forward pass"):
        objective.loss.backward()


def test_a_step_in_eval_mode_says_so() -> None:
    model = models.autoencoder((4,), seed=0).eval()
    with pytest.raises(RuntimeError, match="eval mode"):
        Noise2Noise().step(model, *torch.rand(2, 1, 3, 4, 4))
    with pydenoise.no_backward(), pytest.raises(RuntimeError, match="no_backward"):
        Noise2Noise().step(model.train(), *torch.rand(2, 1, 3, 4, 4))
