"""Pixels that are no numbers, or say nothing of the picture: found, left out, and left alone."""

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
from pydenoise import models
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
    with pytest.warns(UserWarning, match="as hot and dead ones do: 6; they are left as they are"):
        denoised = pydenoise.denoise(spoilt, **options)
    assert (denoised[places] == 60_000).all()
    assert (denoised[~places] == expected[~places]).all()


@pytest.mark.parametrize("method", ["builtin", "zero-shot"])
def test_hot_pixels_set_no_scale_and_teach_nothing(method: str) -> None:
    noisy, clean = scene(np.uint16)
    spoilt, rest = with_hot_pixels(noisy, 60_000), ~hot(noisy)
    without = pydenoise.denoise(noisy, method=method)
    with pytest.warns(UserWarning, match="hot and dead"):
        denoised = pydenoise.denoise(spoilt, method=method)
    before, best, found = (
        np.mean((each[rest] - clean[rest]) ** 2) for each in (noisy, without, denoised)
    )
    assert found < before / 3
    assert found < 1.1 * best


def test_dead_pixels_and_those_of_one_channel() -> None:
    pages = np.stack([scene()[0]] * 2)[..., None].repeat(3, 3)
    pages[1, 40, 50, 2] = -200_000
    valid = valid_pixels(pages)
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[1, 40, 50]]
    pages[0, 3, 4, 0] = np.nan
    pages[0, 5, 6, 1] = -np.inf
    valid = valid_pixels(pages)
    assert valid is not None
    assert np.argwhere(~valid).tolist() == [[0, 3, 4], [0, 5, 6], [1, 40, 50]]


def test_what_is_bright_and_no_pixel_alone_belongs_to_the_picture() -> None:
    noisy, _ = scene(np.uint16)
    for size in (3, 5):
        star = noisy.copy()
        star[30 : 30 + size, 40 : 40 + size] = 65_000
        found = valid_pixels(star[None, :, :, None])
        assert found is not None
        last = 29 + size
        corners = [[0, 30, 40], [0, 30, 40 + size - 1], [0, last, 40], [0, last, 40 + size - 1]]
        assert np.argwhere(~found).tolist() == corners, "which have five of eight in the dark"


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
    assert valid_pixels(pages) is None


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 9, 3), (2, 9, 1, 1), (1, 2, 2, 1)])
def test_small_pages(shape: tuple[int, ...]) -> None:
    pages = np.random.default_rng(0).normal(0, 1, shape)
    assert valid_pixels(pages) is None
    pages[...] = np.nan
    valid = valid_pixels(pages)
    assert valid is not None
    assert not valid.any()


def test_pages_of_one_value_and_a_few_others() -> None:
    pages = np.zeros((1, 64, 64, 1), np.uint16)
    pages[0, 30, 31] = 9000
    assert valid_pixels(pages) is None, "nobody knows how far is far"


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
