"""The measures of a noisy picture against noise whose level, correlation and clipping are known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from scipy.signal import correlate2d

from pydenoise.data import read, sample_photographs
from pydenoise.diagnosis import diagnose


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e36, 1e306])
def test_numbers_that_cannot_be_squared_are_left_out(unit: float) -> None:
    picture = np.random.default_rng(0).normal(100, 10, (64, 64))
    huge = picture * unit
    found = diagnose(huge, huge).noise
    assert (found is None) if unit > 1e100 else (found == pytest.approx(10 * unit, rel=0.1))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SMOOTHED = np.ones((3, 3, 1)) / 3  # keeps the level of white noise


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return [picture[:256, :256] for picture in sample_photographs().values()]


def rounded(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def white_noise(photographs: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Noise that is independent from pixel to pixel, in the levels of an 8-bit file."""
    for index, picture in enumerate(photographs):
        rng = np.random.default_rng(index)
        for sigma in (5, 10, 25, 50):
            yield rounded(picture + rng.normal(0, sigma, picture.shape))
        for count in (30, 255):
            yield rounded(rng.poisson(picture / 255 * count) * 255 / count)


def demosaiced(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """One noisy colour a pixel, on the grid of a camera, the others the mean of neighbours."""
    noisy = picture + rng.normal(0, sigma, picture.shape)
    y, x = np.indices(picture.shape[:2]) % 2
    seen = np.stack([(y == 0) & (x == 0), y != x, (y == 1) & (x == 1)], axis=2)
    corners = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])
    cross = np.array([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]])
    planes = [
        convolve(noisy[..., colour] * seen[..., colour], cross if colour == 1 else corners)
        for colour in range(3)
    ]
    return rounded(np.stack(planes, axis=2))


def as_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def correlated_noise(photographs: list[np.ndarray]) -> Iterator[np.ndarray]:
    for index, picture in enumerate(photographs):
        rng = np.random.default_rng(index)
        noise = rng.normal(0, 10, picture.shape)
        yield rounded(picture + convolve(noise, SMOOTHED))
        yield demosaiced(picture, 10, rng)
        yield as_jpeg(rounded(picture + noise), 75)


# --- correlation --------------------------------------------------------------------------------


def test_white_noise_is_not_called_correlated(photographs: list[np.ndarray]) -> None:
    called = [diagnose(picture).is_correlated for picture in white_noise(photographs)]
    assert len(called) == 48
    assert sum(called) <= 0.05 * len(called)


def test_correlated_noise_is_called_so(photographs: list[np.ndarray]) -> None:
    called = [diagnose(picture).is_correlated for picture in correlated_noise(photographs)]
    assert len(called) == 24
    assert sum(called) >= 0.95 * len(called)


def test_the_correlation_is_the_one_of_the_spectrum() -> None:
    """Against the fast part of every block, as a residual in the pixels' own place."""
    rng = np.random.default_rng(3)
    noise = convolve(rng.normal(0, 10, (800, 800)), np.array([[0.3, 1, 0.3]]))
    for picture, expected in ((noise, (1, 0)), (noise.T, (0, 1))):
        correlation = diagnose(picture).noise_correlation
        assert correlation is not None
        beyond = [fast_correlation(picture, axis) for axis in (1, 0)]
        assert correlation == pytest.approx(beyond, abs=0.04)
        assert [value > 0.1 for value in correlation] == [bool(sign) for sign in expected]


def fast_correlation(picture: np.ndarray, axis: int) -> float:
    """Lag-1 correlation of blocks without their slow waves, beyond that of white noise."""
    from scipy.fft import dctn, idctn

    def within(blocks: np.ndarray) -> float:
        spectra = dctn(blocks, axes=(1, 2), norm="ortho")
        spectra[:, np.add.outer(np.arange(8), np.arange(8)) < 5] = 0
        fast = np.moveaxis(idctn(spectra, axes=(1, 2), norm="ortho"), 1 + axis, -1)
        return float((fast[..., 1:] * fast[..., :-1]).sum() / (fast**2).sum())

    white = np.random.default_rng(0).normal(size=picture.shape)
    windows = [
        np.lib.stride_tricks.sliding_window_view(image, (8, 8))[::5, ::5].reshape(-1, 8, 8)
        for image in (picture, white)
    ]
    return within(windows[0]) - within(windows[1])


def test_texture_does_not_count() -> None:
    """White noise, but most of the picture is texture and edges, which no noise has made."""
    rng = np.random.default_rng(4)
    picture = gaussian_filter(rng.normal(0, 400, (256, 256)), 1.5) + 120
    picture[:, 192:] = 60 + 90 * (np.indices((256, 64)).sum(axis=0) // 7 % 2)
    picture[:80, :80] = np.linspace(100, 140, 80)
    assert not diagnose(rounded(picture + rng.normal(0, 8, picture.shape))).is_correlated


def test_a_fine_pattern_that_was_taken_out_is_warned_of() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 2, (60, 60))
    scene = np.full((60, 60), 120.0)
    assert not diagnose(scene + noise, scene).is_pattern
    for pattern in (np.indices((60, 60)).sum(axis=0) % 2, np.indices((60, 60))[0] % 2):
        measured = diagnose(scene + 40 * pattern + noise, scene)
        assert measured.is_pattern
        assert any("alternates from pixel to pixel" in each for each in measured.warnings)


