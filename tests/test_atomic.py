"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pydenoise.atomic import new_file, new_folder


def test_the_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with new_file(path) as file:
        file.write(b"whole")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"before"])
def test_an_error_leaves_what_was_there(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "f"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(ZeroDivisionError), new_file(path, overwrite=True) as file:
        file.write(b"half" * (file.write(b"a piece") // 0))
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


def test_an_existing_file_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"before")
    with pytest.raises(FileExistsError), new_file(tmp_path / "f"):
        pytest.fail("the block ran")
    with pytest.raises(FileExistsError), new_file(tmp_path, overwrite=True):
        pytest.fail("the block ran")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_came_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "f"
    with pytest.raises(FileExistsError), new_file(path):
        path.write_bytes(b"another's")
    assert path.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with new_file(tmp_path / "f") as file:
        file.write(b"whole")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"whole"]


def test_permissions_are_those_of_any_file_or_of_the_one_before(tmp_path: Path) -> None:
    plain, new = tmp_path / "plain", tmp_path / "new"
    plain.write_bytes(b"")
    with new_file(new):
        pass
    assert stat.S_IMODE(new.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    new.chmod(0o640)
    with new_file(new, overwrite=True) as file:
        file.write(b"again")
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


def test_a_symbolic_link_keeps_pointing(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "link").symlink_to("real")
    with new_file(tmp_path / "link", overwrite=True) as file:
        file.write(b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"after"


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "none" / "f"):
        pytest.fail("the block ran")


def test_an_error_of_the_system_names_the_file_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught, new_file(tmp_path / "f"):
        pass
    assert caught.value.filename == str(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_of_failed_work_is_gone_with_what_was_unfinished(
    tmp_path: Path, is_there: bool, error: type[BaseException]
) -> None:
    folder = tmp_path / "run"
    if is_there:
        folder.mkdir()

    def fail_over(name: str) -> None:
        with new_folder(folder, "log"):
            (folder / name).touch()
            raise error

    with pytest.raises(error):
        fail_over("log")
    assert folder.exists() == is_there
    assert not (folder / "log").exists()
    with pytest.raises(error):
        fail_over("precious")
    assert [path.name for path in folder.iterdir()] == ["precious"]
    with new_folder(folder, "log"):
        (folder / "log").touch()
    assert (folder / "log").exists()
