"""Learning from one picture: the objective against autograd, and what may come as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pydenoise import models, nn, optim, scale, tiles, zero_shot
from pydenoise.data import Picture
from pydenoise.data.levels import levels
from pydenoise.objectives import ZeroShot, pair_downsample
from pydenoise.objectives.zero_shot import pair_downsample_backward

F64 = torch.float64
SHORT = zero_shot.RECIPES["fast"]._replace(steps=10, turns=2)
LONGER = zero_shot.RECIPES["fast"]._replace(steps=250)


def in_torch(seed: int, channels: int, dtype: torch.dtype) -> tuple[nn.Module, torch.nn.Sequential]:
    ours = models.zero_shot(channels, 8, seed=seed).to(dtype)
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3, padding=1),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Conv2d(8, channels, 1),
    ).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def halves_in_torch(picture: Tensor) -> tuple[Tensor, Tensor]:
    """As the paper's authors say it: a strided convolution with two kernels, channel by channel."""
    kernels = torch.tensor([[[[0, 0.5], [0.5, 0]]], [[[0.5, 0], [0, 0.5]]]], dtype=picture.dtype)
    channels = picture.shape[1]
    first, second = (
        torch.nn.functional.conv2d(picture, k.expand(channels, 1, 2, 2), stride=2, groups=channels)
        for k in kernels[:, None]
    )
    return first, second


def loss_in_torch(model: Callable[[Tensor], Tensor], y: Tensor, w: Tensor | None = None) -> Tensor:
    y1, y2 = halves_in_torch(y)
    g1, g2, g = y1 - model(y1), y2 - model(y2), y - model(y)
    h1, h2 = halves_in_torch(g)
    weight = torch.ones_like(y1) if w is None else w.expand_as(y1)

    def mse(a: Tensor, b: Tensor) -> Tensor:
        return (weight * (a - b) ** 2).sum() / weight.sum()

    return (mse(g1, y2) + mse(g2, y1)) / 2 + (mse(g1, h1) + mse(g2, h2)) / 2


