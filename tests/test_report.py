"""Figures: pixels exact, files whole, nothing replaced unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydenoise.data import read
from pydenoise.report import before_after, learning_curve

HISTORY = [
    {"step": 10 * i, "loss": 1 / i, "psnr_per_image": 20.0 + i, "psnr_global": 19.0 + i}
    for i in range(1, 6)
]


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def holds(figure: np.ndarray, picture: np.ndarray) -> bool:
    """Whether the picture stands in the figure, pixel for pixel."""
    height, width = picture.shape[:2]
    corners = np.argwhere(
        (figure[: 1 - height or None, : 1 - width or None] == picture[0, 0]).all(2)
    )
    return any(
        np.array_equal(figure[top : top + height, left : left + width], picture)
        for top, left in corners
    )


def test_large_pictures_keep_their_pixels(tmp_path: Path) -> None:
    first, second = random_picture(130, 250, 3), random_picture(130, 250, 3)[::-1]
    before_after(tmp_path / "x.png", [("noisy", first), ("clean", second)], captions=["a", "b"])
    figure = read(tmp_path / "x.png")[:, :, :3]
    assert holds(figure, first)
    assert holds(figure, second)


def test_small_pictures_are_enlarged_by_a_whole_number(tmp_path: Path) -> None:
    picture = random_picture(32, 32, 3)
    before_after(tmp_path / "x.png", [("noisy", picture)])
    assert holds(read(tmp_path / "x.png")[:, :, :3], picture.repeat(8, axis=0).repeat(8, axis=1))


def test_rows_of_several_sizes_and_gray_pictures(tmp_path: Path) -> None:
    rows = [random_picture(50, 260), random_picture(300, 280, 3)]
    before_after(
        tmp_path / "x.png",
        [("noisy", rows), ("clean", rows)],
        captions=[["20.1 dB", "20.2 dB"], ["", ""]],
    )
    figure = read(tmp_path / "x.png")[:, :, :3]
    assert holds(figure, np.stack([rows[0]] * 3, axis=2))
    assert holds(figure, rows[1])


@pytest.mark.parametrize(
    ("columns", "captions", "message"),
    [
        ([], None, "no picture to show"),
        ([("a", [])], None, "no picture to show"),
        (
            [("a", [random_picture(4, 4)] * 2), ("b", [random_picture(4, 4)])],
            None,
            r"one entry per row, got \[2, 1\] pictures",
        ),
        ([("a", random_picture(4, 4)), ("b", random_picture(4, 5))], None, r"\(4, 4\), \(4, 5\)"),
        ([("a", random_picture(4, 4))], ["x", "y"], r"\[1\] pictures and \[1, 1\] captions"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, columns: Any, captions: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        before_after(tmp_path / "x.png", columns, captions=captions)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("noisy_psnr", [None, 18.0])
def test_learning_curve(tmp_path: Path, noisy_psnr: float | None) -> None:
    learning_curve(tmp_path / "x.png", HISTORY, noisy_psnr=noisy_psnr)
    assert read(tmp_path / "x.png").shape[:2] == (520, 760)


def test_learning_curve_without_measures(tmp_path: Path) -> None:
    learning_curve(tmp_path / "x.png", [h | {"psnr_per_image": None} for h in HISTORY[:1]])
    assert read(tmp_path / "x.png").shape[:2] == (320, 760)
    with pytest.raises(ValueError, match="history is empty"):
        learning_curve(tmp_path / "y.png", [])


def test_no_file_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        learning_curve(path, HISTORY)
    with pytest.raises(FileExistsError):
        before_after(path, [("a", random_picture(4, 4))])
    assert path.read_text() == "precious"
    learning_curve(path, HISTORY, overwrite=True)
    assert read(path).size
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.png"]
