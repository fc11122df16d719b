"""A folder of checkpoints: the last two and the best, whole or refused, whatever happens to it."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pydenoise import models
from pydenoise.checkpoint import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    CheckpointWarning,
    WeightsError,
    _sealed,
    load_weights,
    save_weights,
)
from pydenoise.checkpoint._one import load_checkpoint

FLIPS = 1000


def checkpoint(step: int, score: float | None = None) -> Checkpoint:
    draw = torch.Generator().manual_seed(step)
    tensors = {f"weights.{i}": torch.randn(3, 4, generator=draw) for i in range(2)}
    tensors["average.0"] = torch.randn(2, generator=draw, dtype=torch.float64)
    state = {"epoch": 3, "loss": 0.1 + 0.2, "history": [{"step": 1}]}
    return Checkpoint(step, score, {"seed": 5, "words": '"sha256":"'}, state, {"x": "1"}, tensors)


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    assert a is not None
    assert a.tensors.keys() == b.tensors.keys()
    return all(
        torch.equal(tensor, b.tensors[name]) and tensor.dtype == b.tensors[name].dtype
        for name, tensor in a.tensors.items()
    ) and (a.step, a.score, a.configuration, a.state, a.versions) == (
        b.step,
        b.score,
        b.configuration,
        b.state,
        b.versions,
    )


def steps(folder: Path) -> list[int]:
    names = {entry.name for entry in folder.iterdir()} - {".lock"}
    found = sorted(int(Path(name).stem) for name in names if name.endswith(".json"))
    assert names == {f"{step:09d}.{kind}" for step in found for kind in ("json", "safetensors")}
    return found


def test_there_and_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "folder")
    assert checkpoints.newest() is None
    assert checkpoints.best() is None
    path = checkpoints.save(checkpoint(7, 30.5))
    assert path == tmp_path / "new" / "folder" / "000000007.json"
    again = Checkpoints(tmp_path / "new" / "folder")
    assert same(again.newest(), checkpoint(7, 30.5))
    assert again.best() == (7, 30.5)
    assert load_checkpoint(path).weights.keys() == {"0"}


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    kept = []
    for step, score in enumerate([None, 20.0, 25.0, None, 24.0, 25.0, 23.0, 22.0], 1):
        checkpoints.save(checkpoint(step, score))
        kept.append(steps(tmp_path))
        checkpoints = Checkpoints(tmp_path) if step % 2 else checkpoints
    assert kept == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5], [5, 6], [6, 7], [6, 7, 8]]
    assert checkpoints.best() == (6, 25.0)


def test_what_a_killed_save_left_is_swept_away(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    (tmp_path / "000000002.safetensors").write_bytes(b"half")
    (tmp_path / ".0123456789abcdef.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert same(Checkpoints(tmp_path).newest(), checkpoint(1))
    checkpoints.save(checkpoint(3))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "notes.txt").unlink()
    assert steps(tmp_path) == [1, 3]
    checkpoints.clear()
    assert not list(tmp_path.iterdir())


def test_a_damaged_newest_falls_back_and_is_written_anew(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(checkpoint(step))
    (tmp_path / "000000002.safetensors").write_bytes(b"")
    with pytest.warns(CheckpointWarning, match=r"000000002\.json: .*damaged.*; going back"):
        assert same(Checkpoints(tmp_path).newest(), checkpoint(1))
    again = Checkpoints(tmp_path)
    again.save(checkpoint(2))
    assert same(again.newest(), checkpoint(2))
    for path in tmp_path.glob("*.json"):
        path.write_text("{}")
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(CheckpointError, match="no whole checkpoint is left: start the run anew"),
    ):
        again.newest()


def test_a_run_that_went_back_leaves_nothing_ahead(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(checkpoint(step, float(step)))
    Checkpoints(tmp_path).save(checkpoint(15, 1.0))
    assert steps(tmp_path) == [10, 15]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    flush, calls = os.fsync, [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 2 * failing - 1:  # a file, its folder, the next file
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device; the checkpoints before") as e:
            checkpoints.save(checkpoint(2))
    assert e.value.errno == errno.ENOSPC
    assert e.value.filename == str(tmp_path / "000000002.json")
    assert steps(tmp_path) == [1]
    assert same(Checkpoints(tmp_path).newest(), checkpoint(1))
    checkpoints.save(checkpoint(2))
    assert steps(tmp_path) == [1, 2]


def test_one_that_cannot_be_read_is_not_taken_for_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(checkpoint(step))

    def unreadable(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(_sealed, "read", unreadable)
        with pytest.raises(PermissionError):
            Checkpoints(tmp_path).newest()
    assert steps(tmp_path) == [1, 2]


def test_the_last_end_of_an_epoch_is_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 8):
        checkpoints.save(replace(checkpoint(step), ends_epoch=step in (1, 3)))
    assert steps(tmp_path) == [1, 3, 6, 7]
    newest = checkpoints.newest(ends_epoch=True), checkpoints.newest(ends_epoch=True, before=3)
    assert [each and each.step for each in newest] == [3, 1]
    assert checkpoints.newest(ends_epoch=True, before=1) is None


def test_files_of_others_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint(1))
    theirs = {"1.json": b"{}", "000000005.json": b'{"mine": 1}', "01700000000.safetensors": b"x"}
    for name, content in theirs.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"000000005\.json: is no checkpoint; move it"):
        checkpoints.clear()
    assert same(load_checkpoint(tmp_path / "000000001.json"), checkpoint(1))
    (tmp_path / "000000005.json").unlink()
    del theirs["000000005.json"]
    (tmp_path / "000000006.json").write_bytes(b"")  # one of ours, damaged
    checkpoints.clear()
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == theirs


def test_one_process_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        Checkpoints(tmp_path).held(),
        pytest.raises(CheckpointError, match="another process is training here; wait"),
        Checkpoints(tmp_path).held(),
    ):
        pass
    again = Checkpoints(tmp_path / "new")
    with again.held(), again.held():
        assert (tmp_path / "new").exists()
    assert not (tmp_path / "new").exists(), "nothing was saved"


def test_only_one_way_in(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.refuse_filled()
    checkpoints.save(checkpoint(1))
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run"):
        checkpoints.refuse_filled()
    with pytest.raises(ValueError, match="every must be 0 seconds or more"):
        Checkpoints(tmp_path, every=-1)


# --- damage -------------------------------------------------------------------------------------


def flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


def found_in(path: Path, load: Any, flips: int, seed: int = 0) -> int:
    """Of so many flipped bits, one at a time, those that were found."""
    content = path.read_bytes()
    places = random.Random(seed).choices(range(8 * len(content)), k=flips)
    found = 0
    for place in places:
        path.write_bytes(flipped(content, place))
        try:
            load()
        except (WeightsError, CheckpointError):
            found += 1
    path.write_bytes(content)
    load()
    return found


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_weights(path, models.autoencoder((2,), in_channels=1, seed=1))
    return path


def test_every_flipped_bit_of_a_weights_file_is_found(weights_file: Path) -> None:
    assert found_in(weights_file, lambda: load_weights(weights_file), FLIPS) == FLIPS


@pytest.mark.parametrize("kind", [".json", ".safetensors"])
def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path: Path, kind: str) -> None:
    path = Checkpoints(tmp_path).save(checkpoint(3, 20.0))
    damaged = path.with_suffix(kind)
    assert found_in(damaged, lambda: load_checkpoint(path), FLIPS) == FLIPS


def test_without_the_sha256_they_would_not_be(
    weights_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the tests above."""
    path = Checkpoints(tmp_path / "run").save(checkpoint(3, 20.0))
    content = path.read_bytes()
    place = _sealed.place_of_digest(content)
    said = content[place : place + 64].decode()
    monkeypatch.setattr(_sealed, "is_whole", lambda *_: True)
    monkeypatch.setattr(_sealed, "digest", lambda *_: said)
    assert found_in(weights_file, lambda: load_weights(weights_file), 200) < 150
    tensors = path.with_suffix(".safetensors")
    assert found_in(tensors, lambda: load_checkpoint(path), 200) < 150


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff\xfe", b"null", b'"x"'])
def test_foreign_files_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = Checkpoints(tmp_path).save(checkpoint(1))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is no checkpoint or is damaged \(it has"):
        load_checkpoint(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(path)


def test_a_json_of_another_checkpoint_does_not_fit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    one, two = checkpoints.save(checkpoint(1)), checkpoints.save(checkpoint(2))
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(CheckpointError, match="another SHA-256"):
        load_checkpoint(one)
    two.rename(tmp_path / "000000003.json")
    two.with_suffix(".safetensors").rename(tmp_path / "000000003.safetensors")
    one.write_bytes(content)
    with pytest.warns(CheckpointWarning, match=r"000000003\.json: is one of step 2"):
        assert same(Checkpoints(tmp_path).newest(), checkpoint(1))
    assert same(load_checkpoint(tmp_path / "000000003.json"), checkpoint(2)), "by its new name"
    two = tmp_path / "000000003.json"
    one.write_bytes(content)
    one.with_suffix(".safetensors").write_bytes(two.with_suffix(".safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="another SHA-256"):
        load_checkpoint(one)


def test_the_best_is_a_number(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, score in enumerate((20.0, float("nan"), float("inf")), 1):
        checkpoints.save(checkpoint(step, score))
    assert Checkpoints(tmp_path).best() == (1, 20.0)
