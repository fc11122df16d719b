"""`--turns`: asked of every method, told of every result, and what it comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydenoise.checkpoint import load_weights
from pydenoise.data import read
from pydenoise.inference import denoise_picture


@pytest.mark.parametrize("way", ["builtin", "zero-shot", "model"])
def test_turns_go_through(
    run: Any, folder: Path, weights: Path, calls: list[dict[str, Any]], way: str
) -> None:
    words = ("denoise", folder / "0.png", "--method", way, *(["-m", weights] * (way == "model")))
    for more in ([], ["--dry-run"]):
        result = run(*words, "--turns", "2", "--overwrite", "--json", *more).json()
        assert [file["turns"] for file in result["files"]] == [2]
    assert [call["turns"] for call in calls] == [2]
    own = run(*words, "--overwrite", "--json").json()["files"][0]["turns"]
    assert own == calls[1]["turns"] == (1 if way == "model" else 8)
    for turns, bound in (("0", "equal to 1"), ("9", "equal to 8")):
        run(*words, "--turns", turns).refusal("--turns", bound)


def test_a_model_with_turns(run: Any, folder: Path, weights: Path, tmp_path: Path) -> None:
    words = ("denoise", folder / "0.png", "-m", weights, "-o")
    for turns in (1, 8):
        assert run(*words, tmp_path / f"{turns}.png", "--turns", turns).code == 0
        model = load_weights(weights)[0]
        expected = denoise_picture(model, read(folder / "0.png"), turns=turns)
        np.testing.assert_array_equal(read(tmp_path / f"{turns}.png"), expected)
    assert (read(tmp_path / "1.png") != read(tmp_path / "8.png")).any()


def test_turns_are_measured(run: Any, folder: Path, weights: Path) -> None:
    words = ("eval", folder, "--noise", "gauss:25", "-m", weights, "--json")
    once, often = (run(*words, "--turns", turns).json()["psnr_denoised"] for turns in (1, 8))
    alone = run(*words).json()
    assert (alone["psnr_denoised"], alone["turns"]) == (once, 1) and once != often
    compared = run(*words, "--methods", "tv,model", "--turns", "8").json()
    assert compared["methods"]["model"]["psnr"] == pytest.approx(often)
    assert compared["turns"] == 8
    run(*words[:4], "--methods", "tv,nlm", "--turns", "8").refusal("--turns is for the methods bui")
