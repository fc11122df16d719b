"""`pydenoise denoise` on single pictures: by which method, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from terminal import picture

from pydenoise import builtin
from pydenoise.cli.progress import Batch
from pydenoise.data import read, read_picture, write
from pydenoise.metrics import psnr_per_image, ssim

# --- the method ---------------------------------------------------------------------------------


def test_one_picture_and_nothing_else(run: Any, folder: Path, calls: list[dict[str, Any]]) -> None:
    photo = folder / "0.png"
    ended = run("denoise", photo)
    assert ended.code == 0, ended.err
    assert ended.err.startswith("method: builtin, since no model is given (-m)\n")
    assert ended.out.startswith(f"{folder / '0_denoised.png'}\n")
    (call,) = calls
    np.testing.assert_array_equal(call.pop("picture").array, read(photo))
    cpu = torch.device("cpu")
    terms = {"value_range": None, "strength": 1.0, "max_bytes": None, "device": cpu}
    assert call == {"method": "builtin", "turns": 8, **terms}
    again = run("denoise", photo, "--method", "builtin", "--overwrite", "--max-mem", "8M", "--json")
    result = again.json()
    assert (result["method"], result["reason"]) == ("builtin", "as asked for")
    assert [file["method"] for file in result["files"]] == ["builtin"]
    assert calls[1]["max_bytes"] == 2**23


def test_zero_shot_where_it_is_asked_for(
    run: Any, folder: Path, calls: list[dict[str, Any]]
) -> None:
    photo = folder / "0.png"
    ended = run("denoise", photo, "--method", "zero-shot")
    assert ended.code == 0, ended.err
    assert ended.err.startswith("method: zero-shot, as asked for\n")
    assert f"{photo} 100%  loss 0.25000  0 s left\n" in ended.err
    (call,) = calls
    np.testing.assert_array_equal(call.pop("picture").array, read(photo))
    assert call == {
        "recipe": "fast",
        "per_page": False,
        "value_range": None,
        "strength": 1.0,
        "turns": 8,
        "max_bytes": None,
        "seed": 0,
        "device": torch.device("cpu"),
    }


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--recipe", "fast"], "recipe"), (["--per-page"], "per-page"), (["--seed", "0"], "seed")],
)
def test_options_of_zero_shot_choose_it(
    run: Any, folder: Path, calls: list[dict[str, Any]], words: list[str], named: str
) -> None:
    result = run("denoise", folder / "0.png", *words, "--json").json()
    assert (result["method"], result["reason"]) == ("zero-shot", f"since --{named} is its own")
    assert calls[0]["recipe"] == "fast"
    run("denoise", folder / "1.png", *words, "--method", "builtin").refusal(
        f"--{named} is for another method: the built-in network has learnt already"
    )


def test_pictures_of_other_channels_go_by_zero_shot(
    run: Any, folder: Path, calls: list[dict[str, Any]]
) -> None:
    bands = folder / "0_bands.npy"
    np.save(bands, np.random.default_rng(0).random((5, 20, 30), np.float32))
    words = ("denoise", bands, "--axes", "SYX")
    told = f"{bands}: method: zero-shot, since the built-in networks are for gray and RGB\n"
    for more in (["--dry-run"], []):
        ended = run(*words, *more)
        assert ended.code == 0, ended.err
        assert ended.err.startswith("method: builtin, since no model is given (-m)\n")
        assert told in ended.err
        assert f"{bands} 100%" not in ended.err.partition(told)[0], "told before the work"
        (file,) = run(*words, *more, "--overwrite", "--json").json()["files"]
        assert file["method"] == "zero-shot"
    assert [call["recipe"] for call in calls] == ["fast", "fast"]
    for more in (["--dry-run"], []):
        ended = run(*words, *more, "--overwrite", "--method", "builtin")
        assert ended.code == 2
        assert f"error: {bands}: builtin: the networks that ship take gray and RGB" in ended.err
        assert "the picture has 5 channels; take zero-shot" in ended.err


def test_missing_weights_are_told_before_any_work(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(builtin.NETWORKS, 3, tmp_path / "gone.safetensors")
    for more in (["--dry-run"], []):
        ended = run("denoise", folder / "0.png", *more)
        assert ended.code == 2
        assert ended.err.splitlines()[-1:] == [
            f"error: {folder / '0.png'}: {tmp_path / 'gone.safetensors'}: is missing; install "
            "pydenoise again, or take zero-shot: method='zero-shot', --method zero-shot"
        ]


def test_options_of_zero_shot_go_through(
    run: Any, folder: Path, calls: list[dict[str, Any]]
) -> None:
    words = ("--recipe", "paper", "--per-page", "--seed", "7", "--strength", "0.5")
    ended = run("denoise", folder / "0.png", *words, "--range", "-5", "300.5", "--max-mem", "2M")
    assert ended.code == 0, ended.err
    del calls[0]["picture"]
    assert calls[0] == {
        "recipe": "paper",
        "per_page": True,
        "value_range": (-5.0, 300.5),
        "strength": 0.5,
        "turns": 1,
        "max_bytes": 2**21,
        "seed": 7,
        "device": torch.device("cpu"),
    }


@pytest.mark.parametrize("way", ["model", "builtin", "zero-shot"])
@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--keep-going"]])
def test_too_little_memory_is_told_before_any_work(
    run: Any, folder: Path, weights: Path, calls: list[dict[str, Any]], way: str, more: list[str]
) -> None:
    words = ["-m", weights] if way == "model" else ["--method", way]
    ended = run("denoise", folder / "0.png", *words, "--max-mem", "1000", *more)
    assert ended.code == (1 if more == ["--keep-going"] else 2)
    told = f"error: {folder / '0.png'}: --max-mem 1000 does not hold the smallest tile"
    assert told in ended.err
    least = int(ended.err.split("allow at least ")[1].split()[0].rstrip(";"))
    words += ["--overwrite", *more, "--max-mem"]
    assert run("denoise", folder / "0.png", *words, least).code == 0
    two = run("denoise", folder / "0.png", *words, 2 * least - 1, "--workers", "2")
    assert f"for each of 2 workers; allow at least {2 * least}" in two.err
    assert len(calls) == (more != ["--dry-run"])


@pytest.mark.parametrize(
    ("size", "expected"),
    [("2G", 2**31), ("1.5m", 3 * 2**19), ("30MiB", 30 * 2**20), ("7000000", 7000000)],
)
def test_options_of_a_model_go_through(
    run: Any, folder: Path, weights: Path, calls: list[dict[str, Any]], size: str, expected: int
) -> None:
    words = ("-m", weights, "--max-mem", size, "--threads", "1", "--device", "cpu")
    before = torch.get_num_threads()
    result = run("denoise", folder / "0.png", *words, "--json", "--method", "model").json()
    assert (result["method"], result["reason"]) == ("model", "as asked for")
    del calls[0]["picture"]
    options = {"max_bytes": expected, "threads": 1, "value_range": None, "strength": 1.0}
    assert calls[0] == {"turns": 1, **options}
    assert torch.get_num_threads() == before
    result = run("denoise", folder / "1.png", "-m", weights, "--json").json()
    assert (result["method"], result["reason"]) == ("model", f"since one is given: {weights}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("way", ["builtin", "zero-shot", "model"])
def test_a_gpu_that_is_not_there_is_an_error(
    run: Any, folder: Path, weights: Path, calls: list[dict[str, Any]], way: str
) -> None:
    words = ["-m", weights] if way == "model" else ["--method", way]
    ended = run("denoise", folder / "0.png", *words, "--device", "cuda")
    ended.refusal("error: --device cuda: ", "take --device cpu")
    assert not calls


def test_a_folder_that_is_not_there_is_to_be_made(run: Any, folder: Path, tmp_path: Path) -> None:
    ended = run("denoise", folder / "0.png", "-o", f"{tmp_path / 'new'}/")
    ended.refusal(f"{tmp_path / 'new'}: is no folder that is there", f"{tmp_path / 'new'}.png")
    assert not (tmp_path / "new").exists()


def test_threads_beyond_all_machines_are_refused(run: Any, folder: Path) -> None:
    for count in (0, 99999):
        run("denoise", folder / "0.png", "--threads", count).refusal("--threads", "equal to")


def test_no_strength_gives_the_pixels_back(run: Any, folder: Path, weights: Path) -> None:
    for out, words in (("a.png", ()), ("b.png", ("-m", weights))):
        ended = run("denoise", folder / "0.png", "-o", folder / out, "--strength", "0", *words)
        assert ended.code == 0, ended.err
        np.testing.assert_array_equal(read(folder / out), read(folder / "0.png"))


@pytest.mark.parametrize("value", [np.nan, 7])
def test_a_picture_that_teaches_nothing_is_warned_of(run: Any, tmp_path: Path, value: int) -> None:
    path = tmp_path / "empty.npy"
    np.save(path, np.full((20, 30), value, np.float32))
    ended = run("denoise", path)
    assert ended.code == 0
    assert f"warning: {path}: holds no two different numbers, so that no noise" in ended.err
    np.testing.assert_array_equal(np.load(tmp_path / "empty_denoised.npy"), np.load(path))
    (file,) = run("denoise", path, "--overwrite", "--json").json()["files"]
    assert len(file["warnings"]) == 1
    assert file["warnings"][0].startswith("holds no two different numbers")
    assert "warning" not in run("denoise", path, "--strength", "0", "--overwrite").err


def test_what_a_format_cannot_hold_is_warned_of(run: Any, folder: Path, tmp_path: Path) -> None:
    with Image.open(folder / "0.png") as photo:
        photo.save(tmp_path / "x.png", dpi=(100, 100))
    (file,) = run("denoise", tmp_path / "x.png", "-o", tmp_path / "x.npy", "--json").json()["files"]
    assert any("resolution" in warning for warning in file["warnings"])


def test_a_dry_run_refuses_what_the_run_refuses(run: Any, tmp_path: Path, weights: Path) -> None:
    mask, deep, stack = (tmp_path / f"{name}.npy" for name in ("mask", "deep", "stack"))
    np.save(mask, np.eye(20, dtype=bool))
    np.save(deep, np.linspace(0, 4000, 400).reshape(20, 20))
    np.save(stack, np.random.default_rng(0).random((4, 40, 50)) > 0.5)
    for words, named in (
        ([mask], "whole numbers or floating point, got bool"),
        ([mask, "-m", weights], "whole numbers or floating point, got bool"),
        ([deep, "-m", weights], "holds numbers from 4 to 3996"),
    ):
        refusals = [run("denoise", *words, *more).err for more in ([], ["--dry-run"])]
        assert refusals[0].splitlines()[-1] == refusals[1].splitlines()[-1]
        assert f"error: {words[0]}: " in refusals[0] and named in refusals[0]
    assert run("denoise", mask, "--strength", "0", "--dry-run").code == 0
    refused = run("train", "--stack", stack, "-o", tmp_path / "run")
    refused.refusal(stack, "whole numbers or floating point, got bool")


# --- what is told -------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """A noisy picture and the clean one of the same name in another folder."""
    rng = np.random.default_rng(1)
    clean = picture(height=150, width=161) // 2 + 64
    for name, noise in (("clean", 0), ("noisy", 20)):
        (tmp_path / name).mkdir()
        pixels = clean + rng.normal(0, noise, clean.shape)
        write(tmp_path / name / "x.png", np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return tmp_path / "noisy" / "x.png", tmp_path / "clean" / "x.png"


def planes(path: Path) -> torch.Tensor:
    return torch.from_numpy(read(path).transpose(2, 0, 1)[None] / np.float32(255))


@pytest.mark.usefixtures("calls")
def test_measures_of_the_noise(run: Any, scene: tuple[Path, Path], tmp_path: Path) -> None:
    noisy, _ = scene
    (file,) = run("denoise", noisy, "-o", tmp_path / "x.png", "--json").json()["files"]
    measures = file["measures"]
    assert measures["noise"] == pytest.approx(20, rel=0.1)
    assert measures["noise_left"] < 5
    assert max(map(abs, measures["noise_correlation"])) < 0.1
    assert measures["reference"] is None
    assert measures["warnings"] == []
    assert file["seconds"] > 0
    table = run("denoise", noisy, "-o", tmp_path / "x.png", "--overwrite").out
    for number in (measures["noise"], measures["noise_left"]):
        assert f"{number:.3g}" in table
    for side in ("noise_correlation", "removed_correlation"):
        assert all(f"{number:+.2f}" in table for number in measures[side])


@pytest.mark.usefixtures("calls")
def test_a_stack_is_measured_on_its_middle_page(run: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pages = np.stack([rng.normal(1000, sigma, (90, 90)) for sigma in (5, 40, 5)]).astype("u2")
    opaque = np.stack([pages, rng.integers(0, 9999, pages.shape).astype("u2")], axis=3)
    for name, stack, more in (
        ("plain.tif", pages, {}),
        ("alpha.tif", opaque, {"extrasamples": ["unassalpha"], "planarconfig": "contig"}),
    ):
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack", **more)
        (file,) = run("denoise", tmp_path / name, "--json").json()["files"]
        assert file["measures"]["noise"] == pytest.approx(40, rel=0.1)


@pytest.mark.usefixtures("calls")
def test_correlated_noise_is_warned_of(run: Any, tmp_path: Path) -> None:
    noise = gaussian_filter(np.random.default_rng(2).normal(0, 60, (200, 200)), 0.8) + 120
    write(tmp_path / "camera.png", np.clip(np.rint(noise), 0, 255).astype(np.uint8))
    ended = run("denoise", tmp_path / "camera.png")
    assert f"warning: {tmp_path / 'camera.png'}: neighbouring pixels share" in ended.err
    assert "--shrink 2" in ended.err


@pytest.mark.usefixtures("calls")
def test_against_a_reference(run: Any, scene: tuple[Path, Path], tmp_path: Path) -> None:
    noisy, clean = scene
    out = tmp_path / "result.png"
    words = ("denoise", noisy, "-o", out, "--overwrite", "--reference")
    (file,) = run(*words, clean, "--json").json()["files"]
    against = file["measures"]["reference"]
    for name, path in (("noisy", noisy), ("denoised", out)):
        assert against[f"psnr_{name}"] == pytest.approx(psnr_per_image(planes(path), planes(clean)))
        assert against[f"ssim_{name}"] == pytest.approx(ssim(planes(path), planes(clean)))
    assert against["value_range"] == [0, 255]
    table = run(*words, clean.parent).out
    for figure in ("psnr_noisy", "psnr_denoised"):
        assert f"{against[figure]:.2f} dB" in table
    shrunk = run(*words, clean, "--shrink", "2", "--json").json()["files"][0]
    assert shrunk["measures"]["reference"]["psnr_noisy"] > against["psnr_noisy"] + 5
    write(tmp_path / "small.png", picture())
    run(*words, tmp_path / "small.png").refusal(
        f"{noisy}: has 1 page of 161x150 and 3 colours, the reference 1 page of 50x40 and 3 colours"
    )
    deep = tmp_path / "deep.npy"
    np.save(deep, read(clean).astype(np.uint16) * 257)
    run(*words, deep).refusal(f"{noisy}: holds uint8, the reference uint16; expected one depth")
    np.save(deep, read(clean).astype(np.float32))
    (file,) = run(*words, deep, "--json").json()["files"]
    assert file["measures"]["reference"]["psnr_noisy"] > 10
    run(*words, tmp_path / "gone.png").refusal(tmp_path / "gone.png", "no such file")
    for suffix in (".tif", ".bmp"):
        write(tmp_path / f"x{suffix}", picture())
    run(*words, tmp_path).refusal(noisy, f"2 files in {tmp_path} have its name")
    several = run("denoise", tmp_path, "-o", tmp_path / "all", "--reference", clean)
    several.refusal("a folder where there are several pictures")


@pytest.mark.usefixtures("calls")
def test_a_reference_of_more_than_8_bits(run: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    clean = np.linspace(-300, 700, 60 * 70).reshape(60, 70)
    noisy = clean + rng.normal(0, 50, clean.shape)
    noisy[5, 7] = np.nan
    for name, array in (("clean.npy", clean), ("noisy.npy", noisy)):
        np.save(tmp_path / name, array)
    words = ("--reference", tmp_path / "clean.npy", "--json")
    against = run("denoise", tmp_path / "noisy.npy", *words).json()["files"][0]["measures"]
    error = np.nanmean(((np.clip(noisy, -300, 700) - clean) / 1000) ** 2)
    assert against["reference"]["psnr_noisy"] == pytest.approx(-10 * np.log10(error), abs=0.1)
    assert against["reference"]["value_range"] == [-300, 700]


def test_shrink_averages_cells_first(run: Any, tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    write(tmp_path / "odd.png", picture(height=41, width=51, layers=4))
    ended = run("denoise", tmp_path / "odd.png", "--shrink", "2", "-o", tmp_path / "half.png")
    assert ended.code == 0, ended.err
    assert "shrink: results have 1/2 of the width and height\n" in ended.err
    cells = read(tmp_path / "odd.png")[:40, :50].astype(float).reshape(20, 2, 25, 2, 4)
    expected = np.rint(cells.mean(axis=(1, 3)))
    np.testing.assert_array_equal(calls[0]["picture"].samples[0], expected)
    assert read_picture(tmp_path / "half.png").samples.shape == (1, 20, 25, 4)
    write(tmp_path / "thin.png", picture(height=1))
    run("denoise", tmp_path / "thin.png", "--shrink", "2").refusal(
        tmp_path / "thin.png", "50x1 pixels; expected 2x2"
    )


def test_bars_are_for_terminals_and_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    batch = Batch(2)
    for name in ("one [1].png", "two.png"):
        with batch.watching(name) as watcher:
            watcher({"step": 1, "steps": 4, "loss": 0.125, "seconds_left": 3.0})
            print("meanwhile")
        print(f"result of {name}")
    shown = capsys.readouterr()
    assert "result of one [1].png\n" in shown.out
    assert "result of two.png\n" in shown.out
    assert "one [1].png" in shown.err
    assert "25%" in shown.err
    assert "loss 0.12500" in shown.err
    assert "all" in shown.err
    assert "62%" in shown.err
