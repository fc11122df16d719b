"""`pydenoise demo`: the whole story on photographs that are there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pydenoise.cli.console import (
    NOISE_FORMS,
    Json,
    Overwrite,
    Seed,
    print_json,
    print_measures,
    tell,
)
from pydenoise.cli.progress import watching


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the pictures; made new.")
    ] = Path("pydenoise-demo"),
    noise: Annotated[str, typer.Option(help=f"Noise to learn from: {NOISE_FORMS}.")] = "gauss:25",
    seconds: Annotated[
        float, typer.Option(min=1, help="Training is cut short to end within this time.")
    ] = 60,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train on pairs of noisy photographs and show what was learnt on two never seen.

    No clean picture is used for training, and nothing is downloaded.
    """
    from pydenoise import demo as room

    with watching("training") as progress:
        result = room.run(
            out, noise=noise, seconds=seconds, seed=seed, overwrite=overwrite, progress=progress
        )
    if as_json:
        print_json(result)
        return
    names = " and ".join(room.HELD_BACK)
    print_measures(f"{names}, whole, held back from training; noise {noise}", result)
    tell(
        f"trained on {result['train_pairs']:,} pairs in {result['train_seconds']:.1f} s, "
        f"{result['pictures_per_second']:,.0f} pictures per second "
        f"({' '.join(filter(None, (result['backend'], result['isa'])))})"
    )
    tell("written: " + " ".join(result["files"]))
