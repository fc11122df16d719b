"""Sources of pairs: what comes out, that it depends on nothing but its number, what is refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import random_picture, smooth_picture

from pydenoise.data import (
    Augmented,
    NoisyCrops,
    PairsError,
    PairSource,
    ScenePairs,
    SingleCrops,
    TensorPairs,
    load_course_file,
    parse,
)
from pydenoise.data.captures import Scene

LENGTH = 60


def pictures(count: int = 3, height: int = 80, width: int = 70) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def tensors(count: int = LENGTH, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shape = (count, 3, size, size)
    return tuple(
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(2)
    )  # type: ignore[return-value]


def captures() -> list[Scene]:
    """Two scenes, of two captures and of three."""
    scenes = []
    for number, clean in enumerate(pictures(2)):
        rng = np.random.default_rng(number)
        noise = rng.integers(-9, 10, (2 + number, *clean.shape))
        noisy = [np.clip(clean + draw, 0, 255).astype(np.uint8) for draw in noise]
        scenes.append(Scene(noisy, [f"{number}-{n}" for n in range(len(noisy))]))
    return scenes


SOURCES: dict[str, Callable[[Path], PairSource]] = {
    "tensors": lambda _: TensorPairs(*tensors()),
    "gauss": lambda _: NoisyCrops(pictures(), parse("gauss:0-50"), 16, LENGTH),
    "poisson": lambda _: NoisyCrops(pictures(), parse("poisson:30"), 16, LENGTH),
    "point": lambda _: NoisyCrops(pictures(), parse("point:4"), 16, LENGTH),
    "single": lambda _: SingleCrops(pictures(), 16, LENGTH),
    "captures": lambda _: ScenePairs(captures(), 16, LENGTH),
    "augmented": lambda _: Augmented(TensorPairs(*tensors())),
    "augmented noise": lambda _: Augmented(NoisyCrops(pictures(), parse("gauss:9"), 16, LENGTH)),
}
DRAWN = [name for name in SOURCES if name != "tensors"]


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> PairSource:
    return SOURCES[request.param](tmp_path)


# --- every source -------------------------------------------------------------------------------


def test_batches_are_float32_tensors_on_the_scale_0_to_1(source: PairSource) -> None:
    assert len(source) == LENGTH
    assert source.channels == 3
    for batch in source.batch(np.array([5, 0, 5, LENGTH - 1]), epoch=0):
        assert batch.shape == (4, 3, 16, 16)
        assert batch.dtype == torch.float32
        assert batch.is_contiguous()
        assert torch.equal(batch[0], batch[2])
        assert 0.3 < float(batch.mean()) < 0.7


def test_a_pair_is_the_same_in_whatever_batch_it_comes(source: PairSource) -> None:
    whole = source.batch(np.arange(LENGTH), epoch=3)
    order = np.random.default_rng(0).permutation(LENGTH)
    source.batch(order[:7], epoch=2)
    for start in range(0, LENGTH, 7):
        part = order[start : start + 7]
        for all_of_them, some in zip(whole, source.batch(part, epoch=3), strict=True):
            assert torch.equal(all_of_them[torch.from_numpy(part)], some)


@pytest.mark.parametrize("name", DRAWN)
def test_epochs_and_numbers_give_other_pairs(name: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    rows = np.arange(LENGTH)
    epochs = [torch.cat(source.batch(rows, epoch), dim=1) for epoch in (0, 1)]
    same_again = torch.cat(source.batch(rows, 0), dim=1)
    assert torch.equal(epochs[0], same_again)
    alike = (epochs[0] == epochs[1]).flatten(1).all(dim=1)
    assert alike.sum() < LENGTH / 4
    assert len({pair.numpy().tobytes() for pair in epochs[0]}) > LENGTH * 0.9


def test_what_comes_out_is_the_callers(source: PairSource) -> None:
    rows = np.arange(4)
    before = [batch.clone() for batch in source.batch(rows, 0)]
    for batch in source.batch(rows, 0):
        batch.zero_()
    for kept, batch in zip(before, source.batch(rows, 0), strict=True):
        assert torch.equal(kept, batch)


def test_a_description_goes_through_json(source: PairSource) -> None:
    assert json.loads(json.dumps(source.describe())) == source.describe()


@pytest.mark.parametrize("rows", [[-1], [LENGTH], [0, 10**6]])
def test_numbers_out_of_range_are_refused(source: PairSource, rows: list[int]) -> None:
    with pytest.raises(IndexError, match=f"expected 0 .. {LENGTH - 1}"):
        source.batch(np.array(rows), 0)


def test_an_empty_batch_is_one(source: PairSource) -> None:
    for batch in source.batch(np.array([], dtype=np.int64), 0):
        assert batch.shape == (0, 3, 16, 16)


# --- TensorPairs and the course's file ----------------------------------------------------------


def test_tensor_pairs_are_their_rows_divided_by_255() -> None:
    first, second = tensors()
    source, target = TensorPairs(first, second).batch(np.array([7, 3]), epoch=9)
    assert torch.equal(source, first[[7, 3]].float() / 255)
    assert torch.equal(target, second[[7, 3]].float() / 255)


def test_the_default_dtype_of_torch_changes_nothing() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert TensorPairs(*tensors()).batch(np.array([0]), 0)[0].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_courses_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "train_data.pkl"
    first, second = tensors()
    torch.save((first, second), path)
    a, b = load_course_file(path)
    assert torch.equal(a, first)
    assert torch.equal(b, second)
    torch.save((first, second), path, _use_new_zipfile_serialization=False)
    assert torch.equal(load_course_file(path)[1], second)


class Bomb:
    """Makes a folder or touches a file when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("touch", [Path.touch, os.mkdir])  # torch has a word of its own for os
