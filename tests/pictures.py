"""Pictures for the tests of `pydenoise.data`, and what a refusal must look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pydenoise.data import ImageError, read


def random_picture(layers: int | None = 3, height: int = 13, width: int = 17) -> np.ndarray:
    shape = (height, width) if layers is None else (height, width, layers)
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def smooth_picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 3 * y, 60 + x + y], axis=2).astype(np.uint8)


def one_line(caught: pytest.ExceptionInfo[ImageError], path: Path) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def read_or_refuse(path: Path, max_pixels: int = 2**16) -> np.ndarray | None:
    """The picture, or None for a file that is refused as it should be."""
    refusal = ""
    try:
        return read(path, max_pixels=max_pixels)
    except ImageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert str(path) in refusal
    return None
