"""`pydenoise denoise` on several processes: workers of one machine, ranks and parts of a batch."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import CONTEXT
from terminal import listing, picture
from torch.distributed import TCPStore

from pydenoise.atomic import new_file, part_files
from pydenoise.batches import portable
from pydenoise.checkpoint import CheckpointError, WeightsError
from pydenoise.cli import main, work, workers
from pydenoise.cli.console import each_for_itself, explained
from pydenoise.cli.parts import leave_last
from pydenoise.cli.progress import Tally, watching
from pydenoise.data import ImageError, write
from pydenoise.data.pairs import PairsError
from pydenoise.launch import cores

SECONDS = 60.0
serve = workers._serve


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """The first takes longest, so that it is not the first to be done."""
    folder = tmp_path / "five"
    folder.mkdir()
    for index in range(5):
        write(folder / f"{index}.png", picture(index, 200 if index == 0 else 40))
    return folder


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    for name, value in {**told, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))


# --- workers ------------------------------------------------------------------------------------


def test_workers_write_what_one_process_writes(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("denoise", five, "--max-mem", "1G", "-o")
    alone = run(*words, tmp_path / "alone", "--threads", 1)
    monkeypatch.setattr(workers, "_serve", noting_its_process)
    shared = run(*words, tmp_path / "shared", "--workers", 2)
    assert shared.code == 0, shared.err
    notes = [path.read_text().split() for path in sorted((tmp_path / "shared").glob("*.note"))]
    assert len(notes) == 5  # a name that is written twice would be refused
    pids, threads, shares = zip(*notes, strict=True)
    assert len(set(pids)) == 2
    assert str(os.getpid()) not in pids
    assert set(threads) == {str(max(1, cores() // 2))}
    assert set(shares) == {str(2**29)}
    for note in (tmp_path / "shared").glob("*.note"):
        note.unlink()
    assert listing(tmp_path / "shared") == listing(tmp_path / "alone")
    for one, other in ((alone.out, shared.out), (alone.err, shared.err)):
        assert one.replace("/alone/", "/shared/") == other


@pytest.mark.usefixtures("calls")
def test_one_worker_or_one_picture_starts_no_process(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_Worker", None)
    assert run("denoise", five, "-o", tmp_path / "a").code == 0
    assert run("denoise", five / "1.png", "-o", tmp_path / "b.png", "--workers", 2).code == 0


def test_failures_of_workers(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come in the order of the plan, with the words and exit codes of one process."""
    (five / "0.png").write_bytes(b"")
    (five / "3.png").write_bytes(b"GIF89a" + bytes(40))
    words = ("denoise", five, "--workers", 2, "-o")
    run(*words, tmp_path / "none").refusal("0.png: the file is empty")
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr(workers, "_serve", killed_at_1_and_2)
    out = tmp_path / "out"
    ended = run(*words, out, "--keep-going", "--json")
    assert ended.code == 1
    assert sorted(listing(out)) == ["4.png"]  # by a worker in place of those
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    expected = (
        f"{five / '0.png'}: the file is empty",
        f"{five / '1.png'}: the process that denoised it was ended by SIGKILL; if memory was short",
        f"{five / '2.png'}: the process that denoised it was ended by SIGKILL; if memory was short",
        f"{five / '3.png'}: is a GIF",
    )
    assert len(errors) == 4, ended.err
    for line, start in zip(errors, expected, strict=True):
        assert line.startswith(f"error: {start}")
    assert ended.err.endswith("4 failed\n")


