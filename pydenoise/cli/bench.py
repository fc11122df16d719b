"""`pydenoise bench`: the kernels against torch on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from pydenoise.cli.console import Json, print_json, say


def bench(
    full: Annotated[
        bool, typer.Option("--full", help="Longer turns and more of them: several minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every kernel against torch, then time both, on this machine."""
    from rich.console import Console

    from pydenoise import benchmark

    report = benchmark.run(quick=not full, progress=lambda name: say(f"timing {name}"))
    if as_json:
        print_json(report)
        return
    for table in benchmark.tables(report):
        Console().print(table)
