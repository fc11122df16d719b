"""The networks that ship: what they are, how well they know noise, what may come as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pydenoise import builtin, inference, nn, scale, tiles, zero_shot
from pydenoise.checkpoint import WeightsError, load_weights
from pydenoise.data import Picture, to_tensor
from pydenoise.ops import _library

each_network = pytest.mark.parametrize("channels", builtin.NETWORKS)


def squares(channels: int, sigma: float = 0.1) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Even squares of 12x12 pixels with noise, and without."""
    random = np.random.default_rng(0)
    clean = np.kron(random.uniform(0.2, 0.8, (8, 8, channels)), np.ones((12, 12, 1)))
    return clean + sigma * random.standard_normal(clean.shape), clean


def decibels(denoised: np.ndarray[Any, Any], clean: np.ndarray[Any, Any]) -> float:
    return float(-10 * np.log10(np.mean((denoised - clean) ** 2)))


def denoised(array: np.ndarray[Any, Any], **terms: Any) -> np.ndarray[Any, Any]:
    return builtin.denoise_pages(Picture.of(array), **terms).array


@each_network
def test_what_ships(channels: int) -> None:
    model, header = load_weights(builtin.NETWORKS[channels])
    assert header["architecture"]["name"] == "halved"
    assert header["architecture"]["channels"] == channels
    assert header["value_range"] == (0, 1)
    for word in ("bench/learn_builtin.py", "seed 0", "steps", "commit", "scikit-image"):
        assert word in header["trained_on"]
    assert {parameter.data.dtype for parameter in model.parameters()} == {torch.float32}
    assert builtin.NETWORKS[channels].stat().st_size < 1_000_000


@each_network
def test_noise_is_known_when_it_is_seen(channels: int) -> None:
    picture, clean = squares(channels)
    found = denoised(picture)
    assert decibels(found, clean) > decibels(picture, clean) + 7
    assert abs(found.mean() - picture.mean()) < 1e-3


def test_it_knows_more_than_one_picture_teaches() -> None:
    picture, clean = squares(1)
    recipe = zero_shot.RECIPES["fast"]._replace(steps=250)
    learned = zero_shot.denoise_pages(Picture.of(picture), recipe=recipe).array
    assert decibels(denoised(picture), clean) > decibels(learned, clean) + 1


def test_the_noise_is_the_mean_over_eight_ways_to_turn_the_page() -> None:
    picture = squares(1)[0][:60, :52]
    low, high = scale.percentiles(Picture.of(picture)) or (0, 0)
    network, page = load_weights(builtin.NETWORKS[1])[0], to_tensor(picture, (low, high))
    noise = torch.zeros_like(page)
    for quarters in range(4):
        turned = page.rot90(quarters, (2, 3)).contiguous()
        found = inference.apply(network, turned)
        mirrored = inference.apply(network, turned.flip(3)).flip(3)
        noise += (found + mirrored).rot90(-quarters, (2, 3))
    expected = (page - noise / 8)[0, 0].numpy() * (high - low) + low
    np.testing.assert_allclose(denoised(picture)[..., 0], expected, rtol=0, atol=1e-6)


@each_network
def test_as_a_model_of_its_own_it_gives_the_picture_too(channels: int) -> None:
    picture, clean = squares(channels)
    network = load_weights(builtin.NETWORKS[channels])[0]
    found = inference.denoise_picture(network, picture)
    assert decibels(found, clean) > decibels(picture, clean) + 7
    page = to_tensor(picture)
    expected = page - inference.apply(network, page)
    assert torch.equal(inference.denoise(network, page), expected)
    measures = inference.evaluate(network, page, to_tensor(clean))
    assert measures["psnr_global"] == pytest.approx(decibels(found, clean), abs=0.1)


@each_network
def test_one_to_learn_on_gives_the_picture_that_the_network_finds(channels: int) -> None:
    page = to_tensor(squares(channels)[0])
    model = builtin.trainable(channels)
    shipped, header = load_weights(builtin.NETWORKS[channels])
    with nn.no_backward():
        assert torch.equal(model(page), inference.denoise(shipped.eval(), page))
    assert model.training and not model.predicts_noise and model.size_multiple == 4
    assert model.origin == header["sha256"]
    for parameter in model.parameters():
        parameter.data.zero_()
    assert builtin.trainable(channels).branch[0].weight.any(), "each is a copy"


def test_of_other_channels_there_is_none_to_learn_on() -> None:
    with pytest.raises(ValueError, match="take gray and RGB, the pictures have 2 channels"):
        builtin.trainable(2)


def test_a_network_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Picture.of(squares(1)[0])
    network = builtin.network_for(picture)
    assert not network.training
    monkeypatch.setattr(builtin, "load_weights", None)
    assert builtin.network_for(picture) is network
    assert builtin.network_for(picture, "cpu") is network


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0, 4095, ">u2"), (-500, 1e5, np.float32), (0, 1e-6, np.float64)]
)
def test_the_scale_of_a_picture_does_not_matter(low: float, high: float, dtype: Any) -> None:
    unit = squares(1, sigma=0.04)[0]
    assert unit.min() > 0 and unit.max() < 1
    scaled = denoised((low + (high - low) * unit).astype(dtype))
    assert scaled.dtype == np.dtype(dtype)
    found = (scaled.astype(float) - low) / (high - low)
    step = 1 / (high - low) if np.dtype(dtype).kind == "u" else 0
    assert np.abs(found - denoised(unit)).max() <= 1e-4 + 2 * step


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 5), (33, 7), (65, 66, 3)])
def test_any_size(size: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).random(size)
    if size == (1, 1):
        with pytest.warns(UserWarning, match="no two different numbers"):
            np.testing.assert_array_equal(denoised(picture), picture)
    else:
        found = denoised(picture)
        assert found.shape == size and np.isfinite(found).all()


