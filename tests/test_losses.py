"""Losses for noise that is not of mean zero: what they count, what they find, when they change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Place

from pydenoise import models, nn, ops, optim, training
from pydenoise.data import NoisyCrops, parse
from pydenoise.objectives import Noise2Noise


def draw(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(size, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# --- the masked loss ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_masked_loss_counts_only_what_is_left(place: Place, dtype: torch.dtype) -> None:
    input, target = draw(2, 3, 4, 5, dtype=dtype), draw(2, 3, 4, 5, seed=1, dtype=dtype)
    target[draw(2, 3, 4, 5, seed=2) < 0.4] = 0
    expected_input = input.clone().requires_grad_()
    is_left = target != 0
    expected = ((expected_input - target)[is_left] ** 2).sum() / target.numel()
    expected.backward()
    loss = nn.MaskedMSELoss()
    value = loss(place.put(input), place.put(target))
    assert value == pytest.approx(expected.item(), rel=1e-6)
    grad = loss.backward().cpu()
    assert torch.allclose(grad, expected_input.grad, rtol=1e-6, atol=0)
    assert not grad[~is_left].any()
    assert grad[is_left].all()


def test_what_stands_where_the_target_is_lost_changes_nothing() -> None:
    input, target = draw(1, 1, 4, 4), draw(1, 1, 4, 4, seed=1)
    target[..., 0] = 0
    other = input.clone()
    other[..., 0] = torch.tensor([5.0, torch.nan, -torch.inf, 0.0])
    loss = nn.MaskedMSELoss()
    losses = loss(input, target), loss(other, target)
    assert losses[0] == losses[1]
    assert torch.equal(loss.backward(), loss.backward())


def test_a_mask_hides_no_wrong_shape() -> None:
    with pytest.raises(ValueError, match="target"):
        nn.MaskedMSELoss()(draw(1, 1, 4, 4), draw(1, 1, 1, 4))


# --- the annealed L0 loss -----------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [2.0, 1.0, 0.5, 0.01])
def test_the_l0_loss_is_a_power_of_the_error(place: Place, gamma: float) -> None:
    input, target = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    expected_input = input.clone().requires_grad_()
    expected = ((expected_input - target).abs() + 1e-8).pow(gamma).mean()
    expected.backward()
    loss = nn.AnnealedL0Loss(gamma)
    value = loss(place.put(input), place.put(target))
    assert value == pytest.approx(expected.item(), rel=1e-12)
    grad = loss.backward(-3.0).cpu()
    assert torch.allclose(grad, -3 * expected_input.grad, rtol=1e-12, atol=0)


def test_the_l0_loss_is_finite_where_nothing_is_wrong(place: Place) -> None:
    same = place.put(draw(1, 1, 2, 2, dtype=torch.float32))
    assert ops.l0_loss(same, same, 0.01) == pytest.approx(1e-8**0.01)
    assert not ops.l0_loss_backward(same, same, 0.01).any()


@pytest.mark.parametrize("gamma", [0.0, 2.5, float("nan")])
def test_powers_out_of_range_are_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"AnnealedL0Loss: gamma must lie in \(0, 2\]"):
        nn.AnnealedL0Loss(gamma)


def test_the_power_sinks_with_the_run() -> None:
    loss = nn.AnnealedL0Loss()
    seen = []

    class Watched(Noise2Noise):
        def step(self, model: nn.Module, *pair: torch.Tensor) -> float:
            seen.append(loss.gamma)
            return super().step(model, *pair)

    pairs = NoisyCrops([np.full((16, 16), 128, np.uint8)], parse("impulse:0.2"), 8, length=2)
    model = models.autoencoder((4,), 1, seed=0)
    training.train(
        model,
        pairs,
        epochs=4,
        batch_size=1,
        optimizer=optim.Adam(model, lr=1e-3),
        objective=Watched(loss),
    )
    assert seen == [2, 2, 1.5, 1.5, 1, 1, 0.5, 0.5]


# --- what each finds over many noisy targets ----------------------------------------------------


@pytest.mark.parametrize("noise", ["gauss:50", "bernoulli:0.7", "text:0.3", "impulse:0.7"])
def test_the_loss_of_a_model_has_its_minimum_at_the_clean_value(noise: str) -> None:
    """One gray value against many targets: the loss named by the model is least at 0.8 itself."""
    model = parse(noise)
    clean = np.full((160, 160), 204, dtype=np.uint8)
    target = torch.from_numpy(model.draw(clean, np.random.default_rng(0)))
    loss = {
        "mse": nn.MSELoss(),
        "masked": nn.MaskedMSELoss(),
        "l1": nn.L1Loss(),
        "l0": nn.AnnealedL0Loss(0.1),
    }[model.loss].eval()
    guesses = np.arange(0.5, 1.01, 0.05).round(2).tolist()
    values = [loss(torch.full_like(target, guess), target) for guess in guesses]
    assert guesses[int(np.argmin(values))] == 0.8
    if model.loss != "mse":
        mean = [nn.MSELoss().eval()(torch.full_like(target, g), target) for g in guesses]
        assert guesses[int(np.argmin(mean))] != 0.8, "the mean would not have found it"


def test_pairs_with_lost_pixels_teach_the_picture() -> None:
    """Noise2Noise on a picture of which two thirds are lost in source and target alike."""
    rows = np.linspace(60, 220, 32)
    clean = (rows[:, None] * 0.5 + rows * 0.5).astype(np.uint8)
    noise = parse("bernoulli:0.66")
    pairs = NoisyCrops([clean], noise, 16, length=160, seed=1)
    model = models.unet(1, width=6, depth=2, seed=0)
    training.train(
        model,
        pairs,
        epochs=2,
        batch_size=4,
        optimizer=optim.Adam(model, lr=5e-3, betas=(0.9, 0.99)),
        schedule=optim.ramp_down(0.5),
        objective=Noise2Noise(nn.MaskedMSELoss()),
    )
    noisy = torch.from_numpy(noise.draw(clean, np.random.default_rng(5)))[None, None]
    error = (model.eval()(noisy) - torch.from_numpy(clean / 255)).square().mean().sqrt().item()
    assert (noisy - torch.from_numpy(clean / 255)).square().mean().sqrt().item() > 0.4
    assert error < 0.06
