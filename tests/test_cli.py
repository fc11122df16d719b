"""The command line: what it prints where, what it writes, and how it refuses."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pydenoise import models
from pydenoise.checkpoint import load_weights, save_weights
from pydenoise.cli import main
from pydenoise.data import read, write

ROOT = Path(__file__).resolve().parent.parent
QUICK = ["--channels", "4,6", "--epochs", "2", "--pairs-count", "24", "--crop", "16"]


class Ended:
    """What a command line left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        result: dict[str, Any] = json.loads(self.out)
        return result

    def refusal(self, *words: object) -> str:
        """The one line on stderr of a refusal, which names all of the words."""
        assert self.code == 2, self.err
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        missing = [word for word in map(str, words) if word not in self.err]
        assert not missing, (missing, self.err)
        return self.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: object) -> Ended:
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


def picture(seed: int = 0, height: int = 40, width: int = 50, layers: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + seed + layer)) * np.cos(y / (4 + layer)) for layer in range(layers)]
    return (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three colour pictures of several sizes and a text."""
    (tmp_path / "photos").mkdir()
    for index in range(3):
        write(tmp_path / "photos" / f"{index}.png", picture(index, 40 + index))
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_weights(path, models.autoencoder((4, 6), seed=0))
    return path


@pytest.fixture
def course_file(tmp_path: Path) -> Path:
    (tmp_path / "course").mkdir()
    first, second = torch.randint(256, (2, 20, 3, 16, 16), dtype=torch.uint8)
    torch.save((first, second), tmp_path / "course" / "train_data.pkl")
    torch.save((first[:5], second[:5]), tmp_path / "course" / "val_data.pkl")
    return tmp_path / "course" / "train_data.pkl"


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- help and manners ---------------------------------------------------------------------------


def test_help_is_quick_and_light() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys, pydenoise.cli as c\ntry: c.main(['--help'])\nfinally: print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert not {"torch", "numpy", "matplotlib", "PIL"} & set(result.stdout.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    for command in ("demo", "train", "denoise", "eval", "bench", "info"):
        assert command in result.stdout
    assert "Exit codes" in result.stdout
    assert "130" in result.stdout


def test_module_runs_as_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pydenoise", "--version"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0
    assert result.stdout.startswith("pydenoise ")


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["train"],
        ["denoise", "x.png"],
        ["eval", "--model", "w.safetensors"],
        ["demo", "--seconds", "0"],
        ["train", "photos", "--out", "run", "--pairs", "a", "b"],
        ["train", "data.pkl", "--out", "run", "--momentum", "7"],
        ["train", "data.pkl", "--out", "run", "--noise", "gauss:25"],
        ["eval", "data.pkl", "-m", "w.safetensors", "--noise", "gauss:25"],
        ["train", "photos", "--out", "run", "--channels", "many", "--noise", "gauss:25"],
    ],
)
def test_bad_usage_is_2(run: Any, words: list[str]) -> None:
    ended = run(*words)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err


def test_info(run: Any) -> None:
    assert "reference" in run("info").out
    assert run("info", "--json").json()["backends"]["reference"] is None


def test_traceback_only_with_debug(run: Any, tmp_path: Path, weights: Path) -> None:
    missing = tmp_path / "gone.png"
    assert "Traceback" not in run("denoise", missing, "-m", weights).refusal(missing)
    with pytest.raises(FileNotFoundError):
        run("denoise", missing, "-m", weights, "--debug")


def test_a_fault_of_ours_is_1_and_says_how_to_see_it(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise KeyError("oops")

    monkeypatch.setattr("pydenoise.show_config", broken, raising=False)
    ended = run("info")
    assert ended.code == 1
    assert ended.err == "error: KeyError: 'oops' (--debug shows where)\n"


def test_interrupt_is_130(tmp_path: Path, folder: Path) -> None:
    words = ["train", folder, "--noise", "gauss:25", "--out", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pydenoise", *map(str, words), "--epochs", "100000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert out == b""
    assert b"Traceback" not in err


# --- train --------------------------------------------------------------------------------------


def trained(out: Path) -> list[dict[str, Any]]:
    """The log of a finished run, whose three files are there."""
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "log.jsonl", "curve.png"}
    assert read(out / "curve.png").size
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("noise", ["gauss:25", "gauss:0-50", "poisson:30", "point:2"])
def test_train_on_a_folder_with_noise(run: Any, tmp_path: Path, folder: Path, noise: str) -> None:
    out = tmp_path / "run"
    ended = run("train", folder, "--noise", noise, "-o", out, "--hold-out", 1, "--json", *QUICK)
    result = ended.json()
    log = trained(out)
    assert [record["epoch"] for record in log] == [1, 2]
    assert log[-1]["psnr_per_image"] == result["psnr_denoised"]
    assert log[-1]["psnr_global"] == result["psnr_denoised_global"]
    assert result["psnr_noisy"] > 0
    assert result["train_pairs"] == 48
    assert "notes.txt" in ended.err, "what was skipped is said"
    model, header = load_weights(out / "model.safetensors")
    assert model.architecture == {"name": "autoencoder", "channels": [4, 6], "in_channels": 3}
    assert noise in header["trained_on"]


def test_train_on_two_folders(run: Any, tmp_path: Path, folder: Path) -> None:
    ended = run("train", "--pairs", folder, folder, "--out", tmp_path / "run", *QUICK)
    assert ended.code == 0, ended.err
    assert "no clean pictures" in ended.err
    assert "model.safetensors" in ended.out
    assert trained(tmp_path / "run")[-1]["psnr_per_image"] is None


def test_train_on_the_courses_file(run: Any, tmp_path: Path, course_file: Path) -> None:
    out = tmp_path / "run"
    result = run("train", course_file, "--out", out, "--json", "--epochs", 1).json()
    assert result["psnr_denoised"] > 0, "val_data.pkl beside it was found"
    assert len(trained(out)) == 1


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "ramp"])
def test_train_options(
    run: Any, tmp_path: Path, course_file: Path, optimizer: str, schedule: str
) -> None:
    out = tmp_path / "run"
    ended = run(
        *("train", course_file, "--out", out, "--json", "--channels", "4", "--epochs", 1),
        *("--optimizer", optimizer, "--schedule", schedule, "--lr", "0.01", "--momentum", "0.5"),
        *("--average", "0", "--no-augment", "--batch-size", "7", "--seed", "3"),
    )
    assert ended.json()["train_pairs"] == 20
    assert trained(out)[0]["step"] == 3


def test_same_seed_same_weights(run: Any, tmp_path: Path, folder: Path) -> None:
    ends = []
    for name in ("a", "b"):
        words = ("train", folder, "--noise", "gauss:25", "--out", tmp_path / name, "--seed", 4)
        assert run(*words, *QUICK).code == 0
        ends.append(load_weights(tmp_path / name / "model.safetensors")[0].flatten().data)
    assert torch.equal(*ends)


def test_a_run_is_not_replaced_unasked(run: Any, tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run"
    words = ("train", folder, "--noise", "gauss:25", "--out", out, *QUICK)
    assert run(*words).code == 0
    before = listing(out)
    run(*words).refusal(out, "--overwrite")
    assert listing(out) == before
    assert run(*words, "--overwrite", "--seed", "1").code == 0
    assert len(trained(out)) == 2, "a log of its own"
    assert listing(out) != before


def test_diverged_is_1(run: Any, tmp_path: Path, folder: Path) -> None:
    words = ("train", folder, "--noise", "gauss:25", "--out", tmp_path / "run", *QUICK)
    ended = run(*words, "--optimizer", "sgd", "--lr", "1e38")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: training diverged")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_train_refuses_bad_material(
    run: Any, tmp_path: Path, folder: Path, course_file: Path
) -> None:
    out = tmp_path / "run"
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.pkl"
    text.write_text("no tensors")
    run("train", empty, "--noise", "gauss:25", "--out", out).refusal(empty)
    run("train", tmp_path / "gone", "--noise", "gauss:25", "--out", out).refusal("gone")
    run("train", text, "--out", out).refusal(text)
    ended = run("train", folder, "--noise", "fog:3", "--out", out)
    ended.refusal("fog:3", "gauss:SIGMA")
    ended = run("train", folder, "--noise", "gauss:25", "--out", out, "--crop", 30)
    assert "multiples of 4" in ended.err.splitlines()[-1]
    ended = run("train", folder, "--noise", "gauss:25", "--out", out, "--hold-out", 3)
    assert "leave at least one" in ended.err.splitlines()[-1]
    other = tmp_path / "other"
    other.mkdir()
    write(other / "elsewhere.png", picture())
    run("train", "--pairs", folder, other, "--out", out).refusal(other, "matching names")
    run("train", course_file, "--out", course_file).refusal(course_file)
    assert not out.exists()


# --- denoise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_denoise_beside_the_picture(run: Any, tmp_path: Path, weights: Path, layers: int) -> None:
    photo = tmp_path / "photo.png"
    write(photo, picture(height=13, width=7, layers=layers))
    before = photo.read_bytes()
    ended = run("denoise", photo, "-m", weights)
    assert ended.code == 0, ended.err
    assert ended.out.strip() == str(tmp_path / "photo_denoised.png")
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


def test_denoise_never_overwrites(run: Any, tmp_path: Path, folder: Path, weights: Path) -> None:
    photo = folder / "0.png"
    before = listing(tmp_path)
    run("denoise", photo, "-o", photo, "-m", weights, "--overwrite").refusal(photo)
    run("denoise", folder, "-o", folder, "-m", weights, "--overwrite").refusal(photo)
    run("denoise", photo, "-o", folder / "1.png", "-m", weights).refusal("--overwrite")
    twin = tmp_path / "0.png"
    write(twin, picture())
    before["0.png"] = twin.read_bytes()
    run("denoise", photo, twin, "-o", tmp_path / "new", "-m", weights).refusal(twin, photo)
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
    run("denoise", folder / "0.png", "-o", tmp_path / "x.gif", "-m", weights).refusal("x.gif")
    assert listing(tmp_path) == before


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
    run("eval", "--pairs", folder, tmp_path / "clean", "-m", weights).refusal("names differ")
    for index in range(3):
        write(tmp_path / "clean" / f"{index}.png", picture(index), overwrite=True)
    run("eval", "--pairs", folder, tmp_path / "clean", "-m", weights).refusal("one size")
