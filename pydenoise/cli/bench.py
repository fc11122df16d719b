"""`pydenoise bench`: the kernels against torch and the machine's limits, here."""

from __future__ import annotations

from typing import Annotated

import typer

from pydenoise.cli.console import Json, print_json, say


def bench(
    quick: Annotated[
        bool,
        typer.Option("--quick/--full", help="Short turns; or longer and more: several minutes."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Check every kernel against torch, then time both, on this machine."""
    from rich.console import Console

    from pydenoise import benchmark

    report = benchmark.run(quick=quick, progress=lambda name: say(f"timing {name}"))
    if as_json:
        print_json(report)
        return
    for table in benchmark.tables(report):
        Console().print(table)
    peak, copied = report["peak_gflop_per_s"], report["copy_gb_per_s"]
    limits = f"a copy {copied:.0f} GB/s"
    if peak is not None:
        limits = f"multiply-adds {peak:.0f} GFLOP/s, {limits}"
    typer.echo(f"At most, with {report['environment']['threads']} threads: {limits}")
    if report["faults"]:
        raise RuntimeError(
            f"the limit was measured too low, as on a busy machine: {'; '.join(report['faults'])}"
        )
