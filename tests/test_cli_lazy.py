"""`pydenoise train` on folders that are read when needed, and with processes that cut batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from terminal import QUICK, picture

from pydenoise.cli import machine, sources
from pydenoise.data import write


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pydenoise"


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Three pictures of 16 bits, of which the upper half is not in use."""
    (tmp_path / "deep").mkdir()
    for index in range(3):
        numbers = picture(index, 40 + index).astype(np.uint16) * 16
        write(tmp_path / "deep" / f"{index}.png", numbers)
    return tmp_path / "deep"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("folder", "--noise gauss:25 --hold-out 1"),
        ("deep", "--noise gauss:25 --hold-out 1"),
        ("folder", "--noise gauss:25 --hold-out 1 --objective neighbor2neighbor"),
        ("deep", "--objective neighbor2neighbor"),
    ],
)
def test_the_weights_are_the_same(
    run: Any, request: pytest.FixtureRequest, tmp_path: Path, kind: str, words: str
) -> None:
    pictures = request.getfixturevalue(kind)
    measures = []
    for name, more in (("whole", "--no-lazy"), ("lazy", "--lazy")):
        result = run(
            "train", pictures, "-o", tmp_path / name, *QUICK, *words.split(), more, "--json"
        )
        summary = result.json()
        measures.append([value for key, value in summary.items() if "psnr" in key or key == "loss"])
        told = f"{pictures}: 3 pictures, 0.0 GiB in memory, are read when they are needed"
        assert (told in result.err) == (name == "lazy")
    whole, lazy = (arrays(tmp_path / name / "model.safetensors") for name in ("whole", "lazy"))
    assert whole == lazy
    assert measures[0] == measures[1]


def arrays(path: Path) -> bytes:
    """What stands behind the header of a weights file, which also tells of the data."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def test_a_folder_larger_than_a_quarter_of_the_memory_is_read_when_needed(
    run: Any, tmp_path: Path, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", folder, *QUICK, "--noise", "gauss:25"]
    needed = sum((40 + index) * 50 * 3 for index in range(3))
    monkeypatch.setattr(sources, "free_memory", lambda: 5 * needed)
    assert "when they are needed" not in run(*words, "-o", tmp_path / "whole").err
    assert not cache.exists()
    monkeypatch.setattr(sources, "free_memory", lambda: 3 * needed)
    assert "when they are needed" in run(*words, "-o", tmp_path / "lazy").err
    assert len(list(cache.iterdir())) == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.png",
        "1.png",
        "2.png",
        "notes.txt",
    ]


def test_a_run_is_resumed_in_the_manner_it_was_started(
    run: Any, tmp_path: Path, folder: Path
) -> None:
    words = ["train", folder, "-o", tmp_path / "run", *QUICK, "--noise", "gauss:25"]
    assert run(*words, "--lazy").code == 0
    assert run(*words, "--lazy", "--resume").code == 0
    assert "lazy was True, is None" in run(*words, "--no-lazy", "--resume").err


def test_lazy_is_for_folders_alone(run: Any, tmp_path: Path, course_file: Path) -> None:
    for word in ("--lazy", "--no-lazy"):
        run("train", course_file, "-o", tmp_path / "run", word).refusal("for a folder of pictures")


def test_workers_change_no_bit(run: Any, tmp_path: Path, folder: Path) -> None:
    words = ["train", folder, *QUICK, "--epochs", 1, "--noise", "gauss:25", "--lazy"]
    for name, count in (("none", 0), ("one", 1)):
        assert run(*words, "-o", tmp_path / name, "--workers", count).code == 0
    none, one = (tmp_path / name / "model.safetensors" for name in ("none", "one"))
    assert none.read_bytes() == one.read_bytes()


def test_memory_is_what_the_system_and_the_group_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_available", lambda: [4000])
    monkeypatch.setattr(machine, "_GROUP", tmp_path)
    assert machine.free_memory() == 4000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 50\n")
    assert machine.free_memory() == 4000
    (tmp_path / "memory.max").write_text("1000\n")
    assert machine.free_memory() == 350
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert machine.free_memory() == 175
