"""`pydenoise eval --methods`: a row for each, the same figures in the table and in JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydenoise import comparison
from pydenoise.data import write


def test_methods_side_by_side(
    run: Any, folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "find_spec", lambda name: None)
    words = ("eval", folder, "--noise", "gauss:25", "--seed", "2", "--methods")
    ended = run(*words, "tv,model, bm3d", "-m", weights, "--json")
    result = ended.json()
    assert list(result["methods"]) == ["tv", "model", "bm3d"]
    assert result["pictures"] == 3
    assert "bm3d: not installed; pip install bm3d" in ended.err
    assert set(result["methods"]["bm3d"]) == {"missing"}
    tv, model = result["methods"]["tv"], result["methods"]["model"]
    assert set(tv) == {"psnr", "ssim", "seconds", "peak_mb"}
    assert tv["psnr"] > result["psnr_noisy"] + 3
    alone = run(*words[:-1], "-m", weights, "--json").json()
    assert model["psnr"] == pytest.approx(alone["psnr_denoised"])
    assert model["ssim"] == pytest.approx(alone["ssim_denoised"])
    assert result["psnr_noisy"] == pytest.approx(alone["psnr_noisy"])
    table = run(*words, "tv,bm3d").out
    assert f"{tv['psnr']:.2f}" in table
    assert f"{tv['psnr'] - result['psnr_noisy']:+.2f}" in table
    assert f"{tv['ssim']:.4f}" in table
    assert "BM3D: not installed" in table


def test_methods_on_the_courses_file(run: Any, course_file: Path) -> None:
    result = run("eval", course_file, "--methods", "wavelet", "--json").json()
    assert result["pictures"] == 20
    assert result["methods"]["wavelet"]["ssim"] is not None


def test_the_range_is_what_psnr_goes_by(run: Any, tmp_path: Path) -> None:
    """12 bits in 16: an error of 5 in 100 of the range, by either kind of noise."""
    rng = np.random.default_rng(0)
    clean = rng.integers(1000, 3000, (64, 64), dtype=np.uint16)
    noisy = np.clip(clean + rng.normal(0, 0.05 * 4095, clean.shape), 0, 65535).astype(np.uint16)
    for name, pixels in (("clean", clean), ("noisy", noisy)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "x.png", pixels)
    words = ("eval", "--methods", "tv", "--json", "--range", "0", "4095")
    of_pairs = run(*words, "--pairs", tmp_path / "noisy", tmp_path / "clean").json()
    drawn = run(*words, tmp_path / "clean", "--noise", f"gauss:{0.05 * 255}").json()
    for result in (of_pairs, drawn):
        assert result["psnr_noisy"] == pytest.approx(26.0, abs=0.3)
    for ends in (("1", "0"), ("0", "inf"), ("nan", "1")):
        run("eval", tmp_path / "clean", "--range", *ends, "--noise", "gauss:9").refusal("LO < HI")


def test_numbers_of_an_unknown_range_are_refused(run: Any, tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    np.save(folder / "x.npy", np.linspace(0, 1e5, 400, dtype=np.float32).reshape(20, 20))
    for ways in (("--methods", "tv"), ("-m", weights)):
        for data in ((folder, "--noise", "gauss:25"), ("--pairs", folder, folder)):
            ended = run("eval", *data, *ways)
            ended.refusal("numbers up to 100000, expected 0 to 1; ", "--range LO HI")
    assert run("eval", folder, "--noise", "gauss:5", *ways, "--range", "0", "1e5").code == 0


def test_methods_that_are_refused(run: Any, folder: Path, weights: Path) -> None:
    words = ("eval", folder, "--noise", "gauss:25")
    run(*words).refusal("give -m WEIGHTS to measure, or --methods to compare")
    run(*words, "--methods", "tv,median").refusal("unknown method 'median'", "builtin", "bm3d")
    run(*words, "--methods", "tv,model").refusal("-m WEIGHTS and the method model")
    run(*words, "--methods", "tv", "-m", weights).refusal("-m WEIGHTS and the method model")
    run(*words, "--methods", "model", "-m", folder / "notes.txt").refusal("notes.txt")