def test_the_first_failure_of_a_worker_ends_the_batch(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is finished and told of, and nothing else is begun."""
    monkeypatch.setattr(workers, "_serve", failing_at_1)
    out = tmp_path / "out"
    ended = run("denoise", five, "-o", out, "--workers", 2)
    assert ended.code == 2
    assert ended.err.endswith(f"error: {five / '1.png'}: no luck today\n")
    assert sorted(listing(out)) == ["0.png"]
    assert str(out / "0.png") in ended.out


def test_one_bar_for_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    tally = Tally(4)
    for done in (0, 1):
        with tally.showing(done):
            pass
        print(f"result {done}")
    shown = capsys.readouterr()
    assert shown.out == "result 0\nresult 1\n"
    assert "25%" in shown.err
    assert "1 of 4" in shown.err
    as_rank(monkeypatch, 1, 2)  # ranks share a screen without knowing of each other's bars
    with each_for_itself(), watching("a.png") as watcher:
        watcher({"step": 2, "steps": 2, "seconds_left": 0.0})
    assert capsys.readouterr().err == "rank 1: a.png 100%  0 s left\n"


@pytest.mark.parametrize(
    ("size", "number", "code"),
    [(1, signal.SIGTERM, 143), (2, signal.SIGTERM, 143), (2, signal.SIGINT, 130)],
)
def test_a_signal_ends_all_and_leaves_no_half_file(
    five: Path, tmp_path: Path, size: int, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    words = ["denoise", str(five), "-o", str(out), "--workers", str(size), "--keep-going"]
    process = CONTEXT.Process(target=writing_for_ever, args=(words,))
    process.start()
    wait_for(lambda: len(part_files(out)) == size, process)
    pids = {int(path.read_text()) for path in out.glob("*.pid")}
    os.kill(process.pid or 0, number)
    process.join(SECONDS)
    assert process.exitcode == code
    assert not part_files(out)
    assert not list(out.glob("*.png"))
    assert len(pids) == size
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize(
    "error",
    [
        *(kind("a.png: no") for kind in (ImageError, WeightsError, CheckpointError, PairsError)),
        FileExistsError(17, "File exists", "a.png"),
        OSError(28, "No space left on device", "a.png"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel(error: Exception) -> None:
    came = sent(error)
    assert type(came) is type(error)
    assert explained(came) == explained(error)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "ended by SIGKILL; if memory was short, take fewer --workers"),
        (-11, "ended by SIGSEGV"),
        (143, "ended by SIGTERM"),
        (255, "ended with exit code 255; --workers 1 shows why"),
    ],
)
def test_why_a_worker_is_lost(code: int, words: str) -> None:
    assert workers._why(code).endswith(words)


def test_an_error_that_cannot_travel_goes_as_words() -> None:
    class Local(ValueError):
        pass

    assert explained(sent(Local("a.png: no"))).startswith("RuntimeError: Local: a.png: no")


def sent(error: Exception) -> Exception:
    receiver, sender = CONTEXT.Pipe(duplex=False)
    sender.send(portable(error))
    came: Exception = receiver.recv()
    return came


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 7))
@pytest.mark.parametrize("by", ["rank", "part"])
def test_parts_do_every_picture_once(
    run: Any,
    five: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[dict[str, Any]],
    size: int,
    by: str,
) -> None:
    out = tmp_path / "out"
    words = ["denoise", five, "-o", out, "--json"]
    for number in reversed(range(size)):  # what one part has written, the next finds
        if by == "rank":
            as_rank(monkeypatch, number, size)
        own = [] if by == "rank" else ["--part", f"{number + 1}/{size}"]
        outputs = run(*words, *own).json()["outputs"]
        assert outputs == [str(out / f"{index}.png") for index in range(number, 5, size)]
    assert len(calls) == 5
    assert sorted(listing(out)) == [f"{index}.png" for index in range(5)]


@pytest.mark.usefixtures("calls")
def test_every_rank_speaks_of_its_own(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (five / "1.png").write_bytes(b"")
    (five / "notes.txt").write_text("notes")
    words = ("denoise", five, "-o", tmp_path / "out")
    as_rank(monkeypatch, 1, 2)
    run(*words).refusal("rank 1: error: ", "1.png: the file is empty")
    ended = run(*words, "--keep-going")
    assert ended.code == 1
    lines = ended.err.splitlines()
    assert lines[0].startswith(f"rank 1: error: {five / '1.png'}: the file is empty")
    assert lines[-1] == "rank 1: 1 failed"
    assert "method" not in ended.err
    assert "skipped" not in ended.err
    again = run(*words, "--keep-going", "--skip-existing")
    assert "rank 1: skipped 1 existing result: " in again.err
    as_rank(monkeypatch, 0, 2)
    ended = run(*words)
    assert ended.code == 0
    assert ended.err.startswith("method: builtin, since no model is given (-m)\nskipped 1 other")


@pytest.mark.usefixtures("calls")
def test_what_parts_refuse(
    run: Any, five: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for text in ("0/2", "3/2", "1", "1/0", "a/b", "-1/2"):
        run("denoise", five, "-o", out, "--part", text).refusal(f"--part {text}: expected K/N")
    # a folder that grows while others list it
    grown = ("denoise", five, "-o", five, "--suffix", "-x", "--part", "1/2")
    run(*grown).refusal(f"{five / '0-x.png'}: lies among the pictures of {five}", "another --out")
    run("denoise", five / "*.png", *grown[2:]).refusal("lies among the pictures of")
    assert run("denoise", five, "--part", "1/2").code == 0  # beside each, and known by its name
    assert run("denoise", five, "--part", "2/2").code == 0
    assert len(listing(five)) == 10
    for result in five.glob("*_denoised.png"):
        result.unlink()
    # two results of one name concern all parts, a result that is there its own
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "1.png", picture())
    both = ("denoise", five / "[01].png", tmp_path / "more", "-o", out, "--part")
    for text in ("1/3", "2/3", "3/3"):
        run(*both, text).refusal("would be written for both")
    out.mkdir()
    write(out / "1.png", picture())
    assert run("denoise", five, "-o", out, "--part", "1/2").code == 0
    run("denoise", five, "-o", out, "--part", "2/2").refusal(f"{out / '1.png'}: exists")
    clean = ("--reference", five / "0.png", "--part", "2/2")
    run("denoise", five / "[01].png", "-o", tmp_path / "new", *clean).refusal("is a folder where")
    as_rank(monkeypatch, 0, 2)
    run("denoise", five, "--part", "1/2").refusal("--part 1/2: torchrun gives each process")
    run("denoise", five, "--workers", 2).refusal("--workers 2: under torchrun", "--nproc-per-node")


def test_a_rank_that_failed_leaves_last(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    as_rank(monkeypatch, 0, 3)
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    failed = threading.Thread(target=leave_last, args=(True,))
    failed.start()
    leave_last(False)
    failed.join(0.5)
    assert failed.is_alive()
    leave_last(False)
    failed.join(SECONDS)
    assert not failed.is_alive()


# --- what processes run that break --------------------------------------------------------------


def noting_its_process(connection: Any, task: Any) -> None:
    def write_and_note(destination: Path, *rest: Any) -> None:
        written(destination, *rest)
        words = os.getpid(), torch.get_num_threads(), task.wishes.max_bytes
        destination.with_suffix(".note").write_text(" ".join(map(str, words)))

    written, work._write = work._write, write_and_note
    serve(connection, task)


def killed_at_1_and_2(connection: Any, task: Any) -> None:
    def write_or_die(destination: Path, *rest: Any) -> None:
        if destination.name in ("1.png", "2.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        written(destination, *rest)

    written, work._write = work._write, write_or_die
    serve(connection, task)


def failing_at_1(connection: Any, task: Any) -> None:
    def write_late_or_fail(destination: Path, *rest: Any) -> None:
        if destination.name == "1.png":
            raise ImageError(f"{destination.parent.parent / 'five' / '1.png'}: no luck today")
        time.sleep(0.5)  # longer than the other takes to fail
        written(destination, *rest)

    written, work._write = work._write, write_late_or_fail
    serve(connection, task)


def write_for_ever(destination: Path, *_: Any) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.with_suffix(".pid").write_text(str(os.getpid()))
    with new_file(destination) as file:
        file.write(b"half")
        time.sleep(SECONDS)


def serving_for_ever(connection: Any, task: Any) -> None:
    work._write = write_for_ever
    serve(connection, task)


def writing_for_ever(words: list[str]) -> None:
    """A command whose every picture takes for ever to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    work._write, workers._serve = write_for_ever, serving_for_ever
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # as one that a shell starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(words))


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