@pytest.mark.parametrize("writer", ["torch", "torch before 1.6", "pickle", "pickle 0"])
def test_code_in_a_pkl_is_not_run(tmp_path: Path, writer: str, touch: Any) -> None:
    touched, path = tmp_path / "touched", tmp_path / "data.pkl"
    content = (*tensors(2), bomb := Bomb(touch, touched))
    if writer.startswith("torch"):
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    else:
        path.write_bytes(pickle.dumps(bomb, protocol=0 if writer == "pickle 0" else None))
    with pytest.raises(PairsError, match=r"holds code .* which was not run") as caught:
        load_course_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not touched.exists()
    if writer.startswith("torch"):
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert touched.exists(), "the bomb is a dud"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tensors()[0], "holds a Tensor; expected a tuple of two uint8 tensors"),
        ((tensors()[0],), "holds a tuple of 1; expected a tuple of two"),
        ({"a": 1}, "holds a dict of 1"),
        ((tensors()[0], 3), "the second of the pair is a int; expected uint8"),
        ((tensors()[0], tensors()[1].float()), r"the second .*dtype torch.float32; expected uint8"),
        ((tensors()[0], tensors()[1][0]), r"the second .*shape \(3, 16, 16\)"),
        ((tensors()[0], tensors()[1][:5]), r"shapes \(60, 3, 16, 16\) and \(5, 3, 16, 16\)"),
        ((tensors()[0][:0], tensors()[1][:0]), r"the first .*shape \(0, 3, 16, 16\)"),
    ],
)
def test_a_pkl_of_something_else_is_refused(tmp_path: Path, content: Any, expected: str) -> None:
    torch.save(content, tmp_path / "data.pkl")
    with pytest.raises(PairsError, match=expected) as caught:
        load_course_file(tmp_path / "data.pkl")
    assert str(tmp_path / "data.pkl") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"words\n", b"PK\x03\x04", b"\x80\x04", b"version 1"])
def test_a_pkl_that_torch_did_not_write_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(content)
    with pytest.raises(PairsError, match=r"is not a whole file written by torch.save") as caught:
        load_course_file(path)
    assert "\n" not in str(caught.value)


def test_truncated_pkl_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    torch.save(tensors(4), path)
    content = path.read_bytes()
    for size in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:size])
        with pytest.raises(PairsError, match="is not a whole file"):
            load_course_file(path)


def test_missing_pkl_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(PairsError, match="no such file"):
        load_course_file(tmp_path / "none.pkl")
    with pytest.raises(PairsError, match="is a folder"):
        load_course_file(tmp_path)


# --- NoisyCrops ---------------------------------------------------------------------------------


def test_crops_without_noise_are_pieces_of_the_pictures() -> None:
    picture = smooth_picture(48, 64)
    source, target = NoisyCrops([picture], parse("gauss:0"), 16, LENGTH).batch(np.arange(20), 0)
    assert torch.equal(source, target)
    corners = set()
    for crop in (source * 255).round().to(torch.uint8).numpy():
        y, x = int(crop[1, 0, 0]) // 3, int(crop[0, 0, 0]) // 2
        np.testing.assert_array_equal(crop.transpose(1, 2, 0), picture[y : y + 16, x : x + 16])
        corners.add((y, x))
    assert len(corners) > 15


def test_crops_reach_every_edge_and_every_picture() -> None:
    shapes = [(17, 18, 1), (16, 16, 1), (20, 16, 1)]
    flat = [np.full(shape, 50 * n, dtype=np.uint8) for n, shape in enumerate(shapes)]
    flat[0][-1, -1] = flat[0][0, 0] = 255
    source, _ = NoisyCrops(flat, parse("gauss:0"), 16, 500).batch(np.arange(500), 0)
    assert (source[:, 0, 0, 0] == 1).any()
    assert (source[:, 0, 15, 15] == 1).any()
    share = [float((source[:, 0, 8, 8] * 255 == level).float().mean()) for level in (0, 50, 100)]
    assert min(share) > 0.25


def test_the_noise_of_crops_is_as_told_and_independent() -> None:
    gray = np.full((64, 64), 128, dtype=np.uint8)
    crops = NoisyCrops([gray], parse("gauss:25"), 32, length=100)
    assert crops.channels == 1
    source, target = crops.batch(np.arange(100), 0)
    first, second = (source - 128 / 255).flatten(), (target - 128 / 255).flatten()
    assert float(first.std() * 255) == pytest.approx(25, rel=0.01)
    assert abs(float((first * second).mean() / first.var())) < 0.02
    assert abs(float(source.flatten(1).T.cov().fill_diagonal_(0).abs().max())) < 0.01
    assert source.min() < 0.1


