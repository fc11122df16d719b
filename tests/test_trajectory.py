"""Twenty training steps against autograd: the whole chain at once, forward, backward and update."""

from __future__ import annotations

import pytest
import torch
from conftest import Setting
from layers import BY_NAME, autoencoder_of_torch

from pydenoise import models, nn, optim
from pydenoise.objectives import Noise2Noise

STEPS = 20
BOUND = {torch.float32: 1e-5, torch.float64: 1e-12}

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.5}),
    "momentum": ("SGD", {"lr": 0.5, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}),
    "adam": ("Adam", {"lr": 1e-3, "eps": 1e-4}),
}


def assert_same_trajectory(
    ours: nn.Module, theirs: torch.nn.Module, size: tuple[int, ...], setting: Setting, update: str
) -> None:
    """The larger of the relative loss difference at any step and, at the end, `max|dw| / max|w|`
    of any parameter, is within the bound."""
    rule, arguments = OPTIMIZERS[update]
    ours_optimizer = getattr(optim, rule)(ours, **arguments)
    theirs_optimizer = getattr(torch.optim, rule)(theirs.parameters(), **arguments)
    put = setting.place.put
    objective, loss = Noise2Noise(), torch.nn.MSELoss()
    generator = torch.Generator().manual_seed(3)
    worst = 0.0
    for _ in range(STEPS):
        source, target = (
            torch.rand(size, dtype=torch.float64, generator=generator)
            .to(setting.dtype)
            .contiguous(memory_format=setting.memory_format)
            for _ in range(2)
        )
        value = objective.step(ours, put(source), put(target))
        ours_optimizer.step()
        ours_optimizer.zero_grad()
        wanted = loss(theirs(source), target)
        theirs_optimizer.zero_grad()
        wanted.backward()
        theirs_optimizer.step()
        worst = max(worst, abs(value - wanted.item()) / wanted.item())
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        wanted = other.detach()
        difference = (parameter.data.cpu() - wanted).abs().max() / wanted.abs().max()
        worst = max(worst, difference.item())
    assert worst <= BOUND[setting.dtype], f"{worst:.1e}"


@pytest.mark.parametrize("update", OPTIMIZERS)
def test_table_one(setting: Setting, update: str) -> None:
    ours = models.autoencoder((12, 20), seed=1).to(setting.dtype)
    theirs = autoencoder_of_torch((12, 20)).to(setting.dtype)
    theirs.load_state_dict(ours.state_dict())
    ours.to(setting.place.device)
    assert_same_trajectory(ours, theirs, (3, 3, 16, 16), setting, update)


def test_a_network_with_skips(setting: Setting) -> None:
    ours, theirs = BY_NAME["network"].twins(setting.dtype)
    # Small values: its output is linear, and rounding errors grow with a loss that diverges.
    for parameter in ours.parameters():
        parameter.data = 0.3 * parameter.data
    theirs.load_state_dict(ours.state_dict())
    ours.to(setting.place.device)
    assert_same_trajectory(ours, theirs, (2, 3, 8, 8), setting, "sgd")
