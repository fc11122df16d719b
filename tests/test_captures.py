"""Captures of scenes: which pairs they give, what is refused, how brightness is matched."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from terminal import QUICK

from pydenoise.checkpoint import load_weights
from pydenoise.data import (
    CapturesWarning,
    ImageError,
    PairsError,
    ScenePairs,
    SingleCrops,
    bursts,
    matching_pictures,
    on_scale,
    read,
    read_folder,
    stacks,
    two_folders,
    value_range,
    write,
)
from pydenoise.data.brightness import check_captures, match_brightness
from pydenoise.data.captures import Scene

S95 = Path("/work/shared/data/S95-repeated")


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


def numbered(count: int, start: int = 0) -> Scene:
    """Flat captures: number k holds start + k and a pixel of its own, so that none are alike."""
    flat = [np.full((8, 8, 1), start + number, np.uint8) for number in range(count)]
    return named(flat)


# --- pairs --------------------------------------------------------------------------------------


def test_any_two_captures_are_a_pair_and_never_one_with_itself() -> None:
    pairs = ScenePairs([numbered(4)], crop=8, length=6000)
    batches = [torch.stack(pairs.batch(np.arange(6000), epoch), 1) for epoch in (0, 1)]
    drawn = [(batch[:, :, 0, 0, 0] * 255).round().int().tolist() for batch in batches]
    met = {tuple(pair) for pair in drawn[0]}
    assert met == {(a, b) for a in range(4) for b in range(4) if a != b}
    counts = [drawn[0].count(list(pair)) for pair in met]
    assert min(counts) > 400, "twelve ordered pairs of 500 each"
    assert drawn[0] != drawn[1], "drawn anew in every epoch"


def test_both_of_a_pair_are_of_one_scene_and_one_place() -> None:
    clean = [scene(40, 56), 255 - scene(48, 40)]
    scenes = [named([bytes_of(c) ^ np.uint8(flip) for flip in (0, 1)]) for c in clean]
    source, target = ScenePairs(scenes, crop=16, length=80).batch(np.arange(80), 0)
    assert ((source - target).abs() * 255).round().eq(1).all()
    darker = (source.mean((1, 2, 3)) < 0.5).sum()
    assert 15 < darker < 65, "both scenes come"


def test_numbers_of_files_come_out_on_the_scale() -> None:
    wide = [(40 * capture(scene(8, 8), seed)).astype(np.uint16) for seed in (0, 1)]
    for bounds, low, width in (((500, 4500), 500, 4000), ((0, 1), 0, 65535)):
        pairs = ScenePairs([named(wide)], crop=8, length=20, value_range=bounds)
        assert not pairs.drifting
        source, target = pairs.batch(np.arange(20), 0)
        for number, picture in enumerate((source[0], target[0])):
            capture_of = [np.ptp(picture[0].numpy() * width + low - w[..., 0]) for w in wide]
            assert min(capture_of) < 0.01, (bounds, number)
            found = wide[int(np.argmin(capture_of))][..., 0]
            np.testing.assert_allclose(picture[0].numpy() * width + low, found, atol=0.01)


def test_a_burst_is_a_folder_for_each_scene(tmp_path: Path) -> None:
    for name, count in (("a", 3), ("b", 2)):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(captures(count, first=ord(name))):
            write(tmp_path / name / f"{number}.png", picture)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = bursts(tmp_path)
    assert [len(scene.captures) for scene in found.scenes] == [3, 2]
    assert found.skipped == [tmp_path / "a" / "broken.png", tmp_path / "notes.txt"]
    assert found.scenes[1].names == [str(tmp_path / "b" / f"{n}.png") for n in (0, 1)]
    assert [len(scene.captures) for scene in bursts(tmp_path / "b").scenes] == [2]
    with pytest.raises(ImageError, match=r"gone: is no folder; expected one with a folder for"):
        bursts(tmp_path / "gone")


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_stack_is_a_scene_of_its_pages(tmp_path: Path, suffix: str) -> None:
    pages = np.stack([capture(scene()[..., 0], seed) for seed in range(5)]).astype(np.uint16)
    path = tmp_path / f"stack{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, pages, photometric="minisblack")
    else:
        np.save(path, pages)
    found = stacks([path])
    assert len(found.scenes) == 1
    np.testing.assert_array_equal(np.stack(found.scenes[0].captures)[..., 0], pages)
    assert found.scenes[0].names[4] == f"{path}, page 5"
    np.save(tmp_path / "one.npy", pages[0])
    with pytest.raises(PairsError, match=r"one.npy: is the only capture of its scene; expected tw"):
        ScenePairs(stacks([path, tmp_path / "one.npy"]).scenes)


def test_two_folders_give_their_pages(tmp_path: Path) -> None:
    for number, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / f"x.{'png' if number else 'bmp'}", captures(1, first=number)[0])
        save_stack(tmp_path / folder / "y.tif", captures(3, first=10 * number + 2))
    found = two_folders(tmp_path / "a", tmp_path / "b")
    assert [len(scene.captures) for scene in found.scenes] == [2] * 4
    assert found.scenes[0].names == [f"{tmp_path / folder}: 'x'" for folder in "ab"]
    assert ScenePairs(found.scenes, 32).describe()["captures"] == 8
    save_stack(tmp_path / "b" / "y.tif", captures(2))
    with pytest.raises(PairsError, match=r"'y' is 3 pages of 128x160x1 in one and 2 pages of"):
        matching_pictures(tmp_path / "a", tmp_path / "b")


def test_folders_that_do_not_match_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, number in ((a, 0), (b, 1)):
        folder.mkdir()
        write(folder / "scene.png", captures(1, first=number)[0])
    write(a / "lonely.png", captures(1, 3)[0])
    with pytest.raises(PairsError, match=r"b: no picture is named 'lonely', as in the other"):
        two_folders(a, b)
    write(b / "lonely.png", captures(1, 3)[0][:-1])
    with pytest.raises(PairsError, match="'lonely' is 128x160x3 in one and 127x160x3 in"):
        two_folders(a, b)
    with pytest.raises(ImageError, match=r"png: is 127x160 pixels; expected at least 128x128"):
        two_folders(a, b, smallest=128)
    write(a / "lonely.tif", captures(1, 3)[0])
    with pytest.raises(PairsError, match="two pictures are named 'lonely'"):
        two_folders(a, b)


# --- what is refused ----------------------------------------------------------------------------


def test_captures_of_other_sizes_or_depths_are_refused() -> None:
    first, second = captures(2)
    with pytest.raises(PairsError, match=r"0 is 128x160x1 uint8, .*1 is 127x160x1 uint8; .* crop"):
        ScenePairs([named([first, second[1:]])])
    with pytest.raises(PairsError, match=r"1 is 128x160x1 uint16; expected captures of one size"):
        ScenePairs([named([first, second.astype(np.uint16)])])
    with pytest.raises(PairsError, match=r"c-0 has 3 channels of uint8, s-0 has 1 of uint8"):
        ScenePairs([named(captures(2), "s"), named(captures(2, channels=3), "c")])
    with pytest.raises(PairsError, match=r"s-0: is 128x160 pixels; expected at least 129x129"):
        ScenePairs([named(captures(2), "s")], crop=129)
    with pytest.raises(PairsError, match="no scenes; expected at least one"):
        ScenePairs([])


def test_the_same_picture_twice_is_refused() -> None:
    first, second, third = captures(3)
    with pytest.raises(PairsError, match="scene-0 and scene-2 are the same picture, noise inclu"):
        ScenePairs([named([first, second, first.copy(), third])])


@pytest.mark.parametrize("stranger", [0, 1, 2])
def test_captures_of_something_else_are_refused(stranger: int) -> None:
    pictures = captures(3)
    pictures[stranger] = pictures[stranger][::-1, ::-1].copy()
    with pytest.raises(PairsError, match=rf"scene-{stranger} does not look like .* \(correlation"):
        ScenePairs([named(pictures)])


@pytest.mark.parametrize("sigma", [1, 40])
@pytest.mark.parametrize("kind", ["dark", "flat", "shapes"])
def test_dark_flat_and_very_noisy_captures_are_not_taken_for_strangers(
    kind: str, sigma: float
) -> None:
    clean = {"dark": 0 * scene(), "flat": 0 * scene() + 90, "shapes": scene()}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(10):
            pair = [capture(clean, 2 * seed + side, sigma) for side in (0, 1)]
            check_captures(pair, ["a", "b"])
            check_captures([bytes_of(picture) for picture in pair], ["a", "b"])


@pytest.mark.parametrize(("down", "right"), [(3, 0), (0, -2), (-5, 6)])
def test_a_shift_is_warned_of(down: int, right: int) -> None:
    clean = scene(200, 200)
    moved = np.roll(clean, (down, right), axis=(0, 1))
    vertical = f"{abs(down)} pixels {'lower' if down > 0 else 'higher'}"
    sideways = f"{abs(right)} further {'right' if right > 0 else 'left'} than a"
    with pytest.warns(CapturesWarning, match=f"b seems to lie {vertical} and {sideways}; align"):
        check_captures([capture(clean, 1), capture(moved, 2)], ["a", "b"])


def test_a_pixel_is_no_shift() -> None:
    clean = scene(200, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_captures([capture(clean, 1), capture(np.roll(clean, 1, axis=0), 2)], ["a", "b"])


# --- brightness ---------------------------------------------------------------------------------


def matched(pictures: list[np.ndarray]) -> list[np.ndarray]:
    gains, offsets = match_brightness(pictures)
    return [x * gain + offset for x, gain, offset in zip(pictures, gains, offsets, strict=True)]


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(("gain", "offset"), [(1.05, 0), (1, 4), (0.8, 30), (1.5, -20)])
def test_matched_captures_differ_by_nothing_on_average(
    count: int, gain: float, offset: float
) -> None:
    clean = scene()
    differences, slopes, middles = [], [], []
    for run in range(40):
        pictures = [capture(clean, 100 * run + number) for number in range(count)]
        pictures[1] = gain * pictures[1] + offset
        ours = matched(pictures)
        differences.append(ours[1].mean() - ours[0].mean())
        gains = match_brightness(pictures).gain[:, 0]
        slopes.append(gains[0] / gains[1])
        middles.append(np.mean(ours) - np.mean(pictures))
    error = 10 * np.sqrt(2 / clean.size / 40)
    assert abs(np.mean(differences)) < 3 * error
    assert np.mean(slopes) == pytest.approx(gain, rel=2.5e-3), "no slope is flattened by noise"
    assert np.abs(middles).max() < 0.05, "towards the middle of all"


def test_captures_that_do_not_drift_stay_as_they_are() -> None:
    """Three standard errors of four kinds: few in a hundred are touched, and by no more."""
    touched = 0
    for run in range(100):
        pictures = [capture(scene(), 2 * run + number, sigma=25) for number in (0, 1)]
        gain, offset = match_brightness(pictures)
        touched += bool((gain != 1).any())
        change = gain * 100 + offset - 100
        assert np.abs(change).max() < 6 * 25 / np.sqrt(scene().size)
    assert touched <= 5


def test_flat_captures_are_left_alone_or_levelled() -> None:
    flat = np.full((64, 64, 1), 50.0)
    assert (match_brightness([flat, flat + 0]).gain == 1).all()
    levelled = matched([capture(flat, 1, 2), capture(flat + 10, 2, 2)])
    assert levelled[0].mean() == pytest.approx(55, abs=0.2)
    assert levelled[1].mean() == pytest.approx(levelled[0].mean(), abs=0.2)


def test_what_has_moved_does_not_count() -> None:
    clean = scene()
    drifted = 1.1 * clean + 3
    drifted[20:50, 30:70] = 255
    gain, offset = match_brightness([capture(clean, 1, 4), capture(drifted, 2, 4)])
    assert gain[0, 0] / gain[1, 0] == pytest.approx(1.1, rel=5e-3)
    assert (gain[0] * 100 + offset[0]) == pytest.approx(gain[1] * 113 + offset[1], abs=0.3)


def test_each_channel_drifts_by_itself() -> None:
    clean = scene(channels=3)
    pictures = [capture(clean, 1), capture(clean * [1, 1.2, 1] + [0, 0, 9], 2)]
    gain, offset = match_brightness(pictures)
    assert gain[0] / gain[1] == pytest.approx([1, 1.2, 1], rel=5e-3)
    levels = gain * [[100, 100, 100], [100, 120, 109]] + offset
    assert levels[0] == pytest.approx(levels[1], abs=0.6)


def test_drifting_pairs_come_out_equally_bright() -> None:
    pictures = captures(3)
    pictures[2] = bytes_of(0.8 * scene() + capture(0 * scene(), 9, 8))
    pairs = ScenePairs([named(pictures)], crop=64, length=200)
    assert pairs.drifting == 3
    assert pairs.describe()["brightness_matched"] == 3
    source, target = pairs.batch(np.arange(200), 0)
    assert abs(float((source - target).mean((1, 2, 3)).abs().max()) * 255) < 2
    assert abs(float((source - target).mean()) * 255) < 0.3


@pytest.mark.skipif(not S95.is_dir(), reason=f"no {S95}")
@pytest.mark.parametrize("name", ["beam", "fern", "windows"])
def test_real_bursts_that_drift_are_matched(name: str) -> None:
    pictures = [read(path) for path in sorted((S95 / name).glob("*.png"))]
    before = [picture.mean() for picture in pictures]
    after = [picture.mean() for picture in matched(pictures)]
    assert np.ptp(before) > 3
    assert np.ptp(after) < 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_captures(pictures, list("123456"))


# --- folders of every depth ---------------------------------------------------------------------


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
    np.testing.assert_array_equal(pictures[2], gray + 1)
    for path in tmp_path.iterdir():
        if path.name != "e.png":
            path.unlink()
    with pytest.raises(ImageError, match=r"e.png: is a GIF; expected a whole picture file"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "top", "expected"),
    [
        ("uint8", 90, (0, 1)),
        ("uint16", 60000, (0, 1)),
        ("uint16", 4000, (4, 3996)),
        ("int16", 30000, (30, 29970)),
        ("float32", 1e5, (1e2, 99900)),
        ("float64", 1, (1e-3, 0.999)),
    ],
)
def test_the_range_of_values_is_the_dtypes_or_that_of_the_numbers(
    dtype: str, top: float, expected: tuple[float, float]
) -> None:
    ramp = np.linspace(0, top, 10**5).astype(dtype).reshape(100, 100, 10)
    bounds = value_range([ramp[..., :5], ramp[..., 5:]])
    assert bounds == pytest.approx(expected, rel=1e-3, abs=1 if dtype[0] != "f" else 1e-6)
    scaled = on_scale([ramp], bounds)[0].astype(float)
    if dtype == "uint8":
        assert scaled.max() == top, "stays as it is"
    elif expected == (0, 1):
        assert scaled.max() == pytest.approx(top / 65535)
    else:
        assert [scaled.min(), scaled.max()] == pytest.approx([-0.001, 1.001], abs=3e-4)


def test_constant_numbers_have_no_range() -> None:
    with pytest.raises(PairsError, match="hold 7 nearly everywhere; expected some that differ"):
        value_range([np.full((8, 8), 7.0)])


def test_single_crops_are_twice_the_same_place() -> None:
    picture = np.arange(40 * 50, dtype=np.float32).reshape(40, 50, 1)
    source, target = SingleCrops([picture], 16, length=50).batch(np.arange(50), 0)
    assert torch.equal(source, target)
    corners = source[:, 0, 0, 0]
    assert torch.equal(source[:, 0, 15, 15], corners + 15 * 50 + 15)
    assert len(corners.unique()) > 40


# --- from the command line ----------------------------------------------------------------------


def twelve_bits(number: int) -> np.ndarray:
    return (40 * capture(scene()[..., 0], number)).clip(0).astype(np.uint16)


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """Captures of 12 bits in 16: two folders, a burst, a stack."""
    for name in ("a", "b", "burst/scene"):
        (tmp_path / name).mkdir(parents=True)
    for number, folder in enumerate("ab"):
        tifffile.imwrite(tmp_path / folder / "x.tif", twelve_bits(number))
    for number in range(3):
        tifffile.imwrite(tmp_path / "burst" / "scene" / f"{number}.tif", twelve_bits(number))
    for name, first in (("stack", 0), ("other", 4)):
        pages = [twelve_bits(first + page)[..., None] for page in range(4)]
        save_stack(tmp_path / f"{name}.tif", pages)
    return tmp_path


@pytest.mark.parametrize("option", ["--pairs", "--burst", "--stack"])
def test_train_on_captures(run: Any, material: Path, option: str) -> None:
    given = {
        "--pairs": ["--pairs", material / "a", material / "b"],
        "--burst": ["--burst", material / "burst"],
        "--stack": ["--stack", material / "stack.tif", "--stack", material / "other.tif"],
    }[option]
    out = material / "run"
    ended = run("train", *given, "-o", out, "--json", *QUICK)
    assert ended.json()["psnr_denoised"] is None
    assert "no clean pictures to measure on" in ended.err
    low, high = load_weights(out / "model.safetensors")[1]["value_range"]
    assert 0 < low < 2400
    assert 4000 < high < 8000
    ended = run("train", *given, "-o", out, "--overwrite", "--range", 100, 5000, *QUICK)
    assert ended.code == 0
    assert load_weights(out / "model.safetensors")[1]["value_range"] == (100, 5000)


def test_train_says_what_it_does_to_drifting_and_shifted_captures(run: Any, material: Path) -> None:
    tifffile.imwrite(material / "b" / "x.tif", np.roll(twelve_bits(5) // 2, 4, axis=0))
    (material / "b" / "notes.txt").write_text("words")
    ended = run("train", "--pairs", material / "a", material / "b", "-o", material / "r", *QUICK)
    assert ended.code == 0
    assert "b: 'x' seems to lie 4 pixels lower and 0 further left than" in ended.err
    assert f"skipped 1 other file: {material / 'b' / 'notes.txt'}" in ended.err
    assert "brightness drifts: 2 of 2 captures matched to the others" in ended.err


def test_train_refuses_captures_that_are_none(run: Any, material: Path) -> None:
    words = ("-o", material / "run", *QUICK)
    folder = material / "a"
    run("train", "--pairs", folder, folder, *words).refusal("are the same picture, noise included")
    tifffile.imwrite(material / "b" / "x.tif", twelve_bits(1)[::-1, ::-1])
    run("train", "--pairs", folder, material / "b", *words).refusal(
        "a: 'x' does not look like", "b: 'x'"
    )
    run("train", "--stack", folder / "x.tif", *words).refusal("is the only capture of its scene")
    run("train", "--burst", material / "gone", *words).refusal("gone: is no folder")
    run("train", folder, "--burst", material, *words).refusal("give one of DATA, --pairs A B")
    run("train", folder, "--noise", "gauss:9", "--range", 2, 1, *words).refusal("the lower first")
    assert not (material / "run").exists()


@pytest.mark.parametrize("noise", [None, "gauss:25"])
def test_train_on_single_pictures(run: Any, material: Path, noise: str | None) -> None:
    for number in range(3):
        tifffile.imwrite(material / "a" / f"{number}.tif", twelve_bits(number + 5))
    words = () if noise is None else ("--noise", noise, "--hold-out", 1)
    objective = ("--objective", "neighbor2neighbor")
    ended = run(
        *("train", material / "a", *objective, *words, "-o", material / "run", "--json", *QUICK)
    )
    assert (ended.json()["psnr_denoised"] is None) == (noise is None)
    header = load_weights(material / "run" / "model.safetensors")[1]
    assert "single noisy pictures" in header["trained_on"]
    assert header["value_range"][1] > 4000
    refused = ("train", material / "a", *objective, "-o", material / "other", *QUICK[:-1])
    run(*refused, 20).refusal("multiples of 8")
    stack = ("--stack", material / "stack.tif")
    run("train", *stack, *objective, "-o", material / "other").refusal("for a folder of pictures")