def test_what_was_removed_is_correlated_as_defined() -> None:
    rng = np.random.default_rng(5)
    removed = convolve(rng.normal(0, 5, (40, 50)), np.array([[0, 0, 0], [1, 1, 0], [0, 0.2, 0]]))
    clean = rng.normal(100, 30, (40, 50))
    measured = diagnose(clean + removed, clean).removed_correlation
    centred = removed - removed.mean()
    whole = correlate2d(centred, centred)
    at = np.array(whole.shape) // 2
    expected = whole[at[0], at[1] + 1] / whole.max(), whole[at[0] + 1, at[1]] / whole.max()
    pairs = (40 * 50 / (40 * 49), 40 * 50 / (39 * 50))
    assert measured == pytest.approx(np.multiply(expected, pairs))
    assert diagnose(clean, clean).removed_correlation is None
    assert diagnose(clean).removed_correlation is None


# --- level and clipping -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.dtype(">u2")])
def test_levels_before_and_after(dtype: np.dtype) -> None:
    rng = np.random.default_rng(6)
    clean = np.tile(np.linspace(80, 180, 200), (200, 1))[..., None].repeat(3, axis=2)
    scale = 1 if dtype == np.uint8 else 16
    noisy, better = (
        ((clean + rng.normal(0, sigma, clean.shape)) * scale).astype(dtype) for sigma in (12, 3)
    )
    found = diagnose(noisy, better)
    assert found.noise == pytest.approx(12 * scale, rel=0.03)
    assert found.noise_left == pytest.approx(3 * scale, rel=0.03)
    spread = 255 if dtype == np.uint8 else np.subtract(*np.percentile(noisy, (99.9, 0.1)))
    assert found.noise_255 == pytest.approx(found.noise * 255 / spread)
    assert found.noise_left_255 == pytest.approx(found.noise_left * 255 / spread)


def test_clipped_is_a_plateau_at_an_end() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 20, (100, 100))
    cut = np.clip(noise, -30, 25)
    share = ((noise <= -30) | (noise >= 25)).mean()
    found = diagnose(cut)
    assert found.clipped == pytest.approx(share)
    assert found.is_clipped
    assert f"{share:.1%} of the values are cut off" in found.warnings[0]
    assert diagnose(rounded(noise / 4 + 100)).clipped == 0, "few levels, none of them a plateau"
    assert diagnose(rng.poisson(0.8, (100, 100))).clipped == 0, "counts have many zeros"
    calm = np.clip(np.add.outer(np.arange(100), np.arange(100)) + noise / 40, 30, 150)
    assert diagnose(calm).clipped > 0.05
    assert not diagnose(calm).warnings, "noise too weak to be missed where it is cut off"


def test_warnings_name_the_cure() -> None:
    noise = np.random.default_rng(8).normal(100, 10, (100, 100, 1))
    assert not diagnose(noise).warnings
    (warning,) = diagnose(convolve(noise, SMOOTHED)).warnings
    for words in ("JPEG", "--shrink 2", "--pairs"):
        assert words in warning
    assert "\n" not in warning


# --- pictures that allow less -------------------------------------------------------------------


def test_lost_pixels_are_left_out() -> None:
    noise = np.random.default_rng(9).normal(100, 10, (200, 200))
    holes = noise.copy()
    holes[:40, :40] = np.nan
    holes[150, 20:90] = np.inf
    whole, left = diagnose(noise, noise * 0.5), diagnose(holes, holes * 0.5)
    assert left.noise == pytest.approx(whole.noise, rel=0.1)
    assert left.noise_correlation == pytest.approx(whole.noise_correlation, abs=0.05)
    assert left.removed_correlation == pytest.approx(whole.removed_correlation, abs=0.05)
    lost = diagnose(np.full((50, 50), np.nan), np.zeros((50, 50)))
    assert (lost.noise, lost.noise_correlation, lost.removed_correlation) == (None, None, None)
    assert diagnose(np.zeros((50, 50))).noise == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (7, 9), (30, 30, 3), (2, 2, 1)])
def test_small_and_constant_pictures_have_no_correlation(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(10).normal(100, 10, shape)
    for picture in (noise, np.full(shape, 7, np.uint8), np.full((99, 99), 3.5)):
        found = diagnose(picture, picture)
        assert found.noise_correlation is None
        assert found.clipped == 0
        assert not found.is_correlated
        json.dumps(asdict(found), allow_nan=False)


def test_large_pictures_are_measured_in_the_middle() -> None:
    wide = np.zeros((1100, 1300), np.uint8)
    wide[38:1062, 138:1162] = np.random.default_rng(11).integers(90, 110, (1024, 1024))
    assert diagnose(wide) == diagnose(wide[38:1062, 138:1162])


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"noisy has shape \(4, 4\), denoised \(4, 5\)"):
        diagnose(np.ones((4, 4)), np.ones((4, 5)))
    for shape in ((4,), (2, 3, 4, 5), (0, 4)):
        with pytest.raises(ValueError, match=r"expected \(H, W\) or \(H, W, C\)"):
            diagnose(np.ones(shape))


# --- real noise, where it is at hand -------------------------------------------------------------


@pytest.mark.skipif(not SHARED.exists(), reason="no captures with real noise on this machine")
def test_cameras_are_called_correlated_and_microscopes_are_not() -> None:
    compact = sorted((SHARED / "S95-repeated").rglob("*.png"))
    reflex = sorted((SHARED / "PolyU-cropped").glob("*_real.JPG"))[::5]
    microscope = sorted((SHARED / "W2S-8bit" / "avg1").glob("*.tif"))
    called = [
        np.mean([diagnose(read(path)).is_correlated for path in paths])
        for paths in (compact, reflex, microscope)
    ]
    assert called[0] == 1
    assert called[1] >= 0.95
    assert called[2] == 0
