"""`pydenoise denoise` over batches: which files go where, and what happens when one goes wrong."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from terminal import listing, picture

from pydenoise.cli.console import visible
from pydenoise.data import write


def test_what_is_no_file_is_refused_and_the_rest_done(run: Any, tmp_path: Path) -> None:
    write(tmp_path / "1.png", picture(1))
    os.mkfifo(tmp_path / "pipe.png")
    words = ("denoise", tmp_path / "pipe.png", tmp_path / "1.png", "-o", tmp_path / "out")
    wrong = f"error: {tmp_path / 'pipe.png'}: is a device or a pipe; expected a file or a folder"
    run(*words).refusal(wrong)
    ended = run(*words, "--keep-going")
    assert ended.code == 1
    assert wrong in ended.err
    assert names(tmp_path / "out") == ["1.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_may_not_be_read_is_told_and_the_rest_done(
    run: Any, tmp_path: Path, is_folder: bool
) -> None:
    write(tmp_path / "1.png", picture(1))
    closed = tmp_path / "closed.png"
    closed.mkdir() if is_folder else closed.write_bytes((tmp_path / "1.png").read_bytes())
    closed.chmod(0)
    ended = run("denoise", closed, tmp_path / "1.png", "-o", tmp_path / "out", "--keep-going")
    closed.chmod(0o700)
    assert ended.code == 1
    assert f"error: {closed}: " in ended.err
    assert names(tmp_path / "out") == ["1.png"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures and other files at several depths."""
    root = tmp_path / "scans"
    for place in ("1.png", "b/2.tif", "b/c/1.png", ".hidden/3.png"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        write(root / place, picture(len(place)))
    (root / "b" / "notes.txt").write_text("notes")
    return root


def names(folder: Path) -> list[str]:
    return sorted(listing(folder))


# --- which files --------------------------------------------------------------------------------


@pytest.mark.usefixtures("calls")
def test_a_tree_is_mirrored(run: Any, tree: Path, tmp_path: Path) -> None:
    (tree / "linked").symlink_to(tree, target_is_directory=True)
    out = tmp_path / "out"
    result = run("denoise", tree, "-r", "-o", out, "--json").json()
    assert names(out) == ["1.png", "b/2.tif", "b/c/1.png"]
    assert [file["output"] for file in result["files"]] == result["outputs"]
    foreign = {str(tree / name) for name in (".hidden", "b/notes.txt", "linked")}
    assert set(result["skipped"]) == foreign
    ended = run("denoise", tree, "-o", tmp_path / "flat")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "flat") == ["1.png"]
    assert f"skipped 3 other files: {tree / '.hidden'} ..." in ended.err


