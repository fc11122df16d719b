"""Sets drawn once: point-sampled pairs, validation, whole noisy pictures, sample photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pydenoise.data import (
    ImageError,
    PairsError,
    noisy_pictures,
    parse,
    point_sampled_pairs,
    point_sampled_validation,
    sample_photographs,
    validation_crops,
)
from pydenoise.data.photographs import FILES


def pictures(count: int = 3, height: int = 70, width: int = 90) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def test_point_sampled_pairs_are_a_function_of_the_seed() -> None:
    first, second = point_sampled_pairs(pictures(), block=4, count=30, crop=16, seed=5)
    again = point_sampled_pairs(pictures(), block=4, count=10, crop=16, seed=5)
    other = point_sampled_pairs(pictures(), block=4, count=30, crop=16, seed=6)
    assert first.shape == second.shape == (30, 3, 16, 16)
    assert first.dtype == second.dtype == torch.uint8
    assert torch.equal(first[:10], again[0])
    assert torch.equal(second[:10], again[1])
    assert not torch.equal(first, other[0])
    assert not torch.equal(first, second)


def test_both_pictures_of_a_pair_show_one_place() -> None:
    y, x = np.mgrid[:64, :64]
    ramp = np.stack([4 * x, 4 * y, x + y], axis=2).astype(np.uint8)
    first, second = (t.int() for t in point_sampled_pairs([ramp], 4, 40, crop=8))
    assert (first - second).abs().max() <= 2 * 3 * 4
    assert (first - second).float().mean().abs() < 0.2
    colours = (first[:, 0] + first[:, 1]) / 4
    assert torch.equal(colours.int(), first[:, 2])  # all channels from the same pixel


def test_draws_differ_from_those_of_validation_under_the_same_seed() -> None:
    first, _ = point_sampled_pairs(pictures(1), 4, 20, crop=16, seed=0)
    noisy, _ = point_sampled_validation(pictures(1), 4, 20, crop=16, seed=0)
    assert not (first == noisy).flatten(1).all(dim=1).any()


def test_the_clean_picture_is_what_the_noise_averages_to() -> None:
    gray = [np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)]
    noisy, clean = point_sampled_validation(gray, 8, 400, crop=8)
    assert noisy.shape == clean.shape == (400, 1, 8, 8)
    assert noisy.dtype == clean.dtype == torch.uint8
    assert abs(float((noisy.float() - clean.float()).mean())) < 3
    assert float(clean.float().std()) < 20 < 60 < float(noisy.float().std())


@pytest.mark.parametrize("text", ["gauss:25", "poisson:30", "point:4"])
def test_validation_crops_are_float_and_repeat(text: str) -> None:
    noisy, clean = validation_crops(pictures(), parse(text), 12, crop=16, seed=1)
    again, _ = validation_crops(pictures(), parse(text), 20, crop=16, seed=1)
    assert noisy.dtype == clean.dtype == torch.float32
    assert torch.equal(noisy, again[:12])
    assert len({crop.numpy().tobytes() for crop in clean}) == 12
    assert 0 <= clean.min() <= clean.max() <= 1
    assert not torch.equal(noisy, clean)


def test_whole_pictures_keep_their_size_and_give_up_what_fills_no_block() -> None:
    given = [*pictures(1, 20, 33), *pictures(1, 41, 8)]
    scenes = noisy_pictures(given, parse("gauss:10"), seed=3)
    assert [tuple(noisy.shape) for noisy, _ in scenes] == [(1, 3, 20, 33), (1, 3, 41, 8)]
    for (noisy, clean), picture in zip(scenes, given, strict=True):
        assert noisy.is_contiguous()
        assert torch.equal(clean[0].mul(255).round().byte(), torch.tensor(picture).permute(2, 0, 1))
        assert float((noisy - clean).std() * 255) == pytest.approx(10, rel=0.1)
    twins = noisy_pictures([given[0], given[0]], parse("gauss:10"))
    assert not torch.equal(twins[0][0], twins[1][0])
    blocks = noisy_pictures(given, parse("point:8"))
    assert [tuple(clean.shape) for _, clean in blocks] == [(1, 3, 2, 4), (1, 3, 5, 1)]


def test_small_pictures_are_refused_with_both_sizes() -> None:
    small = [np.zeros((256, 255, 3), np.uint8)]
    expected = "picture 0 is 256x255x3; a crop reads 256x256 pixels: take smaller crops or blocks"
    for draw in (point_sampled_pairs, point_sampled_validation):
        with pytest.raises(PairsError, match=expected):
            draw(small, block=8, count=1)
    with pytest.raises(PairsError, match="a crop reads 8x8 pixels"):
        noisy_pictures([np.zeros((7, 30), np.uint8)], parse("point:8"))


def test_no_pairs_at_all_are_refused() -> None:
    with pytest.raises(PairsError, match="count is 0; expected at least 1"):
        point_sampled_pairs(pictures(), 4, 0, crop=8)


def test_the_sample_photographs_are_colour_pictures() -> None:
    photographs = sample_photographs()
    assert list(photographs) == [
        "astronaut",
        "coffee",
        "chelsea",
        "rocket",
        "ihc",
        "hubble_deep_field",
        "retina",
        "motorcycle_left",
    ]
    for picture in photographs.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert min(picture.shape[:2]) >= 300


def test_a_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "chelsea", "no_such_cat.png")
    with pytest.raises(ImageError, match=r"lacks no_such_cat.png; reinstall scikit-image"):
        sample_photographs()


def test_missing_scikit_image_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("pydenoise.data.photographs.find_spec", lambda _: None)
    with pytest.raises(ImageError, match="scikit-image is missing; pip install scikit-image"):
        sample_photographs()
