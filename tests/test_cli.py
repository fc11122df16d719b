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

import pytest
import torch
from terminal import QUICK, listing, picture

from pydenoise.checkpoint import load_weights
from pydenoise.data import read, write

ROOT = Path(__file__).resolve().parent.parent


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
        ["denoise", "x.png", "--strength", "2"],
        ["denoise", "x.png", "--method", "model"],
        ["denoise", "x.png", "--method", "builtin", "-m", "w.safetensors"],
        ["denoise", "x.png", "--method", "zero-shot", "-m", "w.safetensors"],
        ["denoise", "x.png", "-m", "w.safetensors", "--recipe", "paper"],
        ["denoise", "x.png", "--max-mem", "plenty"],
        ["denoise", "x.png", "--range", "1", "0"],
        ["denoise", "x.png", "--suffix", "/x"],
        ["denoise", "x.png", "--overwrite", "--skip-existing"],
        ["eval", "--model", "w.safetensors"],
        ["demo", "--seconds", "0"],
        ["train", "photos", "--out", "run", "--pairs", "a", "b"],
        ["train", "data.pkl", "--out", "run", "--optimizer", "sgd", "--momentum", "7"],
        ["train", "data.pkl", "--out", "run", "--noise", "gauss:25"],
        ["eval", "data.pkl", "-m", "w.safetensors", "--noise", "gauss:25"],
        ["train", "photos", "--out", "run", "--channels", "many", "--noise", "gauss:25"],
        ["bench", "--slow"],
    ],
)
def test_bad_usage_is_2(run: Any, words: list[str]) -> None:
    ended = run(*words)
    ended.refusal("error: ", "--help shows how)")


def test_info(run: Any) -> None:
    assert "reference" in run("info").out
    result = run("info", "--json").json()
    assert result["backends"]["reference"] is None
    assert set(result["backends"]) == {"reference", "cpu", "cuda"}
    assert result["backend"] in ("reference", "cpu")
    assert (result["isa"] is None) == (result["backend"] == "reference")
    assert result["algorithm"] in ("auto", "im2col", "implicit")
    assert result["threads"] >= 1
    assert result["version"] in run("--version").out


@pytest.mark.parametrize(("words", "is_quick"), [([], 1), (["--quick"], 1), (["--full"], 0)])
def test_bench_is_quick_unless_full(
    run: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], is_quick: bool
) -> None:
    def measured(quick: bool, progress: object) -> dict[str, bool]:
        return {"quick": quick}

    monkeypatch.setattr("pydenoise.benchmark.run", measured)
    assert run("bench", "--json", *words).json() == {"quick": bool(is_quick)}


def test_bench_says_where_its_limit_is_wrong(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {
        "environment": {"threads": 2},
        "peak_gflop_per_s": 99.6,
        "copy_gb_per_s": 10.0,
        "cases": [],
        "faults": ["conv1 forward, auto: 200 GFLOP/s"],
    }
    monkeypatch.setattr("pydenoise.benchmark.run", lambda **_: report)
    ended = run("bench")
    assert ended.code == 1
    assert "multiply-adds 100 GFLOP/s, a copy 10 GB/s" in ended.out
    assert "measured too low, as on a busy machine: conv1 forward" in ended.err


def test_no_command_is_a_question(run: Any) -> None:
    ended = run()
    assert ended.code == 0
    assert "denoise" in ended.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout_is_1() -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "pydenoise", "info"], stdout=full, stderr=-1, text=True, cwd=ROOT
        )
    assert result.returncode == 1
    assert result.stderr == "error: writing the result: No space left on device\n"


