"""Folders of pictures to learn from: every depth, of one kind, and the range of their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from captured import bytes_of, save_stack, scene

from pydenoise.data import (
    ImageError,
    PairsError,
    SingleCrops,
    on_scale,
    read_folder,
    value_range,
    write,
)


def test_a_folder_of_one_kind_is_read_and_the_rest_listed(tmp_path: Path) -> None:
    gray = (scene(40, 50) * 40).astype(np.uint16)
    write(tmp_path / "a.png", gray)
    save_stack(tmp_path / "b.tif", [gray, gray + 1])
    np.save(tmp_path / "c.npy", gray[..., 0] + 2)
    write(tmp_path / "d.png", bytes_of(scene(40, 50)))
    (tmp_path / "e.png").write_bytes(b"GIF89a")
    np.save(tmp_path / "f.npy", np.full((40, 50), np.nan))
    (tmp_path / "g.txt").write_text("words")
    pictures, paths, skipped = read_folder(tmp_path)
    assert {picture.dtype for picture in pictures} == {np.dtype(np.uint16)}
    assert [path.name for path in paths] == ["a.png", "b.tif", "b.tif", "c.npy"]
    assert [path.name for path in skipped] == ["d.png", "e.png", "f.npy", "g.txt"]
    reasons = dict(zip("defg", skipped.values(), strict=True))
    assert reasons["d"] == f"{tmp_path / 'd.png'}: holds uint8; most files there hold uint16"
    assert "e.png: is a GIF; expected a whole picture file" in reasons["e"]
    assert "f.npy: holds NaN or infinity" in reasons["f"]
    assert not reasons["g"], "no picture"
    np.testing.assert_array_equal(pictures[2], gray + 1)
    for path in tmp_path.iterdir():
        if path.name != "e.png":
            path.unlink()
    with pytest.raises(ImageError, match=r"e.png: is a GIF; expected a whole picture file"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "top", "expected"),
    [
        ("uint8", 90, None),
        ("uint16", 60000, None),
        ("uint16", 4000, (4, 3996)),
        ("int16", 30000, (30, 29970)),
        ("float32", 1e5, (1e2, 99900)),
        ("float64", 1, (1e-3, 0.999)),
    ],
)
def test_the_range_of_values_is_the_dtypes_or_that_of_the_numbers(
    dtype: str, top: float, expected: tuple[float, float] | None
) -> None:
    ramp = np.linspace(0, top, 10**5).astype(dtype).reshape(100, 100, 10)
    bounds = value_range([ramp[..., :5], ramp[..., 5:]])
    scaled = on_scale([ramp], bounds)[0].astype(float)
    if expected is None:
        assert bounds is None
        assert scaled.max() == pytest.approx(top if dtype == "uint8" else top / 65535)
    else:
        assert bounds == pytest.approx(expected, rel=1e-3, abs=1 if dtype[0] != "f" else 1e-6)
        assert [scaled.min(), scaled.max()] == pytest.approx([-0.001, 1.001], abs=3e-4)


def test_half_precision_is_no_precision_to_compute_in() -> None:
    ramp = np.linspace(-60000, 60000, 10**4).astype(np.float16).reshape(100, 100, 1)
    (scaled,) = on_scale([ramp], (-60000, 60000))
    np.testing.assert_allclose(scaled, ramp.astype(float) / 120000 + 0.5, rtol=0, atol=1e-7)


def test_constant_numbers_have_no_range() -> None:
    with pytest.raises(PairsError, match=r"x\.npy: nearly all numbers are 7; expected pictures"):
        value_range([np.full((8, 8), 7.0)], "x.npy")


def test_single_crops_are_twice_the_same_place() -> None:
    picture = np.arange(40 * 50, dtype=np.float32).reshape(40, 50, 1)
    source, target = SingleCrops([picture], 16, length=50).batch(np.arange(50), 0)
    assert torch.equal(source, target)
    corners = source[:, 0, 0, 0]
    assert torch.equal(source[:, 0, 15, 15], corners + 15 * 50 + 15)
    assert len(corners.unique()) > 40
