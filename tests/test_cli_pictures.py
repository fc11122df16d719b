"""The commands over trained weights: `denoise` and `eval`, what they write and how they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from terminal import listing, picture

from pydenoise import models
from pydenoise.checkpoint import save_weights
from pydenoise.data import read, write

# --- denoise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_denoise_beside_the_picture(run: Any, tmp_path: Path, weights: Path, layers: int) -> None:
    photo = tmp_path / "photo.png"
    write(photo, picture(height=13, width=7, layers=layers))
    before = photo.read_bytes()
    ended = run("denoise", photo, "-m", weights)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == str(tmp_path / "photo_denoised.png")
    assert read(tmp_path / "photo_denoised.png").shape == read(photo).shape
    assert photo.read_bytes() == before


def test_denoise_to_a_file_and_to_a_folder(
    run: Any, tmp_path: Path, folder: Path, weights: Path
) -> None:
    one = folder / "0.png"
    assert run("denoise", one, "-o", tmp_path / "x.jpg", "-m", weights).code == 0
    assert read(tmp_path / "x.jpg").shape == read(one).shape
    several = run("denoise", one, folder / "1.png", "-o", tmp_path / "several", "-m", weights)
    assert several.code == 0, several.err
    assert sorted(listing(tmp_path / "several")) == ["0.png", "1.png"]
    result = run("denoise", folder, "-o", tmp_path / "all", "-m", weights, "--json").json()
    assert result["outputs"] == [str(tmp_path / "all" / f"{i}.png") for i in range(3)]


def test_denoise_keeps_the_kind_of_file(run: Any, tmp_path: Path, weights: Path) -> None:
    stack = tmp_path / "stack.tif"
    pages = np.stack([picture(n)[..., 0].astype("u2") * 200 for n in range(3)])
    tifffile.imwrite(stack, pages, imagej=True, metadata={"axes": "TYX"}, resolution=(2, 2))
    photo = tmp_path / "photo.jpg"
    Image.fromarray(picture()).save(photo, quality=70, dpi=(300, 300), comment="words")
    ended = run("denoise", stack, photo, "-m", weights, "--axes", "TYX")
    ended.refusal("photo.jpg: is a JPEG, which holds one picture")
    told = f"method: model, since one is given: {weights}\n"
    ended = run("denoise", stack, photo, "-m", weights)
    assert ended.code == 0
    assert ended.err.startswith(told)
    assert "written without" not in ended.err
    with tifffile.TiffFile(tmp_path / "stack_denoised.tif") as file:
        assert (file.is_imagej, file.series[0].axes) == (True, "TYX")
        assert file.series[0].dtype == np.uint16
    before, after = Image.open(photo), Image.open(tmp_path / "photo_denoised.jpg")
    assert before.quantization == after.quantization
    assert after.info["dpi"] == (300, 300)
    ended = run("denoise", photo, "-o", tmp_path / "photo.png", "-m", weights)
    assert ended.code == 0
    assert f"\nwarning: {tmp_path / 'photo.png'}: written without a comment\n" in ended.err
    ended = run("denoise", stack, "-o", tmp_path / "renamed.tif", "-m", weights, "--axes", "ZYX")
    assert ended.code == 0, ended.err
    run("denoise", stack, "-o", tmp_path / "x.png", "-m", weights).refusal("this has 3 pages")
    new = ("-o", tmp_path / "new.tif", "-m", weights)
    run("denoise", stack, *new, "--axes", "YX").refusal(stack, "name 2 dimensions")
    run("denoise", photo, *new, "--max-pixels", 1999).refusal(photo, "limit of 1999")
    lost = tmp_path / "lost.npy"
    np.save(lost, np.full((9, 9), np.nan))
    assert run("denoise", lost, "-m", weights).code == 0
    assert np.isnan(np.load(tmp_path / "lost_denoised.npy")).all()


def test_denoise_never_overwrites(run: Any, tmp_path: Path, folder: Path, weights: Path) -> None:
    photo = folder / "0.png"
    before = listing(tmp_path)
    words = ("-m", weights, "--overwrite")
    run("denoise", photo, "-o", photo, *words).refusal(f"{photo}: is the input;")
    run("denoise", folder, "-o", folder, *words).refusal(f"{photo}: is the input;")
    run("denoise", photo, folder / "1.png", "-o", folder, *words).refusal("is the input;")
    run("denoise", photo, "-o", folder / "1.png", "-m", weights).refusal("--overwrite")
    twin = tmp_path / "0.png"
    write(twin, picture())
    before["0.png"] = twin.read_bytes()
    run("denoise", photo, twin, "-o", tmp_path / "new", "-m", weights).refusal(
        tmp_path / "new" / "0.png", f"would be written for both {photo} and {twin}"
    )
    run("denoise", folder, "-o", photo, "-m", weights).refusal(photo, "name a folder")
    assert listing(tmp_path) == before
    assert run("denoise", photo, "-o", folder / "1.png", "-m", weights, "--overwrite").code == 0


def test_denoise_writes_nothing_when_an_input_is_bad(
    run: Any, tmp_path: Path, folder: Path, weights: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    before = listing(tmp_path)
    run("denoise", folder / "0.png", text, "-o", tmp_path / "new", "-m", weights).refusal(text)
    run("denoise", tmp_path / "gone.png", "-m", weights).refusal("gone.png", "no such file")
    run("denoise", folder / "0.png", "-m", tmp_path / "gone").refusal(tmp_path / "gone")
    run("denoise", folder / "0.png", "-m", text).refusal(text)
    run("denoise", folder / "0.png", "-o", tmp_path / "new" / "x.gif", "-m", weights).refusal(
        "x.gif", "suffix"
    )
    see_through = tmp_path / "alpha.png"
    write(see_through, picture(layers=4))
    before["alpha.png"] = see_through.read_bytes()
    run("denoise", see_through, "-o", tmp_path / "new" / "x.jpg", "-m", weights).refusal("alpha")
    for out, input in ((text / "x.png", see_through), (text, folder), (text / "new", folder)):
        for words in ((), ("--overwrite",)):
            ended = run("denoise", input, "-o", out, "-m", weights, *words)
            ended.refusal(f"{text}: is a file; name a folder")
    assert not (tmp_path / "new").exists(), "no folder for nothing"
    assert listing(tmp_path) == before


def test_denoise_of_a_folder_leaves_its_own_results_out(
    run: Any, folder: Path, weights: Path
) -> None:
    assert run("denoise", folder, "-m", weights).code == 0
    once = listing(folder)
    ended = run("denoise", folder, "-m", weights, "--overwrite")
    assert ended.code == 0, ended.err
    assert f"skipped 3 earlier results: {folder / '0_denoised.png'} ..." in ended.err
    assert listing(folder) == once
    assert run("denoise", folder, "-o", folder.parent / "all", "-m", weights).code == 0
    assert (folder.parent / "all" / "0_denoised.png").exists()
    for index in range(3):
        (folder / f"{index}.png").unlink()
    run("denoise", folder, "-m", weights).refusal(folder, "nothing but results")


def test_weights_take_values_in_the_range_that_they_were_trained_on(
    run: Any, tmp_path: Path
) -> None:
    """A network that gives 1 everywhere gives the upper end of its range."""
    model = models.autoencoder((4, 6), in_channels=1, seed=0)
    for parameter in model.parameters():
        parameter.data.zero_()
    *_, last = model.parameters()
    last.data.fill_(100)
    ramp = np.linspace(0, 4000, 256).reshape(16, 16).astype(np.uint16)
    (tmp_path / "ramps").mkdir()
    np.save(tmp_path / "ramps" / "x.npy", ramp)
    path, out = tmp_path / "w.safetensors", tmp_path / "out.npy"
    for bounds, low, high in (((500, 3000), 500, 3000), ((0, 1), 0, 65535)):
        save_weights(path, model, value_range=bounds, overwrite=True)
        words = ("denoise", tmp_path / "ramps" / "x.npy", "-m", path, "-o", out, "--overwrite")
        assert run(*words).code == 0
        assert (np.load(out) == high).all()
        measures = run(
            "eval", tmp_path / "ramps", "--noise", "gauss:0", "-m", path, "--json"
        ).json()
        error = 1 - ((ramp - float(low)) / (high - low)).clip(0, 1)
        expected = -10 * np.log10(np.mean(error**2))
        assert measures["psnr_denoised"] == pytest.approx(expected, abs=0.02)


# --- eval ---------------------------------------------------------------------------------------


def test_eval_on_a_folder(run: Any, folder: Path, weights: Path) -> None:
    words = ("eval", folder, "--noise", "gauss:25", "-m", weights, "--seed", "2")
    result = run(*words, "--json").json()
    assert result["pictures"] == 3
    assert 19 < result["psnr_noisy"] < 22
    again = run(*words, "--json").json()
    assert again["psnr_denoised"] == result["psnr_denoised"]
    table = run(*words).out
    for figure in ("psnr_noisy", "psnr_denoised", "psnr_noisy_global", "psnr_denoised_global"):
        assert f"{result[figure]:.2f} dB" in table
    assert f"{result['ssim_denoised']:.4f}" in table


def test_eval_against_clean_pictures(
    run: Any, tmp_path: Path, folder: Path, course_file: Path, weights: Path
) -> None:
    result = run("eval", "--pairs", folder, folder, "-m", weights, "--json").json()
    assert result["psnr_noisy"] == pytest.approx(80)
    result = run("eval", course_file, "-m", weights, "--json").json()
    assert result["pictures"] == 20
    run("eval", folder, "-m", tmp_path / "gone", "--noise", "gauss:25").refusal("gone")
    assert "--noise" in run("eval", folder, "-m", weights).err
    (tmp_path / "clean").mkdir()
    write(tmp_path / "clean" / "0.png", picture())
    ended = run("eval", "--pairs", folder, tmp_path / "clean", "-m", weights)
    ended.refusal("clean: no picture is named '1', '2'")
    for index in range(3):
        write(tmp_path / "clean" / f"{index}.png", picture(index), overwrite=True)
    run("eval", "--pairs", folder, tmp_path / "clean", "-m", weights).refusal("one size")


def test_eval_of_small_pictures_leaves_ssim_out(run: Any, tmp_path: Path, weights: Path) -> None:
    write(tmp_path / "tiny.png", picture(height=6, width=30))
    words = ("eval", tmp_path, "--noise", "gauss:25", "-m", weights)
    assert run(*words, "--json").json()["ssim_denoised"] is None
    table = run(*words).out
    assert "PSNR" in table
    assert "SSIM" not in table
    words = ("eval", tmp_path, "--noise", "point:8", "-m", weights)
    run(*words).refusal("tiny.png: is 6x30 pixels", "8x8")