def test_errors_of_the_system_name_the_path(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train", folder, "--noise", "gauss:25", *QUICK, "--out")
    ended = run(*words, folder / "notes.txt" / "run")
    assert ended.code == 2
    assert ended.err.endswith(
        f"{folder / 'notes.txt' / 'run'}: Not a directory; a file is in the way: "
        "name another place\n"
    )

    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    assert (
        "run: Permission denied; check its permissions\n" in run(*words, folder.parent / "run").err
    )


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
        # A shell's background job hands down a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()
    assert out == b""
    assert b"go on with: pydenoise train --resume " in err
    assert err.endswith(b"\ninterrupted\n")
    assert b"Traceback" not in err
    assert (tmp_path / "run" / "checkpoints").exists()


# --- train --------------------------------------------------------------------------------------


def trained(out: Path) -> list[dict[str, Any]]:
    """The log of a finished run, whose files are there."""
    names = {"model.safetensors", "log.jsonl", "curve.png", "checkpoints"}
    assert {path.name for path in out.iterdir()} == names
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


@pytest.mark.parametrize(
    ("noise", "loss"),
    [("bernoulli:0.5", "masked"), ("impulse:0.2", "l0"), ("text:0.1", "l1"), ("speckle:9", "mse")],
)
def test_train_a_small_unet_with_the_loss_of_the_noise(
    run: Any, tmp_path: Path, folder: Path, noise: str, loss: str
) -> None:
    out = tmp_path / "run"
    words = ("--epochs", 1, "--pairs-count", 4, "--crop", 16, "--batch-size", 2)
    ended = run("train", folder, "--model", "unet-small", "--noise", noise, "-o", out, *words)
    assert ended.code == 0, ended.err
    assert f"loss: {loss}, which {noise} asks for" in ended.err
    model, _ = load_weights(out / "model.safetensors")
    assert model.architecture["name"] == "unet"
    assert model.architecture["width"] == 24


def test_train_takes_the_paper_s_unet_and_a_loss_by_name(
    run: Any, tmp_path: Path, folder: Path
) -> None:
    words = ("--epochs", 1, "--pairs-count", 1, "--crop", 32, "--minutes", 10)
    words = ("train", folder, "--noise", "gauss:0-50", "-o", tmp_path / "run", *words)
    ended = run(*words, "--model", "unet", "--loss", "l1")
    assert ended.code == 0, ended.err
    assert "loss:" not in ended.err, "nothing was chosen"
    model, _ = load_weights(tmp_path / "run" / "model.safetensors")
    assert (model.architecture["width"], model.size_multiple) == (48, 32)
    ended = run(*words, "--overwrite", "--model", "unet", "--channels", "4,5")
    assert ended.code == 2
    assert "the channels of unet are its own" in ended.err
    ended = run(*words, "--overwrite", "--model", "unet", "--crop", "36")
    assert "36x36; this network takes multiples of 32" in ended.err


def test_train_on_the_courses_file(run: Any, tmp_path: Path, course_file: Path) -> None:
    out = tmp_path / "run"
    result = run("train", course_file, "--out", out, "--json", "--epochs", 1).json()
    assert result["psnr_denoised"] > 0, "val_data.pkl beside it was found"
    assert len(trained(out)) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("photos --noise gauss:9 --validation v.pkl", "--validation is for the course's .pkl"),
        ("--burst photos --validation v.pkl", "--validation is for the course's .pkl"),
        ("data.pkl --hold-out 1", "--hold-out is for a folder of clean pictures"),
        ("--pairs a b --hold-out 1", "--hold-out is for a folder of clean pictures"),
        (
            "photos --objective neighbor2neighbor --hold-out 1",
            "--hold-out is for a folder of clean",
        ),
        ("data.pkl --range 0 9", "--range is not for the course's .pkl"),
        ("data.pkl --crop 16", "--crop is not for the course's .pkl"),
        ("data.pkl --pairs-count 8", "--pairs-count is not for the course's .pkl"),
        ("photos --noise gauss:9 --momentum 0.5", "--momentum is for --optimizer sgd alone"),
        ("data.pkl --optimizer adamw --momentum 0", "--momentum is for --optimizer sgd alone"),
    ],
)
def test_train_drops_no_option_silently(run: Any, tmp_path: Path, words: str, reason: str) -> None:
    run("train", *words.split(), "--out", tmp_path / "run").refusal(reason)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "ramp"])
def test_train_options(
    run: Any, tmp_path: Path, course_file: Path, optimizer: str, schedule: str
) -> None:
    out = tmp_path / "run"
    ended = run(
        *("train", course_file, "--out", out, "--json", "--channels", "4", "--epochs", 1),
        *("--optimizer", optimizer, "--schedule", schedule, "--lr", "0.01"),
        *(("--momentum", "0.5") if optimizer == "sgd" else ()),
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
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"log.jsonl", "checkpoints"}
    run(*words, "--lr", "1e-3").refusal("holds files", "--overwrite")
    assert run(*words, "--lr", "1e-3", "--overwrite").code == 0
    for rate in ("inf", "nan"):
        ended = run(*words, "--lr", rate, "--overwrite")
        assert ended.code == 2
        assert "lr" in ended.err.splitlines()[-1]


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
    write(other / "tiny.png", picture(height=5, width=5))
    ended = run("train", other, "--noise", "gauss:25", "--out", out)
    ended.refusal(other / "tiny.png", "5x5", "32x32")
    run("train", course_file, "--out", course_file).refusal(course_file)
    assert not out.exists()