def test_alpha_and_pixels_that_are_no_numbers_stay() -> None:
    picture = np.concatenate([squares(3)[0], np.ones((96, 96, 1))], axis=2)
    holes = picture.copy()
    holes[5:9, 7:30, 0], holes[40, 41, 1], holes[0, 0, 2] = np.nan, np.inf, -np.inf
    holes[50, 50, 3] = 0.25
    found, whole = denoised(holes), denoised(picture)
    outside = np.isfinite(holes)
    np.testing.assert_array_equal(found[~outside], holes[~outside])
    np.testing.assert_array_equal(found[..., 3], holes[..., 3])
    assert np.abs(found - whole)[..., :3][60:].max() < 1e-2


@pytest.mark.parametrize("channels", [3, 4])
def test_gray_that_was_saved_as_colour_is_gray(channels: int) -> None:
    gray = squares(1)[0]
    gray[3, 4] = np.nan
    picture = np.repeat(gray, channels, axis=2)
    picture[..., 3:] = 0.5
    found = denoised(picture)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], denoised(gray)[..., 0])
    np.testing.assert_array_equal(found[..., 3:], picture[..., 3:])
    network = builtin.network_for(Picture.of(picture))
    assert network is builtin.network_for(Picture.of(gray))
    assert builtin.network_for(Picture.of(squares(3)[0])) is not network


@pytest.mark.parametrize("in_common", [0.5, 1])
def test_noise_that_channels_share_is_noise(in_common: float) -> None:
    """As in a camera's pictures."""
    picture, clean = squares(3)
    noise = picture - clean
    picture = picture + in_common * (noise.mean(axis=2, keepdims=True) - noise)
    assert decibels(denoised(picture), clean) > decibels(picture, clean) + 3.5


@pytest.mark.parametrize("value", [np.uint8(7), np.float32(-1.5), np.float64("nan")])
def test_a_constant_picture_stays(value: Any) -> None:
    picture = np.full((30, 30, 3), value)
    with pytest.warns(UserWarning, match="no two different numbers, so that no noise"):
        np.testing.assert_array_equal(denoised(picture), picture)


def test_pages_of_a_stack_share_their_scale() -> None:
    pages = np.stack([squares(1)[0], 3 * squares(1)[0] + 1])
    value_range = scale.percentiles(Picture(pages))
    found = builtin.denoise_pages(Picture(pages)).samples
    for before, page in zip(pages, found, strict=True):
        alone = builtin.denoise_pages(Picture(before[None]), value_range=value_range)
        np.testing.assert_array_equal(alone.samples[0], page)


def test_strength() -> None:
    picture = squares(1)[0]
    full = denoised(picture)
    np.testing.assert_array_equal(denoised(picture, strength=0), picture)
    half = denoised(picture, strength=0.5)
    np.testing.assert_allclose(half, (picture + full) / 2, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="strength must be from 0 to 1, got 2"):
        denoised(picture, strength=2)


def test_memory_may_be_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.tile(squares(3)[0][:, :40], (2, 1, 1))
    whole = denoised(picture)
    is_compiled = _library.kernels() is not None
    enough, off = (15 * 10**5, 0) if is_compiled else (10**7, 1e-6)
    found = denoised(picture, max_bytes=enough)
    np.testing.assert_allclose(found, whole, rtol=0, atol=off)
    with pytest.raises(ValueError, match="max_bytes=10 does not hold"):
        denoised(picture, max_bytes=10)
    monkeypatch.setattr(tiles, "_BAND_PIXELS", 20 * 40)
    np.testing.assert_allclose(denoised(picture), whole, rtol=0, atol=1e-6)


@each_network
@pytest.mark.parametrize("size", [(197, 41), (197, 40), (196, 41)])
def test_bands_come_out_as_the_whole_page_does(
    channels: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for rounding: Winograd's cells of a turned band begin elsewhere."""
    random = np.random.default_rng(0)
    picture = Picture.of(random.uniform(0, 1, (*size, channels)))
    whole = builtin.denoise_pages(picture).samples
    monkeypatch.setattr(tiles, "_BAND_PIXELS", 120 * size[1])
    assert len(list(tiles.bands(builtin.network_for(picture), size))) > 1
    np.testing.assert_allclose(builtin.denoise_pages(picture).samples, whole, rtol=0, atol=1e-6)


def test_other_channels_are_refused() -> None:
    picture = Picture(np.random.default_rng(0).random((1, 8, 8, 5)))
    with pytest.raises(ValueError, match=r"take gray and RGB, the picture has 5 channels; .*zero"):
        builtin.denoise_pages(picture)


def test_missing_weights_are_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builtin.NETWORKS, 1, tmp_path / "gray.safetensors")
    with pytest.raises(WeightsError, match=r"gray.* is missing; install.*again, or.* zero-shot"):
        denoised(squares(1)[0])
    (tmp_path / "gray.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"gray.* is damaged; install.*again, or.* zero-shot"):
        denoised(squares(1)[0])
