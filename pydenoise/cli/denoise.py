"""`pydenoise denoise IN... [-o OUT] -m WEIGHTS`: pictures in, pictures out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pydenoise.cli.console import Json, Overwrite, Weights, print_json, saying_warnings
from pydenoise.cli.sources import network, note_skipped

RESULT = "_denoised"


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
            help="A file for one picture, a folder for several; beside each picture as "
            "PHOTO_denoised, in the same format, if omitted.",
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            help="A letter for each dimension of a TIFF or .npy: Y and X, S for colours, any "
            "other counts pages, such as TYX; the file's own names if omitted."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Pixels of the largest picture to open; a small file can hold a huge one."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Take the noise out of pictures of any size."""
    sources, skipped, results = _pictures(inputs, leave_results=out is None)
    is_one_file = len(inputs) == 1 and inputs[0] == sources[0]
    plan = list(zip(sources, _destinations(sources, out, is_one_file), strict=True))
    _refuse_clashes(plan, overwrite)

    from pydenoise.data import check_writable, read_picture, write_picture
    from pydenoise.inference import denoise_pages

    trained = network(model)
    for source, destination in plan:  # all is known to be good before the first is written
        check_writable(destination, read_picture(source, axes=axes, max_pixels=max_pixels))
    note_skipped(skipped)
    note_skipped(results, "earlier result")
    began = time.perf_counter()
    pixels = 0
    for source, destination in plan:
        picture = read_picture(source, axes=axes, max_pixels=max_pixels)
        pixels += picture.samples[..., 0].size
        try:
            denoised = denoise_pages(trained, picture)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        destination.parent.mkdir(parents=True, exist_ok=True)
        with saying_warnings():
            write_picture(destination, denoised, overwrite=overwrite)
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


def _pictures(inputs: list[Path], leave_results: bool) -> tuple[list[Path], list[Path], list[Path]]:
    """The picture files named, folders opened; those folders' other files; what an earlier call
    wrote into them beside its pictures, if that is to be left out."""
    from pydenoise.data import images

    sources: list[Path] = []
    skipped: list[Path] = []
    results: list[Path] = []
    for path in inputs:
        if path.is_dir():
            pictures, others = images.list_pictures(path)
            for picture in pictures:
                is_left_out = leave_results and picture.stem.endswith(RESULT)
                (results if is_left_out else sources).append(picture)
            skipped += others
        elif path.is_file():
            sources.append(path)
        else:
            raise FileNotFoundError(f"{path}: no such file or folder; check the name")
    if not sources:
        raise ValueError(f"{inputs[0]}: holds nothing but results (*{RESULT}); expected pictures")
    return sources, skipped, results


def _destinations(sources: list[Path], out: Path | None, is_one_file: bool) -> list[Path]:
    if out is None:
        return [source.with_name(f"{source.stem}{RESULT}{source.suffix}") for source in sources]
    if is_one_file and not out.is_dir():
        return [out]
    return [out / source.name for source in sources]


def _refuse_clashes(plan: list[tuple[Path, Path]], overwrite: bool) -> None:
    """Before any work: no output may hit an input, another output, a file, or lie in a file."""
    inputs = {source.resolve() for source, _ in plan}
    outputs: dict[Path, Path] = {}
    for source, destination in plan:
        place = destination.resolve()
        if place in inputs:
            which = "the input" if place == source.resolve() else "one of the inputs"
            raise ValueError(f"{destination}: is {which}; choose another output")
        if place in outputs:
            raise ValueError(
                f"{destination}: would be written for both {outputs[place]} and {source}; "
                "denoise them one by one"
            )
        outputs[place] = source
        for above in destination.parents:
            if above.exists() and not above.is_dir():
                raise NotADirectoryError(f"{above}: is a file; name a folder")
        if destination.is_dir():
            raise IsADirectoryError(f"{destination}: is a folder; name a file")
        if destination.exists() and not overwrite:
            raise FileExistsError(f"{destination}: exists; choose another name or pass --overwrite")
