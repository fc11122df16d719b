"""The demonstration, shortened: what it measures, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pydenoise import demo, nn
from pydenoise.checkpoint import load_weights
from pydenoise.cli import main
from pydenoise.data import read
from pydenoise.objectives import Noise2Noise

FILES = {"chelsea.png", "rocket.png", "learning_curve.png", "model.safetensors"}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "CROPS_PER_EPOCH", 160)
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "VALIDATION_CROPS", 8)


def test_it_learns_and_writes_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "EPOCHS", 12)
    out = tmp_path / "new" / "demo"
    assert main(["demo", "--json", "--out", str(out)]) == 0
    line, *rest = capsys.readouterr().out.splitlines()
    assert not rest
    result = json.loads(line)
    assert result["psnr_denoised"] > result["psnr_noisy"] + 2
    assert result["psnr_denoised_global"] > result["psnr_noisy_global"] + 1
    assert result["ssim_denoised"] > result["ssim_noisy"]
    assert result["pictures"] == 2
    assert result["train_pairs"] == 12 * 160
    assert result["pictures_per_second"] > 0
    assert result["train_seconds"] > 0
    assert result["backend"] in ("cpu", "reference")
    assert result["isa"] in ("scalar", "avx2", "avx512", None)
    assert {path.name for path in out.iterdir()} == FILES
    assert {Path(path) for path in result["files"]} == set(out.iterdir())
    _, header = load_weights(out / "model.safetensors")
    assert "gauss:25" in header["trained_on"]
    assert read(out / "chelsea.png").shape[1] > 3 * 451


def test_point_sampling_too(tmp_path: Path) -> None:
    result = demo.run(tmp_path / "demo", noise="point:8", seconds=5)
    assert result["noise"] == "point:8"
    assert read(tmp_path / "demo" / "rocket.png").size


@pytest.mark.parametrize(
    ("noise", "loss"),
    [
        ("gauss:25", nn.MSELoss),
        ("bernoulli:0.5", nn.MaskedMSELoss),
        ("impulse:0.5", nn.AnnealedL0Loss),
        ("text:0.25", nn.L1Loss),
    ],
)
def test_the_loss_is_that_of_the_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, loss: type[nn.Loss]
) -> None:
    class Seen(Exception):
        pass

    def seen(*positional: Any, objective: Noise2Noise, **keywords: Any) -> None:
        assert type(objective.loss) is loss
        raise Seen

    monkeypatch.setattr(demo, "train", seen)
    with pytest.raises(Seen):
        demo.run(tmp_path / "demo", noise=noise)


def test_same_seed_same_pictures(tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    for name in ("a", "b"):
        results.append(demo.run(tmp_path / name, seed=3))
    assert results[0]["psnr_denoised"] == results[1]["psnr_denoised"]
    first, second = (read(tmp_path / name / "chelsea.png") for name in ("a", "b"))
    assert (first == second).all()


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chelsea.png").write_text("precious")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path) in error
    assert "--overwrite" in error
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]
    (tmp_path / "notes.txt").write_text("mine")
    demo.run(tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"notes.txt"}
    assert read(tmp_path / "chelsea.png").size


def test_no_folder_stays_of_a_run_that_failed(tmp_path: Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path / "demo", progress=interrupt)
    with pytest.raises(ValueError, match="fog"):
        demo.run(tmp_path / "demo", noise="fog:3")
    assert not any(tmp_path.iterdir())
