"""`pydenoise denoise IN... [-o OUT] -m WEIGHTS`: pictures in, pictures out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pydenoise.cli.console import Json, Overwrite, Weights, print_json
from pydenoise.cli.sources import note_skipped


def denoise(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of pictures.")
    ],
    model: Weights,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file for one picture, a folder for several; "
            "PHOTO_denoised.png beside each picture if omitted.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Take the noise out of pictures of any size."""
    sources, skipped = _pictures(inputs)
    is_one_file = len(inputs) == 1 and inputs[0] == sources[0]
    plan = list(zip(sources, _destinations(sources, out, is_one_file), strict=True))
    _refuse_clashes(plan, overwrite)

    from pydenoise.checkpoint import load_weights
    from pydenoise.data import images
    from pydenoise.inference import denoise_picture

    network, _ = load_weights(model)
    for source in sources:
        images.read(source)  # every picture is known to be good before the first is written
    note_skipped(skipped)
    began = time.perf_counter()
    pixels = 0
    for source, destination in plan:
        picture = images.read(source)
        pixels += picture.shape[0] * picture.shape[1]
        denoised = denoise_picture(network, picture)
        destination.parent.mkdir(parents=True, exist_ok=True)
        images.write(destination, denoised, overwrite=overwrite)
        if not as_json:
            typer.echo(destination)
    if as_json:
        seconds = time.perf_counter() - began
        print_json(
            {
                "outputs": [str(destination) for _, destination in plan],
                "seconds": seconds,
                "megapixels_per_second": pixels / seconds / 1e6,
            }
        )


def _pictures(inputs: list[Path]) -> tuple[list[Path], list[Path]]:
    """The picture files named, folders opened; and the files of those folders that are none."""
    from pydenoise.data import images

    sources: list[Path] = []
    skipped: list[Path] = []
    for path in inputs:
        if path.is_dir():
            pictures, others = images.list_pictures(path)
            sources += pictures
            skipped += others
        elif path.is_file():
            sources.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; check the name")
    return sources, skipped


def _destinations(sources: list[Path], out: Path | None, is_one_file: bool) -> list[Path]:
    if out is None:
        return [source.with_name(f"{source.stem}_denoised.png") for source in sources]
    if is_one_file and not out.is_dir():
        return [out]
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file; name a folder for several pictures")
    return [out / f"{source.stem}.png" for source in sources]


def _refuse_clashes(plan: list[tuple[Path, Path]], overwrite: bool) -> None:
    """Before any work: no output may hit an input, another output, or an existing file."""
    taken = {source.resolve(): source for source, _ in plan}
    for source, destination in plan:
        place = destination.resolve()
        if place in taken:
            raise ValueError(
                f"{destination}: would be written for {source} over {taken[place]}; "
                "choose another output"
            )
        taken[place] = source
        if destination.exists() and not overwrite:
            raise FileExistsError(f"{destination}: exists; choose another name or pass --overwrite")
