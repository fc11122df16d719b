"""Figures of a run: pictures side by side, and how training went.

Drawn with matplotlib on its own canvas, so that no window system and no global state of pyplot is
involved. Pictures keep their pixels: a screen pixel shows one, or a whole number shows one each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pydenoise.atomic import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_MARGIN, _GAP, _TITLE_HEIGHT, _CAPTION_HEIGHT = 16, 12, 30, 28
_SMALLEST_CELL = 240
_TITLE_SIZE, _TEXT_SIZE, _SMALL_SIZE = 12, 10.5, 9.5
_INK, _FAINT, _GRID = "#1a1a1a", "#6b6b6b", "#e3e3e3"
_PSNR_COLOUR, _LOSS_COLOUR = "#0b6e99", "#c25b12"

Pictures = np.ndarray | Sequence[np.ndarray]
Captions = str | Sequence[str]


def before_after(
    path: str | PathLike[str],
    columns: Sequence[tuple[str, Pictures]],
    *,
    captions: Sequence[Captions] | None = None,
    overwrite: bool = False,
) -> None:
    """Write pictures side by side as a PNG, titles above the columns, a caption under each.

    Parameters
    ----------
    path : path
        The file to write.
    columns : sequence of (title, pictures)
        `pictures` is one uint8 array (H, W) or (H, W, 3), or a list of them, one per row. Pictures
        in one row have one shape.
    captions : sequence, optional
        One entry per column: a string, or a list with one string per row. Empty ones are allowed.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        When columns differ in length, pictures of a row in shape, or captions do not match.
    FileExistsError
        When the file exists and may not be replaced.

    Notes
    -----
    Pictures narrower than 240 pixels are enlarged by a whole number, without smoothing.
    """
    grid = [_as_list(pictures) for _, pictures in columns]
    labels = [_as_list(entry) for entry in captions] if captions else [[""] * len(c) for c in grid]
    if not grid or not grid[0]:
        raise ValueError("before_after: no picture to show")
    if len({len(column) for column in grid}) > 1 or [*map(len, labels)] != [*map(len, grid)]:
        raise ValueError(
            "before_after: columns and captions must have one entry per row, "
            f"got {[*map(len, grid)]} pictures and {[*map(len, labels)]} captions"
        )
    rows = list(zip(*grid, strict=True))
    for row in rows:
        if len({picture.shape[:2] for picture in row}) > 1:
            raise ValueError(
                f"before_after: pictures of a row differ in shape: {[p.shape for p in row]}"
            )

    scales = [max(1, -(-_SMALLEST_CELL // row[0].shape[1])) for row in rows]
    heights = [row[0].shape[0] * scale for row, scale in zip(rows, scales, strict=True)]
    widths = [row[0].shape[1] * scale for row, scale in zip(rows, scales, strict=True)]
    cell = max(widths)
    width = 2 * _MARGIN + len(columns) * cell + (len(columns) - 1) * _GAP
    height = 2 * _MARGIN + _TITLE_HEIGHT + sum(heights) + len(rows) * (_CAPTION_HEIGHT + _GAP)
    figure = _figure(width, height - _GAP)
    lefts = [_MARGIN + index * (cell + _GAP) for index in range(len(columns))]
    for left, (title, _) in zip(lefts, columns, strict=True):
        _text(figure, left + cell / 2, _MARGIN + 0.4 * _TITLE_HEIGHT, title, _TITLE_SIZE, _INK)
    top = _MARGIN + _TITLE_HEIGHT
    for index, row in enumerate(rows):
        for left, picture, texts in zip(lefts, row, labels, strict=True):
            _picture(figure, picture, left + (cell - widths[index]) // 2, top, scales[index])
            middle = top + heights[index] + 0.5 * _CAPTION_HEIGHT
            _text(figure, left + cell / 2, middle, texts[index], _TEXT_SIZE, _INK)
        top += heights[index] + _CAPTION_HEIGHT + _GAP
    _save(figure, path, overwrite)


def learning_curve(
    path: str | PathLike[str],
    history: Sequence[Mapping[str, Any]],
    *,
    noisy_psnr: float | None = None,
    validated_on: str = "validation pictures",
    overwrite: bool = False,
) -> None:
    """Write the curve of a training run as a PNG: PSNR above where it was measured, loss below.

    Parameters
    ----------
    path : path
        The file to write.
    history : sequence of dict
        Records as `pydenoise.training.train` makes them; of each, `step`, `loss` and
        `psnr_per_image` are read.
    noisy_psnr : float, optional
        The noisy input's per-image PSNR in dB, drawn as a line to rise above.
    validated_on : str
        What the PSNR was measured on, for the axis.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        When the history is empty.
    FileExistsError
        When the file exists and may not be replaced.
    """
    if not history:
        raise ValueError("learning_curve: the history is empty")
    steps = [record["step"] for record in history]
    measured = [r for r in history if r.get("psnr_per_image") is not None]
    height = 520 if measured else 320
    figure = _figure(760, height)
    panels = figure.subplots(2 if measured else 1, 1, sharex=True, squeeze=False)[:, 0]
    if measured:
        panel = panels[0]
        panel.plot(
            [record["step"] for record in measured],
            [record["psnr_per_image"] for record in measured],
            color=_PSNR_COLOUR,
            marker="o",
            markersize=3,
        )
        reached = measured[-1]["psnr_per_image"]
        _note(panel, steps[-1], reached, f"{reached:.2f} dB", _PSNR_COLOUR)
        if noisy_psnr is not None:
            panel.axhline(noisy_psnr, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
            _note(panel, steps[-1], noisy_psnr, f"noisy {noisy_psnr:.2f} dB", _FAINT)
        panel.set_ylabel("PSNR per image [dB]")
        panel.set_title(f"Measured on {validated_on}", fontsize=_TITLE_SIZE, color=_INK, loc="left")
    panels[-1].plot(steps, [record["loss"] for record in history], color=_LOSS_COLOUR)
    panels[-1].set_ylabel("training loss")
    panels[-1].set_xlabel("training step")
    panels[-1].set_xlim(0, steps[-1])
    for panel in panels:
        _plain(panel)
    # room for titles and labels is so many pixels, however high the figure
    figure.subplots_adjust(left=0.11, right=0.84, top=1 - 36 / height, bottom=57 / height)
    figure.align_ylabels(panels)
    _save(figure, path, overwrite)


def _as_list(entry: Any) -> list[Any]:
    return [entry] if isinstance(entry, str | np.ndarray) else list(entry)


def _figure(width: int, height: int) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _picture(figure: Figure, picture: np.ndarray, left: int, top: int, scale: int) -> None:
    colour = picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
    enlarged = colour.repeat(scale, axis=0).repeat(scale, axis=1)
    bottom = round(figure.bbox.height) - top - enlarged.shape[0]
    figure.figimage(enlarged, left, bottom)


def _text(figure: Figure, x: float, y: float, text: str, size: float, colour: str) -> None:
    """Centred on pixel (x, y), counted from the top left."""
    width, height = figure.bbox.width, figure.bbox.height
    figure.text(x / width, 1 - y / height, text, size=size, color=colour, ha="center", va="center")


def _plain(panel: Any) -> None:
    panel.grid(color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(_FAINT)
    panel.tick_params(colors=_FAINT, labelsize=_SMALL_SIZE)
    panel.xaxis.label.set(color=_INK, size=_TEXT_SIZE)
    panel.yaxis.label.set(color=_INK, size=_TEXT_SIZE)


def _note(panel: Any, x: float, y: float, text: str, colour: str) -> None:
    """To the right of the panel, at the height of a line's end."""
    panel.annotate(
        text,
        (x, y),
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        size=_SMALL_SIZE,
        annotation_clip=False,
    )


def _save(figure: Figure, path: str | PathLike[str], overwrite: bool) -> None:
    with new_file(path, overwrite=overwrite) as file:
        figure.savefig(file, format="png", dpi=_DPI)