def noisy(size: tuple[int, ...], seed: int = 0, sigma: float = 0.1) -> np.ndarray[Any, Any]:
    """A smooth scene from 0.2 to 0.8 with noise."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]] / 16
    scene = 0.5 + 0.3 * np.sin(rows) * np.cos(columns)
    scene = scene if len(size) == 2 else np.repeat(scene[:, :, None], size[2], axis=2)
    return scene + sigma * random.standard_normal(size)


@pytest.mark.parametrize("size", [(1, 1, 2, 2), (2, 3, 6, 10)])
def test_halves_and_their_adjoint(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(*size, generator=generator, dtype=F64)
    halves = pair_downsample(picture)
    torch.testing.assert_close(halves, torch.cat(halves_in_torch(picture)), rtol=0, atol=1e-15)
    gradient = torch.rand(halves.shape, generator=generator, dtype=F64)
    along = (halves * gradient).sum()
    back = pair_downsample_backward(gradient)
    assert torch.isclose(along, (picture * back).sum(), rtol=1e-13)


@pytest.mark.parametrize("size", [(1, 3), (3, 1, 4, 5), (1, 1, 3, 4), (1, 1, 0, 2)])
def test_halves_of_odd_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"even height and width, got \("):
        pair_downsample(torch.zeros(size))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_are_those_of_autograd(batch: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(batch)
    ours, theirs = in_torch(3, 3, F64)
    picture = torch.rand(batch, 3, 12, 16, generator=generator, dtype=F64)
    valid = cells = None
    if masked:
        valid = torch.rand(batch, 1, 12, 16, generator=generator) > 0.1
        cells = valid.unfold(2, 2, 2).unfold(3, 2, 2).all(-1).all(-1).to(F64)
        assert 0 < cells.sum() < cells.numel()
    value = ZeroShot().step(ours, picture, valid)
    expected = loss_in_torch(theirs, picture, cells)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    for (_, grad), parameter in zip(ours.param(), theirs.parameters(), strict=True):
        assert parameter.grad is not None
        scale = parameter.grad.abs().max()
        assert (grad - parameter.grad).abs().max() <= 1e-12 * scale


def test_a_run_follows_torch_step_by_step() -> None:
    ours, theirs = in_torch(5, 1, torch.float32)
    picture = torch.from_numpy(noisy((32, 32))).float()[None, None]
    rule = optim.Adam(ours.parameters(), 1e-3)
    adam = torch.optim.Adam(theirs.parameters(), 1e-3)
    objective = ZeroShot()
    for _ in range(60):
        adam.zero_grad()
        expected = loss_in_torch(theirs, picture)
        expected.backward()
        adam.step()
        loss = objective.step(ours, picture)
        rule.step()
        rule.zero_grad()
        assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_an_exception_leaves_nothing_open() -> None:
    model = models.zero_shot(1, 4, seed=0)
    with pytest.raises(ValueError, match="even"):
        ZeroShot().step(model, torch.zeros(1, 1, 5, 4))
    with pytest.raises(ValueError, match="channels"):
        ZeroShot().step(model, torch.zeros(1, 3, 4, 4))
    with pytest.raises(RuntimeError):
        model.backward(torch.zeros(1, 1, 4, 4))


def test_nothing_valid_teaches_nothing() -> None:
    model = models.zero_shot(1, 4, seed=0)
    valid = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    assert ZeroShot().step(model, torch.rand(1, 1, 4, 4), valid) == 0
    assert all(not grad.any() for _, grad in model.param())


def test_most_of_the_noise_goes() -> None:
    clean, picture = noisy((96, 96), sigma=0), noisy((96, 96), sigma=0.1)
    denoised = zero_shot.denoise_pages(Picture.of(picture), recipe=LONGER).array
    before, after = (np.mean((a - clean) ** 2) for a in (picture, denoised))
    assert after < before / 4
    assert abs(denoised.mean() - picture.mean()) < 2e-3


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_same_seed_same_picture(recipe: str) -> None:
    short = zero_shot.RECIPES[recipe]._replace(steps=5)
    picture = Picture.of(noisy((40, 42)))
    first, again, other = (
        zero_shot.denoise_pages(picture, recipe=short, seed=seed).array for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 4095, np.uint16),  # twelve bits in a file of sixteen
        (0, 4095, ">u2"),
        (-500, 1e5, np.float32),
        (-500, 1e5, np.float64),
        (-500, 1e5, ">f4"),
        (0, 1e-6, np.float32),
        (0, 200, np.uint8),
        (-3000, 3000, np.int16),
    ],
)
def test_the_scale_of_a_picture_does_not_matter(low: float, high: float, dtype: Any) -> None:
    unit = noisy((64, 64), sigma=0.04)
    assert unit.min() > 0 and unit.max() < 1
    scaled = (low + (high - low) * unit).astype(dtype)
    denoised = zero_shot.denoise_pages(Picture.of(scaled), recipe=SHORT).array
    assert denoised.dtype == np.dtype(dtype)
    expected = zero_shot.denoise_pages(Picture.of(unit), recipe=SHORT).array
    found = (denoised.astype(float) - low) / (high - low)
    step = 1 / (high - low) if np.dtype(dtype).kind in "ui" else 0
    assert np.abs(found - expected).max() <= 1e-3 + 2 * step


def test_whole_numbers_are_clipped_to_their_dtype_alone() -> None:
    picture = np.zeros((48, 48), np.uint8)
    picture[:, 24:] = 255
    picture[::7, ::5] = 100
    denoised = zero_shot.denoise_pages(Picture.of(picture), recipe=SHORT).array
    assert denoised.dtype == np.uint8
    assert denoised[:, :20].mean() < 60 and denoised[:, 28:].mean() > 195


def test_pixels_that_are_no_numbers_stay_and_teach_nothing() -> None:
    picture = noisy((64, 64))
    holes = picture.copy()
    holes[5:9, 7:30] = np.nan
    holes[40, 41], holes[0, 0] = np.inf, -np.inf
    denoised = zero_shot.denoise_pages(Picture.of(holes), recipe=LONGER).array
    outside = np.isfinite(holes)
    np.testing.assert_array_equal(denoised[~outside], holes[~outside])
    whole = zero_shot.denoise_pages(Picture.of(picture), recipe=LONGER).array
    assert np.abs(denoised - whole)[outside].mean() < 0.02
    nothing = Picture.of(np.full((8, 8), np.nan))
    assert np.isnan(zero_shot.denoise_pages(nothing, recipe=SHORT).array).all()


@pytest.mark.parametrize("value", [np.uint8(7), np.uint16(65535), np.float32(-1.5)])
def test_a_constant_picture_stays(value: Any) -> None:
    picture = np.full((30, 30, 3), value)
    denoised = zero_shot.denoise_pages(Picture.of(picture), recipe=SHORT).array
    np.testing.assert_array_equal(denoised, picture)


def test_one_channel_of_a_large_picture_is_enough() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[..., 1] = np.random.default_rng(0).integers(0, 256, (60, 60))
    for most in (3000, 1200, 900, 600):
        low, high = levels([picture], most) or (0, 0)
        assert low == 0 and high > 200


def test_a_few_stars_in_the_dark_have_a_range() -> None:
    picture = np.zeros((64, 64), np.uint16)
    picture[30, 31] = 9000
    assert scale.percentiles(Picture.of(picture)) == (0, 9000)


def test_percentiles_are_those_of_the_colours() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 4), dtype=np.uint8)
    picture[..., 3] = 255
    expected = np.percentile(picture[..., :3], (0.1, 99.9))
    assert scale.percentiles(Picture.of(picture)) == tuple(expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 5), (33, 7), (65, 66, 3)])
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_any_size(size: tuple[int, ...], recipe: str) -> None:
    picture = np.random.default_rng(0).random(size)
    short = zero_shot.RECIPES[recipe]._replace(steps=2)
    denoised = zero_shot.denoise_pages(Picture.of(picture), recipe=short).array
    assert denoised.shape == size and np.isfinite(denoised).all()


def test_a_stack_shares_a_network_unless_told() -> None:
    pages = np.stack([noisy((32, 32), seed) for seed in range(3)])[..., None]
    told: list[tuple[int, int]] = []

    def note(record: Any) -> None:
        told.append((record["step"], record["steps"]))
        assert record["seconds_left"] >= 0

    shared = zero_shot.denoise_pages(Picture(pages), recipe=SHORT, progress=note)
    assert told == [(step, 10) for step in range(1, 11)]
    told.clear()
    alone = zero_shot.denoise_pages(Picture(pages), recipe=SHORT, per_page=True, progress=note)
    assert told == [(step, 30) for step in range(1, 31)]
    value_range = scale.percentiles(Picture(pages))
    for page, before in zip(alone.samples, pages, strict=True):
        expected = zero_shot.denoise_pages(
            Picture(before[None]), recipe=SHORT, value_range=value_range
        )
        np.testing.assert_array_equal(page, expected.samples[0])
    assert (shared.samples != alone.samples).any()


def test_strength() -> None:
    picture = Picture.of(noisy((32, 32)))
    none, half, full = (
        zero_shot.denoise_pages(picture, recipe=SHORT, strength=strength).array
        for strength in (0.0, 0.5, 1.0)
    )
    np.testing.assert_array_equal(none, picture.array)
    np.testing.assert_allclose(half, (picture.array + full) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="strength must be from 0 to 1, got 2"):
        zero_shot.denoise_pages(picture, recipe=SHORT, strength=2)


@pytest.mark.parametrize("size", [(70, 33), (64, 40, 3)])
def test_a_large_page_goes_band_by_band(
    size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = Picture.of(noisy(size))
    whole = zero_shot.denoise_pages(picture, recipe=SHORT._replace(turns=8)).array
    monkeypatch.setattr(tiles, "_BAND_PIXELS", 20 * size[1])
    banded = zero_shot.denoise_pages(picture, recipe=SHORT._replace(turns=8)).array
    np.testing.assert_allclose(banded, whole, rtol=0, atol=1e-6)


def test_small_pictures_take_fewer_steps() -> None:
    fast, paper = zero_shot.RECIPES["fast"], zero_shot.RECIPES["paper"]
    for pages, height, width, steps in (
        (1, 16, 16, 150),
        (1, 32, 32, 150),
        (4, 32, 32, 250),
        (1, 64, 64, 250),
        (1, 128, 128, 2000),
        (1, 64, 300, 2000),
        (3, 512, 512, 2000),
    ):
        picture = Picture(np.zeros((pages, height, width, 3), np.uint8))
        assert fast.suited(picture) == fast._replace(steps=steps)
        assert paper.suited(picture) == paper
        assert SHORT.suited(picture) == SHORT
    told: list[Any] = []
    zero_shot.fit(Picture.of(noisy((16, 16))), (0, 1), progress=told.append)
    assert len(told) == told[-1]["steps"] == 150


def test_what_is_refused() -> None:
    picture = Picture.of(noisy((8, 8)))
    with pytest.raises(ValueError, match="unknown recipe 'slow'; known are fast, paper"):
        zero_shot.denoise_pages(picture, recipe="slow")
    with pytest.raises(ValueError, match="two rising numbers"):
        zero_shot.denoise_pages(picture, recipe=SHORT, value_range=(1, 1))
