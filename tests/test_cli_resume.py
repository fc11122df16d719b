"""`pydenoise train` cut off: by signals, kills, a full disk; and gone on with."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from terminal import QUICK, listing

from pydenoise.checkpoint import Checkpoints, load_weights
from pydenoise.run import Run

TESTS = Path(__file__).parent


@pytest.fixture
def words(folder: Path) -> tuple[object, ...]:
    return ("train", folder, "--noise", "gauss:25", "--hold-out", 1, *QUICK, "--batch-size", 8)


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that come between two steps, one after the other; none are left at the end."""
    todo: list[int] = []
    pause = Run._pause

    def interrupted(self: Run) -> None:
        while todo:
            signal.raise_signal(todo.pop(0))
        pause(self)

    monkeypatch.setattr(Run, "_pause", interrupted)
    return todo


def test_the_command_it_tells_has_no_place_behind_two_dashes(
    run: Any, folder: Path, tmp_path: Path, signals: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    words = ("train", "--noise", "gauss:25", *QUICK, "--batch-size", 8, "-o", "run", "--", "photos")
    signals.append(signal.SIGTERM)
    ended = run(*words)
    (line,) = [line for line in ended.err.splitlines() if "go on with: " in line]
    again = run(*shlex.split(line.partition("go on with: pydenoise ")[2]))
    assert again.code == 0, again.err


def test_another_process_training_there_loses_nothing(run: Any, words: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(*words, "-o", out).code == 0
    before = listing(out)
    with Checkpoints(out / "checkpoints").held():
        ended = run(*words, "-o", out, "--overwrite")
    assert ended.code == 2
    assert "another process is training here" in ended.err
    assert listing(out) == before


def told(ended: Any) -> list[str]:
    """The command line that goes on, as the last lines say."""
    (line,) = [line for line in ended.err.splitlines() if "go on with: " in line]
    assert line.startswith("training stopped after step 1 of 6; go on with: pydenoise train ")
    return shlex.split(line.partition("go on with: pydenoise ")[2])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_the_command_it_tells_goes_on(
    run: Any, words: Any, tmp_path: Path, signals: list[int], number: int, code: int
) -> None:
    assert run(*words, "-o", tmp_path / "whole").code == 0
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    signals.append(number)
    out = tmp_path / "with a blank"
    (out / "old").mkdir(parents=True)
    ended = run(*words, "-o", out, "--overwrite")
    assert ended.code == code, ended.err
    assert not (out / "model.safetensors").exists()
    again = run(*told(ended))
    assert again.code == 0, again.err
    whole, cut = listing(tmp_path / "whole"), listing(out)
    assert whole["model.safetensors"] == cut["model.safetensors"]
    epochs = [[json.loads(line) for line in f["log.jsonl"].splitlines()] for f in (whole, cut)]
    for one, two in zip(*epochs, strict=True):
        assert {k for k in one if one[k] != two[k]} <= {"seconds", "pictures_per_second"}
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_the_same_seed_gives_the_same_weights(run: Any, words: Any, tmp_path: Path) -> None:
    digests = []
    for number in range(5):
        assert run(*words, "-o", tmp_path / str(number)).code == 0
        content = (tmp_path / str(number) / "model.safetensors").read_bytes()
        digests.append(sha256(content).hexdigest())
    assert len(set(digests)) == 1
    assert run(*words, "-o", tmp_path / "other", "--seed", 1).code == 0
    other = (tmp_path / "other" / "model.safetensors").read_bytes()
    assert sha256(other).hexdigest() != digests[0]


def test_a_second_signal_stops_it_at_once(
    run: Any, words: Any, tmp_path: Path, signals: list[int]
) -> None:
    signals += [signal.SIGINT, signal.SIGINT]
    assert run(*words, "-o", tmp_path / "a").code == 130
    signals += [signal.SIGTERM, signal.SIGTERM]
    with pytest.raises(SystemExit) as caught:
        run(*words, "-o", tmp_path / "b")
    assert caught.value.code == 143
    for name in ("a", "b"):
        assert run(*words, "-o", tmp_path / name, "--resume").code == 0


def test_resume_starts_where_there_is_nothing_and_harms_nothing(
    run: Any, words: Any, tmp_path: Path
) -> None:
    assert run(*words, "-o", tmp_path / "new", "--resume").code == 0
    before = listing(tmp_path / "new")
    assert run(*words, "-o", tmp_path / "new", "--resume").code == 0
    after = listing(tmp_path / "new")
    assert before["model.safetensors"] == after["model.safetensors"]
    run(*words, "-o", tmp_path / "new").refusal("holds files")
    run(*words, "-o", tmp_path / "new", "--resume", "--overwrite").refusal(
        "--resume", "--overwrite"
    )
    ended = run(*words, "-o", tmp_path / "new", "--resume", "--seed", 9)
    assert ended.code == 2
    assert "is of another run (pairs seed was 0, is 9; " in ended.err
    begun = tmp_path / "begun"  # and killed before the first checkpoint
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "log.jsonl").touch()
    (begun / ".0123456789abcdef.part").touch()
    run(*words, "-o", begun).refusal("holds files")
    run(*words, "-o", begun, "--resume").refusal("holds files")
    (begun / ".0123456789abcdef.part").rename(begun / "checkpoints" / ".0123456789abcdef.part")
    ended = run(*words, "-o", begun, "--resume")
    assert ended.code == 0
    assert "nothing to resume: the run starts\n" in ended.err
    assert not list(begun.rglob("*.part"))
    for path in (begun / "checkpoints").iterdir():
        path.unlink()
    run(*words, "-o", begun, "--resume").refusal("holds files")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    run(*words, "-o", tmp_path / "mine", "--resume").refusal("holds files")
    assert listing(tmp_path / "mine") == {"notes.txt": b"mine"}


def test_overwriting_begins_anew(run: Any, words: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(*words, "-o", out).code == 0
    assert run(*words, "-o", out, "--overwrite", "--seed", 9, "--epochs", 1).code == 0
    assert len((out / "log.jsonl").read_text().splitlines()) == 1
    assert sorted(path.stem for path in (out / "checkpoints").glob("*.json")) == [
        "000000000",
        "000000003",
    ]


def test_a_damaged_checkpoint_is_told_of(
    run: Any, words: Any, tmp_path: Path, signals: list[int]
) -> None:
    out = tmp_path / "run"
    signals.append(signal.SIGTERM)
    ended = run(*words, "-o", out)
    newest = max((out / "checkpoints").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:-1])
    again = run(*told(ended))
    assert again.code == 0, again.err
    assert f"warning: {newest}: is no checkpoint or is damaged" in again.err
    assert "going back to the one before" in again.err
    for path in (out / "checkpoints").glob("*.json"):
        path.write_text("")
    ended = run(*told(ended))
    assert ended.code == 2
    assert "no whole checkpoint is left: start the run anew" in ended.err


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    run: Any, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    flush, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > 6:  # the first checkpoint takes four, of two files and their folder
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        ended = run(*words, "-o", out)
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"error: {out / 'checkpoints' / '000000003.json'}: No space left")
    assert not list(out.rglob(".*.part"))
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == [".lock", "000000000.json", "000000000.safetensors"]
    assert run(*words, "-o", out, "--resume").code == 0


