"""Training as torchrun starts it: restarts, refusals, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import typer
from kills import pictures
from ranks import alone, commanded, wait_for
from torch.distributed.run import get_args_parser

from pydenoise import cli
from pydenoise.checkpoint import Checkpoints

QUICKLY = 60.0

OPTIONS = [
    *("--noise", "gauss:25", "--hold-out", "1", "--crop", "16", "--channels", "8,12"),
    *("--batch-size", "8", "--pairs-count", "64", "--average", "0.9", "--seed", "5"),
    *("--checkpoint-every", "0", "--deterministic"),
]


def test_torchrun_leaves_every_option_to_us() -> None:
    """It looks at what stands behind `-m pydenoise`, too, for beginnings of its own options."""
    parser = get_args_parser()
    commands: Any = typer.main.get_command(cli.app)
    for name in ("train", "denoise"):
        for parameter in commands.commands[name].params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("-"):
                    words = ["-m", "pydenoise", name, option, "x"]
                    assert parser.parse_args(words).training_script_args == words[2:]


def torchrun(*words: str, size: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += [f"--nproc-per-node={size}", f"--max-restarts={restarts}", "-m", "pydenoise"]
    return subprocess.Popen(
        [*launcher, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Its processes by rank."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {}
    for child in map(int, children):
        said = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        told = dict(word.split(b"=", 1) for word in said if b"=" in word)
        if b"RANK" in told:
            ranks[int(told[b"RANK"])] = child
    return [ranks[rank] for rank in sorted(ranks)]


def test_torchrun_trains_as_one_process_does_and_starts_again_where_one_was_killed(
    tmp_path: Path,
) -> None:
    data, out = pictures(tmp_path / "pictures"), tmp_path / "run"
    words = ["train", str(data), *OPTIONS, "--epochs", "12"]
    code, _, _ = alone(commanded, [*words, "-o", str(tmp_path / "one")])
    assert code == 0
    running = torchrun(*words, "-o", str(out), "--json", restarts=1)
    wait_for(lambda: len(list(out.glob("checkpoints/*.json"))) > 1)
    os.kill(workers_of(running)[1], signal.SIGKILL)
    told, heard = running.communicate(timeout=180)
    assert running.returncode == 0, heard
    assert len(told.splitlines()) == 1, "one result"
    same = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path / "one", out)]
    assert sha256(same[0]).digest() == sha256(same[1]).digest()
    assert len((out / "log.jsonl").read_text().splitlines()) == 12, "one log"


def test_a_refusal_is_one_however_often_torchrun_starts_again(tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "pictures"), tmp_path / "run"
    out.mkdir()
    (out / "model.safetensors").write_text("another run's")
    words = ["train", str(data), *OPTIONS, "--epochs", "1", "-o", str(out)]
    running = torchrun(*words, restarts=1)
    _, heard = running.communicate(timeout=120)
    assert running.returncode != 0
    assert heard.count("holds files; name another folder or pass --overwrite") >= 2
    assert (out / "model.safetensors").read_text() == "another run's"


def test_sigterm_to_one_rank_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    data, out = pictures(tmp_path / "pictures"), tmp_path / "run"
    running = torchrun("train", str(data), *OPTIONS, "--epochs", "2000", "-o", str(out))
    wait_for(lambda: len(list(out.glob("checkpoints/*.json"))) > 1)
    began = time.monotonic()
    os.kill(workers_of(running)[1], signal.SIGTERM)
    _, heard = running.communicate(timeout=QUICKLY)
    assert time.monotonic() - began < QUICKLY
    assert running.returncode != 0
    assert "go on with: torchrun ... -m pydenoise train --resume" in heard
    newest = Checkpoints(out / "checkpoints").newest()
    assert newest is not None
    assert f"training stopped after step {newest.step} of" in heard, (
        "of the step that it stopped at"
    )
