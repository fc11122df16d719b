"""What all commands share: options, results, and errors as one line with a cure."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer

from pydenoise.launch import launched

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
Seed = Annotated[int, typer.Option(min=0, help="Fixes every random choice.")]
Turns = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=8,
        help="How many of a picture's eight turned and mirrored versions are denoised, the result "
        "being the mean: mostly better with each, and up to as many times slower but for "
        "zero-shot's learning. If omitted, 8 for builtin and zero-shot, 1 for a model and the "
        "paper's recipe.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="WEIGHTS",
        help="Trained weights, a .safetensors file; or a training run's checkpoint, a .json file.",
    ),
]
NOISE_FORMS = (
    "gauss:25, gauss:0-50, poisson:30, poisson-gauss:30,10, speckle:40, bernoulli:0.5, "
    "impulse:0.5, text:0.25 or point:8"
)

# What the parser raises, an exception of click, which typer may bring along under its own name.
BAD_USAGE: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_BAD_INPUT = (
    BAD_USAGE,
    ValueError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)

_CURES = {
    PermissionError: "; check its permissions",
    NotADirectoryError: "; a file is in the way: name another place",
    IsADirectoryError: "; name a file",
    FileNotFoundError: "; check the name",
}


# In a file's name: what moves the cursor or turns the line about, and bytes that are no text.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def package_version(wanted: bool) -> None:
    """Print the version and leave, when it is wanted."""
    if wanted:
        from pydenoise import __version__

        typer.echo(f"pydenoise {__version__}")
        raise typer.Exit


def failure(error: Exception) -> int:
    """Say on one line what went wrong; returns the exit code: 2 for bad input, 1 for the rest."""
    _by_rank(f"error: {explained(error)}")
    return 2 if isinstance(error, _BAD_INPUT) else 1


def explained(error: Exception) -> str:
    """What went wrong and what to do, on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, BAD_USAGE):
        context = getattr(error, "ctx", None)
        cure = f" ({context.command_path} --help shows how)" if context else ""
        text = " ".join(error.format_message().split()) + cure
    elif isinstance(error, FileExistsError):
        text = text if ";" in text else f"{error.filename or text}: exists; pass --overwrite"
    elif isinstance(error, OSError) and error.strerror:
        cure = next((cure for kind, cure in _CURES.items() if isinstance(error, kind)), "")
        text = f"{error.filename or 'writing the result'}: {error.strerror}{cure}"
        if not error.filename:
            _give_up_stdout()
    elif not isinstance(error, _BAD_INPUT) and type(error).__module__ == "builtins":
        text = f"{type(error).__name__}: {text} (--debug shows where)"
    return text


def check_range(value_range: tuple[float, float] | None) -> None:
    """Refuse a --range that does not rise, or has no end."""
    if value_range is not None and not -math.inf < value_range[0] < value_range[1] < math.inf:
        low, high = value_range
        raise typer.BadParameter(f"--range {low:g} {high:g}: expected finite numbers, LO < HI")


def refuse(options: Mapping[str, object], reason: str) -> None:
    """No option that is given, one that is not None, may be dropped silently."""
    for name, given in options.items():
        if given is not None:
            raise typer.BadParameter(f"--{name} {reason}")


class Failures:
    """What went wrong with single files of a batch, by file.

    The first ends the batch, unless it is to be kept going: then each is said and remembered.
    """

    def __init__(self, keep_going: bool) -> None:
        self.keep_going = keep_going
        self.found: dict[str, str] = {}

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Work on a file, within which its errors count."""
        try:
            yield
        except Exception as error:
            if not self.keep_going:
                raise
            self.found[str(path)] = explained(error)
            say(f"error: {self.found[str(path)]}")


def _give_up_stdout() -> None:
    """What could not be written is not tried again, and complained of again, when we leave."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(text: str) -> str:
    """`text` with control characters, what turns a line about, and bytes that are no text, as
    Python writes them."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def tell(text: str) -> None:
    """A line of the result, on stdout."""
    typer.echo(visible(text))


def say(text: str) -> None:
    """A line on stderr; where nobody can read it, the work goes on. Of the processes that torchrun
    started the first speaks, but for what is said `each_for_itself`."""
    _voice.get()(text)


@contextmanager
def each_for_itself() -> Iterator[None]:
    """Scope in which every process that torchrun started speaks, with its rank in front."""
    with _speaking(_by_rank):
        yield


@contextmanager
def unsaid() -> Iterator[list[str]]:
    """Scope in which what is said is kept, for another process to say."""
    lines: list[str] = []
    with _speaking(lines.append):
        yield lines


def is_heard_with_others() -> bool:
    """Whether other processes speak on this screen, too: no place for a bar."""
    told = launched()
    return _voice.get() is _by_rank and told is not None and told.size > 1


@contextmanager
def _speaking(voice: Callable[[str], None]) -> Iterator[None]:
    before = _voice.set(voice)
    try:
        yield
    finally:
        _voice.reset(before)


def _by_first(text: str) -> None:
    told = launched()
    if told is None or told.rank == 0:
        _write(text)


def _by_rank(text: str) -> None:
    told = launched()
    _write(f"rank {told.rank}: {text}" if told and told.size > 1 else text)


_voice: ContextVar[Callable[[str], None]] = ContextVar("_voice", default=_by_first)


def _write(text: str) -> None:
    with suppress(OSError):
        typer.echo(visible(text), err=True)


@contextmanager
def saying_warnings(where: str = "") -> Iterator[list[str]]:
    """What is warned of within, a line each on stderr, with a file's name in front if need be;
    gives the warnings, which grow meanwhile."""
    found: list[str] = []

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        found.append(str(message))
        say(f"warning: {where}{message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        yield found


def print_json(result: Mapping[str, Any]) -> None:
    """A result as one line on stdout; paths as strings."""
    typer.echo(json.dumps(result, default=str))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A result as a table on stdout: the first column to the left, numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(visible(title), style="bold", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(visible, row))
    console.print(table)


def print_measures(title: str, measures: Mapping[str, Any]) -> None:
    """The table noisy / denoised of those measures that are there."""
    rows = []
    for name, key, form in (
        ("PSNR, mean per image", "psnr_{}", "{:.2f} dB"),
        ("PSNR, global", "psnr_{}_global", "{:.2f} dB"),
        ("SSIM", "ssim_{}", "{:.4f}"),
    ):
        if measures.get(key.format("noisy")) is not None:
            noisy, denoised = (measures[key.format(side)] for side in ("noisy", "denoised"))
            gain = form.replace(":", ":+").format(denoised - noisy)
            rows.append([name, form.format(noisy), form.format(denoised), gain])
    print_table(title, ["", "noisy", "denoised", "gain"], rows)


def print_training(summary: Mapping[str, Any]) -> None:
    """What a run came to, and what it wrote."""
    if summary["psnr_noisy"] is not None:
        print_measures("on the pictures held out", summary)
    tell(
        f"trained on {summary['train_pairs']:,} pairs in {summary['train_seconds']:.1f} s, "
        f"{summary['pictures_per_second']:,.0f} pictures per second, "
        f"loss {summary['loss']:.5f}"
    )
    tell(f"written: {summary['weights']} {summary['log']} {summary['curve']}")
