"""Neighbor2Neighbor: which pixels are drawn, that they are put back, and the gradient of a step."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scenes import Scenes
from torch import Tensor

from pydenoise import models, nn, optim
from pydenoise.data import generator
from pydenoise.objectives import Neighbor2Neighbor
from pydenoise.objectives.neighbor2neighbor import draw_neighbors, neighbors, neighbors_backward
from pydenoise.training import train

EPOCH, SEED = 3, 7


def drawn(picture: Tensor, step: int = 0, epoch: int = EPOCH) -> Tensor:
    numbers = range(step * len(picture), (step + 1) * len(picture))
    return draw_neighbors(picture, [generator(SEED, epoch, i, "neighbors") for i in numbers])


def noisy(*size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def numbered(height: int, width: int, channels: int = 1, batch: int = 1) -> Tensor:
    """Pixels by number, 10^6 more for each channel and 10^4 for each picture."""
    pixels = torch.arange(height * width, dtype=torch.float64).view(1, 1, height, width)
    offsets = torch.arange(channels) * 10.0**6 + torch.arange(batch)[:, None] * 10.0**4
    return pixels + offsets[:, :, None, None]


# --- the sampler --------------------------------------------------------------------------------


def test_both_pixels_are_of_their_cell_and_share_a_side() -> None:
    picture = numbered(40, 60)
    first, second = (
        sample[0, 0].numpy().astype(int) for sample in neighbors(picture, drawn(picture))
    )
    rows, columns = np.mgrid[:20, :30]
    for sample in (first, second):
        np.testing.assert_array_equal(sample // 60 // 2, rows)
        np.testing.assert_array_equal(sample % 60 // 2, columns)
    steps = abs(first // 60 - second // 60) + abs(first % 60 - second % 60)
    assert (steps == 1).all(), "never a diagonal, never the same pixel"


def test_the_eight_pairs_come_equally_often() -> None:
    picture = torch.empty(2, 1, 400, 400)
    first, second = drawn(picture)
    counts = Counter(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
    cells = 2 * 200 * 200
    assert len(counts) == 8
    spread = math.sqrt(cells * 1 / 8 * 7 / 8)
    assert all(abs(count - cells / 8) < 4 * spread for count in counts.values()), counts


def test_channels_are_drawn_alike_and_pictures_are_not() -> None:
    picture = numbered(32, 32, channels=3, batch=2)
    first, second = neighbors(picture, drawn(picture))
    for sample in (first, second):
        assert torch.equal(sample[:, 0] + 10.0**6, sample[:, 1])
        assert torch.equal(sample[:, 0] + 2 * 10.0**6, sample[:, 2])
        assert not torch.equal(sample[0] + 10.0**4, sample[1])


def test_steps_epochs_and_seeds_draw_anew_and_the_same_again() -> None:
    picture = torch.empty(1, 1, 16, 16)
    draws = [drawn(picture, *place) for place in ((0, 0), (1, 0), (0, 1))]
    draws.append(draw_neighbors(picture, [generator(SEED + 1, 0, 0, "neighbors")]))
    assert len({draw.numpy().tobytes() for draw in draws}) == 4
    assert torch.equal(draws[0], drawn(picture, 0, 0))


def test_an_odd_row_or_column_is_left_out() -> None:
    whole = noisy(2, 3, 8, 10)
    odd = torch.nn.functional.pad(whole, (0, 1, 0, 1), value=torch.nan)
    places = drawn(odd)
    assert torch.equal(neighbors(odd, places), neighbors(whole, places))
    assert (
        neighbors_backward(noisy(2, 2, 3, 4, 5), places, odd.shape)[:, :, -1].count_nonzero() == 0
    )


@pytest.mark.parametrize("size", [(2, 3, 8, 6), (1, 1, 2, 2), (1, 2, 7, 9)])
def test_the_backward_is_the_adjoint(size: tuple[int, ...]) -> None:
    picture = noisy(*size)
    places = drawn(picture)
    sampled = neighbors(picture, places)
    grad = torch.randn(
        sampled.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )
    back = neighbors_backward(grad, places, picture.shape)
    assert back.shape == picture.shape
    assert float((sampled * grad).sum()) == pytest.approx(float((picture * back).sum()), rel=1e-13)
    assert back.count_nonzero() == grad.numel()


@pytest.mark.parametrize("size", [(1, 1, 1, 8), (1, 1, 8, 1), (3, 8, 8)])
def test_pictures_without_a_cell_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\), 2x2 pixels or more, got \("):
        Neighbor2Neighbor().step(models.autoencoder((4,), seed=0), torch.zeros(size))


# --- a step -------------------------------------------------------------------------------------


def twin(model: nn.Module) -> torch.nn.Sequential:
    """The convolutions of a network, in torch and with its weights."""
    layers = [
        torch.nn.Conv2d(3, 5, 3, padding=1),
        torch.nn.LeakyReLU(0.1),
        torch.nn.Conv2d(5, 3, 3, padding=1),
    ]
    network = torch.nn.Sequential(*layers).double()
    network.load_state_dict(model.state_dict())
    return network


def network() -> nn.Sequential:
    seed = nn.init.seeded(4)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, generator=seed),
        nn.LeakyReLU(0.1),
        nn.Conv2d(5, 3, 3, padding=1, generator=seed),
    ).to(torch.float64)


def papers_loss(model: torch.nn.Module, picture: Tensor, places: Tensor, gamma: float) -> Tensor:
    """The loss as the paper writes it."""
    cells = torch.nn.functional.pixel_unshuffle(picture, 2).unflatten(1, (-1, 4))
    with torch.no_grad():
        denoised = torch.nn.functional.pixel_unshuffle(model(picture), 2).unflatten(1, (-1, 4))

    def sample(cells: Tensor, number: int) -> Tensor:
        index = places[number][:, :, None].expand(-1, cells.shape[1], -1, -1, -1)
        return cells.gather(2, index).squeeze(2)

    output = model(sample(cells, 0))
    difference = output - sample(cells, 1)
    learnt = sample(denoised, 0) - sample(denoised, 1)
    return difference.square().mean() + gamma * (difference - learnt).square().mean()


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("size", [(2, 3, 16, 12), (5, 3, 128, 160)])  # whole, and in parts
def test_a_step_is_the_papers_by_autograd(size: tuple[int, ...], progress: float) -> None:
    picture, model = noisy(*size), network()
    oracle = twin(model)
    objective = Neighbor2Neighbor(strength=2, seed=SEED)
    objective.begin(EPOCH, progress)
    for step in range(3):  # the third from tape
        model.zero_grad()
        oracle.zero_grad()
        loss = objective.step(model, picture)
        wanted = papers_loss(oracle, picture, drawn(picture, step), 2 * progress)
        wanted.backward()
        assert loss == pytest.approx(wanted.item(), rel=1e-10)
        for ours, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
            assert theirs.grad is not None
            error = (ours.grad - theirs.grad).abs().max()
            assert error <= 1e-10 * theirs.grad.abs().max(), ours.name


def test_a_step_has_the_slope_of_its_loss() -> None:
    picture, model = noisy(1, 3, 8, 8), network()
    objective = Neighbor2Neighbor(strength=2, seed=SEED)
    objective.begin(EPOCH, 0.5)
    loss = objective.step(model, picture)
    places = drawn(picture)
    with nn.no_backward():
        first, second = neighbors(picture, places)
        known = neighbors(model(picture), places)
        difference = known[0] - known[1]

        def value() -> float:
            error = model(first) - second
            return float(error.square().mean() + (error - difference).square().mean())

        assert loss == pytest.approx(value(), rel=1e-12)
        for parameter in model.parameters():
            weights = parameter.data.view(-1)
            for place in (0, len(weights) // 2):
                sides = []
                for step in (1e-5, -2e-5):
                    weights[place] += step
                    sides.append(value())
                weights[place] += 1e-5
                slope = (sides[0] - sides[1]) / 2e-5
                assert float(parameter.grad.view(-1)[place]) == pytest.approx(slope, rel=1e-6)


def test_every_step_of_a_run_draws_anew_and_gamma_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, bytes]] = []
    objective = Neighbor2Neighbor(strength=1)

    def watched(picture: Tensor, rng: np.random.Generator) -> Tensor:
        places = draw_neighbors(picture, rng)
        seen.append((objective.gamma, places.numpy().tobytes()))
        return places

    monkeypatch.setattr("pydenoise.objectives.neighbor2neighbor.draw_neighbors", watched)
    small = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    train(
        small,
        Scenes(16),
        epochs=4,
        batch_size=8,
        optimizer=optim.SGD(small, 0.1),
        objective=objective,
    )
    assert [gamma for gamma, _ in seen] == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    assert len({places for _, places in seen}) == 8


def test_a_failed_step_leaves_nothing_open() -> None:
    model, objective = network(), Neighbor2Neighbor()
    objective.begin(1, 0.5)
    with pytest.raises(TypeError):
        objective.step(model, noisy(1, 3, 8, 8, dtype=torch.float32))
    with pytest.raises(RuntimeError, match="without a forward pass"):
        model.backward(noisy(1, 3, 4, 4))


def test_it_learns_what_neighbours_have_in_common() -> None:
    """The best guess of a pixel of a flat scene from 3 x 3: their mean, a ninth of the noise."""
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, generator=nn.init.seeded(0)))
    noisy, clean = Scenes(64, noise=0.3), Scenes(64, noise=0)
    noisy.shape = clean.shape = (3, 24, 24)
    rule, objective = optim.Adam(model, 2e-2), Neighbor2Neighbor()
    train(model, noisy, epochs=40, optimizer=rule, schedule=optim.cosine(), objective=objective)
    (source, _), (wanted, _) = (scenes.batch(np.arange(64), 0) for scenes in (noisy, clean))
    before, after = ((p - wanted).square().mean() for p in (source, model(source)))
    assert after < before / 4


@pytest.mark.parametrize("strength", [-1.0, math.nan])
def test_strengths_below_zero_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be 0 or more, got"):
        Neighbor2Neighbor(strength)
