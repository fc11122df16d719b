"""The command line: `pydenoise demo | train | denoise | eval | bench | info`.

Results go to stdout, progress and errors to stderr. Commands import what they need when they run,
so that help appears at once and without torch.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from pydenoise.cli import bench, demo, denoise, evaluate, info, train
from pydenoise.cli.console import BAD_USAGE, failure, package_version, say

__all__ = ["main"]

INTERRUPTED = 130

app = typer.Typer(
    name="pydenoise",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Results go to stdout, progress and errors to stderr. "
        "Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted, "
        "143 terminated."
    ),
)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("denoise")(denoise.denoise)
app.command("eval")(evaluate.evaluate)
app.command("bench")(bench.bench)
app.command("info")(info.info)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=package_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")
    ] = False,
) -> None:
    """Take the noise out of pictures, having learnt from noisy pictures alone."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    arguments : list of str, optional
        What stands behind `pydenoise`; that of this process if omitted.

    Returns
    -------
    int
        The exit code: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted, 143 terminated.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    if isinstance(sys.stdout, TextIOWrapper):  # names that its encoding lacks are written out
        sys.stdout.reconfigure(errors="backslashreplace")
    debug = "--debug" in words
    if debug:
        words = ["--debug", *(word for word in words if word != "--debug")]
    try:
        code = (
            app(args=words or ["--help"], prog_name="pydenoise", standalone_mode=False, obj=words)
            or 0
        )
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
    except BAD_USAGE as error:
        return failure(error)
    except Exception as error:
        if debug:
            raise
        return failure(error)
    if code == INTERRUPTED:
        say("interrupted")
    return int(code)
