"""Pixels that are no numbers, or far outside the range: found, left out, and left alone."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

import pydenoise
from pydenoise import models, scale
from pydenoise.data import Picture
from pydenoise.data.gaps import filled, valid_pixels

SIDE = 64
HOT = [(0, 0), (0, 37), (31, 63), (50, 50), (50, 51), (40, 3)]


def scene(dtype: Any = np.float64) -> tuple[NDArray[Any], NDArray[Any]]:
    """A noisy picture and the clean one, numbers from about 0 to 4000."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    clean = 2000 + 1500 * np.sin(7 * x) * np.cos(5 * y)
    noisy = clean + np.random.default_rng(0).normal(0, 150, clean.shape)
    return noisy.clip(0).round().astype(dtype), clean


def with_hot_pixels(noisy: NDArray[Any], value: float) -> NDArray[Any]:
    spoilt = noisy.copy()
    for place in HOT:
        spoilt[place] = value
    return spoilt


def hot(noisy: NDArray[Any]) -> NDArray[np.bool_]:
    mask = np.zeros(noisy.shape, bool)
    mask[tuple(np.transpose(HOT))] = True
    return mask


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("method", ["builtin", "model"])
def test_hot_pixels_stay_and_spoil_nothing_around(dtype: Any, method: str) -> None:
    noisy, _ = scene(dtype)
    spoilt, places = with_hot_pixels(noisy, 60_000), hot(noisy)
    plain = filled(spoilt[..., None], ~places)[..., 0]
    options: dict[str, Any] = {"value_range": (0, 4000)}
    if method == "model":
        options["model"] = models.autoencoder((4, 8), in_channels=1, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = pydenoise.denoise(plain, **options)
    with pytest.warns(UserWarning, match="^6 pixels lie outside the range of 0 to 4000 by more"):
        denoised = pydenoise.denoise(spoilt, **options)
    assert (denoised[places] == 60_000).all()
    assert (denoised[~places] == expected[~places]).all()


@pytest.mark.parametrize("method", ["builtin", "zero-shot"])
def test_hot_pixels_set_no_scale_and_teach_nothing(method: str) -> None:
    noisy, clean = scene(np.uint16)
    spoilt, rest = with_hot_pixels(noisy, 60_000), ~hot(noisy)
    without = pydenoise.denoise(noisy, method=method)
    with pytest.warns(UserWarning, match="^6 pixels lie outside the range of .* as hot ones do"):
        denoised = pydenoise.denoise(spoilt, method=method)
    before, best, found = (
        np.mean((each[rest] - clean[rest]) ** 2) for each in (noisy, without, denoised)
    )
    assert found < before / 3
    assert found < 1.1 * best


def test_more_hot_pixels_than_the_percentiles_leave_out_set_no_scale_either() -> None:
    random = np.random.default_rng(5)
    noisy, _ = scene(np.uint16)
    spoilt = np.tile(noisy, (3, 3))
    plain = scale.percentiles(Picture.of(spoilt)) or (0, 0)
    spoilt[random.random(spoilt.shape) < 0.004] = 65_000
    low, high = scale.percentiles(Picture.of(spoilt)) or (0, 0)
    assert low == pytest.approx(plain[0], abs=20)
    assert high == pytest.approx(plain[1], abs=20)


def bright_object(random: np.random.Generator) -> NDArray[Any]:
    clean = np.full((256, 256), 100.0)
    clean[100:131, 100:131] = 10_000
    return random.poisson(clean) + random.normal(0, 2, clean.shape)


def windows_at_night(random: np.random.Generator) -> NDArray[Any]:
    clean = np.ones((256, 256))
    for row in range(20, 240, 60):
        for column in range(20, 240, 60):
            clean[row : row + 8, column : column + 7] = 180
    noise = np.where(clean > 50, 15, 1) * random.normal(0, 1, clean.shape)
    return (clean + noise).clip(0, 255).astype(np.uint8)


def single_photons(random: np.random.Generator) -> NDArray[Any]:
    return random.poisson(0.012, (256, 256)) * 300 + random.normal(100, 1, (256, 256))


def thin_lines(random: np.random.Generator) -> NDArray[Any]:
    page = np.full((256, 256), 240.0)
    page[20::64] = 40
    return (page + random.normal(0, 4, page.shape)).clip(0, 255).astype(np.uint8)


def one_page_in_a_flash(random: np.random.Generator) -> NDArray[Any]:
    pages = np.full((60, 64, 64), 100.0)
    pages[30] = 5000
    return pages + np.where(pages > 1000, 100, 2) * random.normal(0, 1, pages.shape)


@pytest.mark.parametrize(
    "draw", [bright_object, windows_at_night, single_photons, thin_lines, one_page_in_a_flash]
)
def test_what_is_rare_and_bright_belongs_to_the_picture(draw: Any) -> None:
    array = draw(np.random.default_rng(0))
    pages = array[:, :, :, None] if array.ndim == 3 else array[None, :, :, None]
    found = scale.percentiles(Picture(pages))
    assert found == tuple(np.percentile(array, (0.1, 99.9)))
    assert all(valid_pixels(page, found) is None for page in pages)


@pytest.mark.parametrize("noise", ["poisson", "exponential", "gaussian", "salt"])
def test_noise_of_every_kind_belongs_to_the_picture(noise: str) -> None:
    random = np.random.default_rng(1)
    shape = 1, 512, 512, 1
    pages = {
        "poisson": lambda: random.poisson(0.4, shape),
        "exponential": lambda: random.exponential(50, shape),
        "gaussian": lambda: random.normal(0, 1, shape),
        "salt": lambda: random.choice([0, 255], shape).astype(np.uint8),
    }[noise]()
    found = scale.percentiles(Picture(pages))
    assert found == tuple(np.percentile(pages, (0.1, 99.9)))
    assert valid_pixels(pages[0], found) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f4", np.float64, np.longdouble])
def test_pixels_of_any_channel_that_are_no_numbers_or_far_out(dtype: Any) -> None:
    largest = float(np.finfo(dtype).max)
    page = scene()[0][:, :, None].repeat(3, 2).astype(dtype)
    for channel, value in enumerate((np.nan, -np.inf, np.inf)):
        page[5, channel, channel] = value
    page[40, 50, 2] = -largest
    page[41, 50, 0] = largest
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        valid = valid_pixels(page, (0, 4000))
        nothing_known = valid_pixels(page[:3], (0, 4000))
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[5, 0], [5, 1], [5, 2], [40, 50], [41, 50]]
    assert nothing_known is None
    assert valid_pixels(np.full((2, 3, 1), np.nan, dtype), (0, 1)).any() == 0  # type: ignore[union-attr]


