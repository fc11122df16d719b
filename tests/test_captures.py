"""Captures of scenes: which pairs they give, what is refused, and training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from captured import bytes_of, capture, captures, named, save_stack, scene
from terminal import QUICK

from pydenoise.checkpoint import load_weights
from pydenoise.data import (
    ImageError,
    PairsError,
    ScenePairs,
    bursts,
    matching_pictures,
    stacks,
    two_folders,
    write,
)
from pydenoise.data.captures import Scene


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
    for bounds, low, width in (((500, 4500), 500, 4000), (None, 0, 65535)):
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
    broken = tmp_path / "a" / "broken.png"
    assert list(found.skipped) == [broken, tmp_path / "notes.txt"]
    assert found.skipped[broken].startswith(f"{broken}: ")
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
    (material / "b" / "z.png").write_bytes(b"GIF89a")
    ended = run("train", "--pairs", material / "a", material / "b", "-o", material / "r", *QUICK)
    assert ended.code == 0
    assert "b: 'x' seems to lie 4 pixels lower and 0 further left than" in ended.err
    assert f"skipped 1 other file: {material / 'b' / 'notes.txt'}" in ended.err
    assert (
        f"skipped 1 unusable picture: {material / 'b' / 'z.png'}: is a GIF; expected" in ended.err
    )
    assert "brightness drifts: 2 of 2 captures matched to the others" in ended.err


def test_train_names_the_stack_that_shows_nothing(run: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.full((4, 40, 50), 7, np.float32))
    run("train", "--stack", tmp_path / "flat.npy", "-o", tmp_path / "run").refusal(
        tmp_path / "flat.npy", "nearly all numbers are 7", "--range LO HI"
    )


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
    run("train", folder, "--noise", "gauss:9", "--range", 2, 1, *words).refusal("LO < HI")
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


@pytest.mark.parametrize("noise", ["bernoulli:0.5", "impulse:0.2", "text:0.1"])
def test_single_pictures_need_noise_whose_mean_is_the_picture(
    run: Any, material: Path, noise: str
) -> None:
    words = ("--objective", "neighbor2neighbor", "--noise", noise, "-o", material / "run")
    ended = run("train", material / "a", *words, *QUICK)
    ended.refusal(f"the mean of many draws, which for {noise} is not the clean picture")
    assert not (material / "run").exists()
