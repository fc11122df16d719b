"""The denoisers to compare with: what they are told, what they choose, and that they denoise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from skimage.restoration import denoise_nl_means
from terminal import picture

from pydenoise import classic

METHODS = [classic.nonlocal_means, classic.wavelet, classic.total_variation]
SIGMA = 25 / 255


def clean(layers: int) -> np.ndarray:
    made = picture(3, 64, 80, layers).astype(np.float32) / 255
    return made[..., 0] if layers == 1 else made


def noisy(layers: int, sigma: float = SIGMA) -> np.ndarray:
    rng = np.random.default_rng(0)
    return clean(layers) + rng.normal(0, sigma, clean(layers).shape).astype(np.float32)


def error(found: np.ndarray) -> float:
    return float(np.square(found - clean(1 if found.ndim == 2 else found.shape[2])).mean())


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_noise_goes(method: Callable[..., np.ndarray], layers: int) -> None:
    before = noisy(layers)
    given = before.copy()
    found = method(given)
    assert error(found) < 0.5 * error(before)
    assert (found.shape, found.dtype) == (before.shape, before.dtype)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("method", METHODS)
def test_colours_are_no_third_direction(method: Callable[..., np.ndarray]) -> None:
    """Equal channels come out equal: the planes are not smoothed into each other's neighbours."""
    found = method(np.repeat(noisy(1)[..., None], 3, axis=2))
    np.testing.assert_allclose(found, found[..., :1].repeat(3, axis=2), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_parameters_follow_the_noise(method: Callable[..., np.ndarray]) -> None:
    """Nobody says how strong the noise is, and at three strengths most of it goes."""
    for sigma in (10 / 255, 25 / 255, 50 / 255):
        assert error(method(noisy(1, sigma))) < 0.55 * error(noisy(1, sigma)), sigma


def test_the_calibrated_choice_is_near_the_oracles() -> None:
    before = noisy(1)
    best = classic.nonlocal_means(before, classic.best_h(before, clean(1)))
    assert error(best) <= error(classic.nonlocal_means(before)) < 1.2 * error(best)


def test_best_h_is_the_best_of_those_tried() -> None:
    before, level = noisy(3), classic.noise_level(noisy(3))
    best = classic.best_h(before, clean(3))
    found = {
        multiple: error(classic.nonlocal_means(before, multiple * level).clip(0, 1))
        for multiple in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
    }
    assert best == pytest.approx(min(found, key=found.__getitem__) * level)


def test_a_given_h_is_taken() -> None:
    before = noisy(1)
    expected = denoise_nl_means(
        before, patch_size=5, patch_distance=6, h=0.1, sigma=classic.noise_level(before)
    )
    np.testing.assert_array_equal(classic.nonlocal_means(before, 0.1), expected)


def test_the_noise_level_is_that_of_the_noise() -> None:
    flat = np.random.default_rng(1).normal(0.5, SIGMA, (128, 128, 3))
    assert classic.noise_level(flat) == pytest.approx(SIGMA, rel=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_a_picture_without_noise_stays(method: Callable[..., np.ndarray]) -> None:
    for value in (0, 0.25):
        flat = np.full((32, 32), value, np.float32)
        found = method(flat)
        np.testing.assert_array_equal(found, flat)
        assert found is not flat
        assert classic.best_h(flat, flat) == 0
        np.testing.assert_array_equal(classic.nonlocal_means(flat, 0), flat)


def test_bm3d_is_called_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("bm3d")
    told = []

    def gray(z: np.ndarray, sigma: float) -> np.ndarray:
        told.append(("gray", z.shape, sigma))
        return z.astype(np.float64)[..., None]

    def colour(z: np.ndarray, sigma: float) -> np.ndarray:
        told.append(("colour", z.shape, sigma))
        return z.astype(np.float64)

    package.bm3d, package.bm3d_rgb = gray, colour
    monkeypatch.setitem(sys.modules, "bm3d", package)
    for before in (noisy(1), noisy(3)):
        found = classic.bm3d(before)
        assert (found.shape, found.dtype) == (before.shape, np.float32)
    assert [call[:2] for call in told] == [("gray", (64, 80)), ("colour", (64, 80, 3))]
    assert all(call[2] == pytest.approx(SIGMA, rel=0.2) for call in told)
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ModuleNotFoundError):
        classic.bm3d(noisy(1))


@pytest.mark.parametrize("method", [*METHODS, classic.bm3d, classic.noise_level])
def test_what_is_refused(method: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", ModuleType("bm3d"))
    with pytest.raises(TypeError, match=r"floating point on 0\.\.1, got uint8"):
        method(np.zeros((8, 8), np.uint8))
    for size in ((8,), (1, 8, 8, 3), (0, 8)):
        with pytest.raises(ValueError, match=r"must be \(H, W\) or \(H, W, C\), got \("):
            method(np.zeros(size))