def test_seeds_epochs_and_numbers_give_other_noise() -> None:
    flat = [np.full((16, 16), 128, dtype=np.uint8)]  # a single place to cut, so noise alone differs
    sources = [NoisyCrops(flat, parse("gauss:25"), 16, 9, seed) for seed in (0, 1)]
    draws = [*sources[0].batch(np.arange(9), 0), *sources[0].batch(np.arange(9), 1)]
    draws += sources[1].batch(np.arange(9), 0)
    assert len({draw.numpy().tobytes() for draw in torch.cat(draws)}) == 6 * 9


def test_the_length_is_what_fits_if_not_told() -> None:
    assert len(NoisyCrops(pictures(3, 80, 70), parse("gauss:5"), 32)) == 3 * 2 * 2
    assert len(NoisyCrops(pictures(3, 80, 70), parse("point:4"), 16)) == 3


@pytest.mark.parametrize(
    ("given", "noise", "options", "expected"),
    [
        ([], "gauss:5", {}, "no pictures; expected at least one"),
        (pictures(2), "gauss:5", {"crop": 71}, "picture 0 is 80x70x3; a crop reads 71x71 pixels"),
        (pictures(2), "point:8", {}, "picture 0 is 80x70x3; a crop reads 256x256 pixels"),
        (pictures(2), "gauss:5", {"crop": 0}, "crop is 0; expected at least 1"),
        (pictures(2), "gauss:5", {"length": 0}, "length is 0; expected at least 1"),
        ([*pictures(1), random_picture(1, 80, 80)], "gauss:5", {}, "picture 1 has 1 channels"),
        ([pictures(1)[0] / 255], "gauss:5", {}, "dtype float64; expected uint8 or float32"),
    ],
)
def test_pictures_that_give_no_crops_are_refused(
    given: list[np.ndarray], noise: str, options: dict[str, int], expected: str
) -> None:
    with pytest.raises(PairsError, match=expected):
        NoisyCrops(given, parse(noise), **options)


# --- Augmented ----------------------------------------------------------------------------------


def numbered(size: int = 4, count: int = 4000) -> TensorPairs:
    """Pairs whose source counts its pixels and whose target counts them from 100."""
    first = torch.arange(size * size, dtype=torch.uint8).view(1, 1, size, size)
    first = first.expand(count, 1, size, size).contiguous()
    return TensorPairs(first, first + 100)


def levels(batch: torch.Tensor) -> np.ndarray:
    return (batch * 255).round().to(torch.uint8).numpy()


def test_all_eight_ways_and_both_orders_come_equally_often() -> None:
    source, target = Augmented(numbered()).batch(np.arange(4000), 0)
    is_swapped = levels(source)[:, 0].reshape(4000, -1).min(axis=1) == 100
    first = np.where(is_swapped[:, None, None, None], levels(target), levels(source))
    second = np.where(is_swapped[:, None, None, None], levels(source), levels(target))
    np.testing.assert_array_equal(second, first + 100)
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    ways = {np.rot90(way, k).tobytes() for way in (square, square.T) for k in range(4)}
    counts: dict[tuple[bytes, bool], int] = {}
    for picture, swapped in zip(first, is_swapped.tolist(), strict=True):
        key = picture.tobytes(), swapped
        counts[key] = counts.get(key, 0) + 1
    assert {way for way, _ in counts} == ways
    assert len(counts) == 16
    assert min(counts.values()) > 190
    assert max(counts.values()) < 310


@pytest.mark.parametrize("option", ["flips", "transpose", "swap"])
def test_each_option_does_its_own_part_alone(option: str) -> None:
    options = {name: name == option for name in ("flips", "transpose", "swap")}
    source, _ = Augmented(numbered(), **options).batch(np.arange(4000), 0)
    ways = {picture.tobytes() for picture in levels(source)}
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    expected = {
        "flips": [square, square[::-1], square[:, ::-1], square[::-1, ::-1]],
        "transpose": [square, square.T],
        "swap": [square, square + np.uint8(100)],
    }[option]
    assert ways == {np.ascontiguousarray(way).tobytes() for way in expected}


def test_nothing_allowed_changes_nothing() -> None:
    plain = TensorPairs(*tensors())
    rows = np.arange(LENGTH)
    same = Augmented(plain, flips=False, transpose=False, swap=False).batch(rows, 5)
    for a, b in zip(plain.batch(rows, 5), same, strict=True):
        assert torch.equal(a, b)


def test_only_squares_are_transposed() -> None:
    wide = TensorPairs(*(torch.zeros(4, 3, 8, 16, dtype=torch.uint8) for _ in range(2)))
    with pytest.raises(PairsError, match="are 8x16, transposing expects square ones; give transp"):
        Augmented(wide)
    assert Augmented(wide, transpose=False).batch(np.arange(4), 0)[0].shape == (4, 3, 8, 16)