def test_without_a_range_floating_point_is_on_the_scale_of_0_to_1() -> None:
    page = np.random.default_rng(0).random((8, 8, 1))
    assert valid_pixels(page) is None
    page[3, 4] = 4.1
    valid = valid_pixels(page)
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[3, 4]]
    assert valid_pixels(np.full((8, 8, 1), 65_535, np.uint16)) is None


def test_pages_of_one_value_and_a_few_others() -> None:
    pages = np.zeros((1, 64, 64, 1), np.uint16)
    pages[0, 30, 31] = 9000
    assert scale.percentiles(Picture(pages)) == (0, 9000), "nobody knows how far is far"


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.999))
def test_gaps_are_filled_with_what_is_nearest(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 24, 2)
    page = random.random((height, width, 2))
    valid = random.random((height, width)) > share
    result = filled(page, valid)
    if not valid.any():
        assert not result.any()
        return
    assert (result[valid] == page[valid]).all()
    distances = distance_transform_edt(~valid)
    rows, columns = np.nonzero(valid)
    for row, column in np.argwhere(~valid):
        away = np.hypot(rows - row, columns - column)
        nearest = np.isclose(away, distances[row, column])
        candidates = page[rows[nearest], columns[nearest]]
        assert (candidates == result[row, column]).all(axis=1).any()


def test_few_gaps_of_a_large_page_take_no_more_memory_than_the_page() -> None:
    page = np.zeros((2000, 2000, 1), np.uint16)
    valid = np.ones((2000, 2000), bool)
    valid[::100, ::100] = False
    tracemalloc.start()
    filled(page, valid)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < page.nbytes + 2 * valid.nbytes
