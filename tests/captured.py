"""Noisy captures of a scene, for the tests of what is learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from pydenoise.data.captures import Scene


def scene(height: int = 128, width: int = 160, channels: int = 1) -> np.ndarray:
    """A clean picture around 100 with the spectrum of a photograph: amplitudes fall with 1 / f."""
    noise = np.random.default_rng(42).normal(size=(height, width, channels))
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    amplitudes = 1 / np.maximum(np.hypot(rows, columns), 0.01)[..., None]
    picture = np.fft.irfft2(np.fft.rfft2(noise, axes=(0, 1)) * amplitudes, (height, width), (0, 1))
    return 100 + 25 * (picture - picture.mean()) / picture.std()


def capture(clean: np.ndarray, seed: int, sigma: float = 10) -> np.ndarray:
    return clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)


def bytes_of(picture: np.ndarray) -> np.ndarray:
    return picture.round().clip(0, 255).astype(np.uint8)


def captures(count: int, channels: int = 1, first: int = 0) -> list[np.ndarray]:
    clean = scene(channels=channels)
    return [bytes_of(capture(clean, first + seed)) for seed in range(count)]


def named(pictures: list[np.ndarray], name: str = "scene") -> Scene:
    return Scene(pictures, [f"{name}-{number}" for number in range(len(pictures))])


def save_stack(path: Path, pages: list[np.ndarray]) -> None:
    tifffile.imwrite(path, np.stack(pages)[..., 0], photometric="minisblack")