def test_the_best_checkpoint_is_told_of_and_denoises(
    run: Any, words: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([30.0, 20.0])
    monkeypatch.setattr(
        "pydenoise.run.evaluate",
        lambda *_: dict.fromkeys(("psnr_per_image", "psnr_global"), next(scores)),
    )
    ended = run(*words, "-o", tmp_path / "run")
    best = tmp_path / "run" / "checkpoints" / "000000003.json"
    assert f"best on the pictures held out: 30.00 dB, {best}\n" in ended.err
    load_weights(best)
    assert run("denoise", folder / "0.png", "-m", best, "-o", tmp_path / "0.png").code == 0


def test_a_run_that_diverges_can_go_back(
    run: Any, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = ("--optimizer", "sgd", "--lr", "1e30", "--schedule", "constant")
    ended = run(*words, "-o", tmp_path / "a", *bad)
    assert ended.code == 1
    assert "in the batch of pairs" in ended.err
    ended = run(*words, "-o", tmp_path / "b", *bad, "--rollbacks", 3)
    assert ended.code == 1
    assert "with lr 1.25e+29" in ended.err


def kills(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TESTS / "kills.py"), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_random_moments_nothing_is_lost() -> None:
    done = kills("10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10 kills, ")
    assert done.stdout.endswith("\n0 faults\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("sabotage", ["optimizer", "saves"])
def test_a_sabotaged_run_is_found_out(sabotage: str) -> None:
    done = kills("60", "--sabotage", sabotage)  # as many as it takes, mostly few
    assert done.returncode == 1, done.stdout + done.stderr
    assert "another outcome" in done.stdout or "unreadable" in done.stdout