def test_a_file_named_twice_is_done_once(
    run: Any, folder: Path, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    inputs = (folder, folder / "1.png", folder / "*.png")
    assert run("denoise", *inputs, "-o", tmp_path / "out").code == 0
    assert len(calls) == 3


@pytest.mark.usefixtures("calls")
def test_results_inside_the_tree_are_no_input(run: Any, tree: Path) -> None:
    words = ("denoise", tree, "--recursive", "-o", tree / "results")
    assert run(*words).code == 0
    before = names(tree)
    again = run(*words, "--overwrite", "--json").json()
    assert names(tree) == before
    assert len(again["outputs"]) == len(again["earlier"]) == 3


@pytest.mark.usefixtures("calls")
def test_patterns_the_shell_left(
    run: Any, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("denoise", tree / "**" / "*.png", "-o", tmp_path / "all").code == 0
    assert names(tmp_path / "all") == ["1.png", "b/c/1.png"]
    monkeypatch.chdir(tree)
    assert run("denoise", "*.png", "-o", tmp_path / "here").code == 0
    assert names(tmp_path / "here") == ["1.png"]
    assert run("denoise", "*.png").code == 0
    assert run("denoise", "*.png", "--overwrite").code == 0
    assert sorted(Path().glob("*.png")) == [Path("1.png"), Path("1_denoised.png")]
    run("denoise", "*.bmp").refusal("*.bmp: no file has such a name; check the pattern")
    write("[1].png", picture())
    assert run("denoise", "[1].png", "-o", tmp_path / "odd.png").code == 0


@pytest.mark.usefixtures("calls")
def test_suffix_and_what_is_there_already(run: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("denoise", folder / "1.png", "-o", out / "", "--suffix", "-x").code == 2
    out.mkdir()
    assert run("denoise", folder / "1.png", "-o", out, "--suffix", "-x").code == 0
    first = listing(out)
    assert list(first) == ["1-x.png"]
    words = ("denoise", folder, "-o", out, "--suffix", "-x")
    run(*words).refusal(out / "1-x.png", "--overwrite", "--skip-existing")
    result = run(*words, "--skip-existing", "--json").json()
    assert result["existing"] == [str(out / "1-x.png")]
    assert names(out) == ["0-x.png", "1-x.png", "2-x.png"]
    assert listing(out)["1-x.png"] == first["1-x.png"]
    ended = run(*words, "--skip-existing")
    assert (ended.code, ended.out) == (0, "")
    assert "skipped 3 existing results" in ended.err
    assert run(*words, "--overwrite").code == 0
    run("denoise", folder, "--suffix", "").refusal("is the input")


def test_dry_run_says_all_and_does_nothing(
    run: Any, tree: Path, tmp_path: Path, calls: list[dict[str, Any]]
) -> None:
    before = listing(tmp_path)
    words = ("denoise", tree, "-r", "-o", tmp_path / "out", "--shrink", "2", "--dry-run")
    ended = run(*words)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines() == [
        f"{tree / name} -> {tmp_path / 'out' / name} (25x20, 3 channels)"
        for name in ("1.png", "b/2.tif", "b/c/1.png")
    ]
    assert "method: builtin" in ended.err
    told = run(*words, "--json").json()
    assert [Path(file["output"]).name for file in told["files"]] == ["1.png", "2.tif", "1.png"]
    (tree / "b" / "4.png").write_bytes(b"")
    before["scans/b/4.png"] = b""
    run(*words, "--keep-going").err.index("4.png: the file is empty")
    assert listing(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert not calls


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
        ("\u2066a\x9b1m\t", r"\u2066a\x9b1m\t"),
        ("\udc80", r"\udc80"),
        ("\U0001f469\u200d\U0001f52c \u0645\u06cc\u200c\u062e a\u0301 日本", None),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(name: str, seen: str | None) -> None:
    assert visible(name) == (seen or name)


def test_names_that_are_no_text_do_no_harm(tmp_path: Path, tree: Path) -> None:
    """Nor do those that a terminal would obey; in processes of their own, with a strict stdout."""
    folder = tmp_path / "named"
    folder.mkdir()
    names = [b"red\x1b[31m.png", b"two\nlines.png", b"\xff\xfe.png", b"[bold]:dog:.png"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(
            (tree / "1.png").read_bytes()
        )
    seen = [r"red\x1b[31m.png", r"two\nlines.png", r"\udcff\udcfe.png", "[bold]:dog:.png"]
    damaged = Path(os.fsdecode(os.path.join(os.fsencode(folder), b"\x1b[2J\xff.png")))
    damaged.write_bytes(b"")
    for words, encoding in (["--dry-run"], "latin-1"), ([], "utf-8"):
        command = [sys.executable, "-m", "pydenoise", "denoise", folder, "-o", tmp_path / "out"]
        environment = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
        ended = subprocess.run(
            [*command, "--keep-going", *words], capture_output=True, env=environment, check=False
        )
        assert ended.returncode == 1
        assert b"\x1b" not in ended.stdout + ended.stderr
        assert rb"\x1b[2J\udcff.png: the file is empty" in ended.stderr
        lines = ended.stdout.decode(encoding).splitlines()
        for name in seen:
            told = [line for line in lines if line.endswith(f"out/{name}") or f"{name} ->" in line]
            assert len(told) == 1, (name, lines)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(names)


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.fixture
def bad(tree: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, str]:
    """Bad files in a tree, and what is said of each."""
    png = (tree / "1.png").read_bytes()
    tiff = (tree / "b" / "2.tif").read_bytes()
    huge = bytearray(png)
    huge[16:24] = struct.pack(">II", 50_000, 50_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    contents = {
        "truncated.png": (png[: len(png) // 2], "truncated or damaged"),
        "b/truncated.tif": (tiff[: len(tiff) // 2], "truncated or damaged"),
        "empty.jpg": (b"", "the file is empty (0 bytes); get it again"),
        "animated.png": (b"GIF89a" + bytes(40), "is a GIF; expected a whole picture file"),
        "b/huge.png": (bytes(huge), "raise max_pixels"),
    }
    for name, (content, _) in contents.items():
        (tree / name).write_bytes(content)
    (tree / "locked").mkdir()
    listed = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path == tree / "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    said = {tree / name: words for name, (_, words) in contents.items()}
    return said | {tree / "locked": "Permission denied; check its permissions"}


@pytest.mark.usefixtures("calls")
def test_keep_going_does_the_rest(
    run: Any, tree: Path, tmp_path: Path, bad: dict[Path, str]
) -> None:
    out = tmp_path / "out"
    inputs = (tree, tree / "gone.png", out / "1.png")
    run("denoise", *inputs, "-r", "-o", out).refusal()
    assert not out.exists()
    words = ("-r", "-o", out, "--keep-going", "--json")
    ended = run("denoise", *inputs, *words)
    assert ended.code == 1
    result = json.loads(ended.out)
    assert names(out) == ["1.png", "b/2.tif", "b/c/1.png"]
    assert len(result["outputs"]) == 3
    expected = bad | {tree / "gone.png": "no such file", out / "1.png": "no such file"}
    assert set(result["failed"]) == {str(path) for path in expected}
    for path, words in expected.items():
        message = result["failed"][str(path)]
        assert message.startswith(f"{path}: ")
        assert words in message
        assert f"error: {message}\n" in ended.err
    assert ended.err.endswith(f"{len(expected)} failed\n")
    for message in ended.err.splitlines():
        assert "Traceback" not in message


@pytest.mark.usefixtures("calls")
def test_keep_going_spares_inputs(run: Any, folder: Path) -> None:
    before = listing(folder)
    ended = run("denoise", folder, "-o", folder, "--overwrite", "--keep-going")
    assert ended.code == 1
    assert ended.err.count("is the input; choose another output") == 3
    assert listing(folder) == before


def test_a_folder_that_may_not_be_written_to_is_found_before_the_work(
    run: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    run("denoise", folder, "-o", tmp_path / "a" / "b").refusal(
        f"{tmp_path}: may not be written to; choose another folder"
    )
    assert not calls


@pytest.mark.usefixtures("calls")
def test_a_full_disk_leaves_no_half_file(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, count = os.fsync, iter(range(100))

    def full_at_first(descriptor: int) -> None:
        if next(count) == 0:
            raise OSError(28, "No space left on device")
        synced(descriptor)

    monkeypatch.setattr("os.fsync", full_at_first)
    out = tmp_path / "out"
    ended = run("denoise", folder, "-o", out, "--keep-going")
    assert ended.code == 1
    assert f"error: {out / '0.png'}: cannot be written (No space left on device);" in ended.err
    assert names(out) == ["1.png", "2.png"]


@pytest.mark.parametrize("where", ["pydenoise.builtin.denoise_pages", "os.fsync"])
def test_an_interrupt_leaves_no_half_file(
    run: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
    where: str,
) -> None:
    out = tmp_path / "out"
    assert run("denoise", folder / "0.png", "-o", out / "0.png").code == 0
    before = listing(tmp_path)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    ended = run("denoise", folder, "-o", out, "--overwrite", "--keep-going")
    assert ended.code == 130
    assert ended.err.endswith("interrupted\n")
    assert listing(tmp_path) == before


@pytest.mark.usefixtures("calls")
def test_faults_of_the_method_name_the_picture(
    run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("builtin: picture has 2x2 pixels; expected more")

    monkeypatch.setattr("pydenoise.builtin.denoise_pages", refuse)
    ended = run("denoise", folder / "0.png")
    assert ended.code == 2
    assert ended.err.endswith(f"error: {folder / '0.png'}: builtin: picture has 2x2 pixels; "
                              "expected more\n")  # fmt: skip
