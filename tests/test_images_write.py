"""Pictures out: whole files or none, folders of pictures, arrays to tensors and back."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import one_line, random_picture, smooth_picture

from pydenoise.data import ImageError, read_folder
from pydenoise.data.images import (
    list_pictures,
    read,
    to_array,
    to_tensor,
    write,
)

LAYERS = [None, 1, 2, 3, 4]


# --- writing ------------------------------------------------------------------------------------


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    write(path, random_picture())
    before = path.read_bytes()
    with pytest.raises(ImageError, match="exists already; choose another name") as caught:
        write(path, smooth_picture())
    one_line(caught, path)
    assert path.read_bytes() == before
    write(path, smooth_picture(), overwrite=True)
    np.testing.assert_array_equal(read(path), smooth_picture())
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.png"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    path = tmp_path / "p.png"
    if overwrite:
        path.write_bytes(b"before")

    def fill_the_disk(file: io.BytesIO, _: object) -> None:
        file.write(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pydenoise.data.pictures._png.write", fill_the_disk)
    with pytest.raises(ImageError, match=r"cannot be written \(No space left on device"):
        write(path, random_picture(), overwrite=overwrite)
    assert [entry.name for entry in tmp_path.iterdir()] == (["p.png"] if overwrite else [])
    if overwrite:
        assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("p.gif", random_picture(), "suffix '.gif'; expected one of .png"),
        ("p", random_picture(), "suffix ''; expected"),
        ("p.png", random_picture().astype(np.float32), r"dtype float32; expected uint8"),
        ("p.png", random_picture(5), r"\(13, 17, 5\)"),
        ("p.png", random_picture()[None], r"\(1, 13, 17, 3\)"),
        ("p.png", random_picture()[:0], "at least one pixel"),
        ("p.jpg", random_picture(4), "JPEG has no alpha channel; write a .png"),
        ("none/p.png", random_picture(), "cannot be written .No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, array: np.ndarray, expected: str
) -> None:
    with pytest.raises(ImageError, match=expected) as caught:
        write(tmp_path / name, array)
    one_line(caught, tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- folders ------------------------------------------------------------------------------------


def test_other_files_among_the_pictures_are_skipped_and_listed(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.tiff"):
        write(tmp_path / name, random_picture())
    for name in ("SOURCE.md", "SHA256SUMS", ".hidden.png"):
        (tmp_path / name).write_text("words")
    (tmp_path / "folder.png").mkdir()
    paths, skipped = list_pictures(tmp_path)
    assert [path.name for path in paths] == ["a.JPG", "b.png", "c.tiff"]
    assert [path.name for path in skipped] == [
        ".hidden.png",
        "SHA256SUMS",
        "SOURCE.md",
        "folder.png",
    ]


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is empty; expected pictures \(.png, .jpg"):
        list_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "train").mkdir()
    with pytest.raises(
        ImageError, match=r"but 2 other entries; expected .* 1 sub-folder"
    ) as caught:
        list_pictures(tmp_path)
    one_line(caught, tmp_path)
    with pytest.raises(ImageError, match="does not exist; expected a folder"):
        list_pictures(tmp_path / "none")
    with pytest.raises(ImageError, match="is a file; expected a folder"):
        list_pictures(tmp_path / "notes.txt")


def test_a_folder_is_read_with_one_number_of_channels(tmp_path: Path) -> None:
    write(tmp_path / "1.png", random_picture(None))
    write(tmp_path / "2.png", random_picture(2))
    pictures, paths, _ = read_folder(tmp_path)
    assert [picture.shape for picture in pictures] == [(13, 17, 1)] * 2
    write(tmp_path / "3.png", random_picture(4))
    pictures, paths, _ = read_folder(tmp_path)
    assert [picture.shape for picture in pictures] == [(13, 17, 3)] * 3
    assert len(paths) == 3
    np.testing.assert_array_equal(pictures[0][..., 2], random_picture(None))


# --- tensors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
def test_arrays_survive_the_way_through_tensors(layers: int | None) -> None:
    array = np.resize(np.arange(256, dtype=np.uint8), random_picture(layers, 16, 16).shape)
    tensor = to_tensor(array)
    assert tensor.shape == (1, layers or 1, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert 0 <= tensor.min() <= tensor.max() <= 1
    np.testing.assert_array_equal(to_array(tensor), array[..., 0] if layers == 1 else array)
    np.testing.assert_array_equal(to_array(tensor[0]), to_array(tensor))


def test_to_array_clips_and_rounds() -> None:
    tensor = torch.tensor([[[-1.0, 0.4 / 255, 0.6 / 255, 2.0]]], dtype=torch.float64)
    assert to_array(tensor).tolist() == [[0, 0, 1, 255]]


@pytest.mark.filterwarnings("error")
def test_huge_numbers_go_there_and_back_or_are_refused() -> None:
    largest = np.finfo(np.float32).max
    picture = np.array([[-largest, 0, largest]], np.float32)
    bounds = float(-largest), float(largest)
    tensor = to_tensor(picture, bounds)
    np.testing.assert_allclose(tensor[0, 0], [[0, 0.5, 1]])
    np.testing.assert_array_equal(to_array(tensor, np.float32, bounds), picture)
    np.testing.assert_array_equal(to_array(tensor * 1.5 - 0.25, "f4", bounds), picture)
    for numbers, given in (
        (picture, (0, 1e30)),
        (np.array([[0, 1e40]]), None),
        (np.array([[-1.7e308, 1.7e308]]), (-1.7e308, 1.7e308)),
        (np.array([[60000]], np.uint16), (0, 1e-36)),
    ):
        with pytest.raises(ValueError, match="put NaN where they stand for missing pixels"):
            to_tensor(numbers, given)


def test_to_array_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="holds NaN"):
        to_array(torch.full((1, 4, 4), torch.nan))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\)"):
        to_array(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"dtype torch.uint8"):
        to_array(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_to_tensor_refuses_other_arrays() -> None:
    with pytest.raises(ValueError, match=r"dtype complex128; expected whole numbers"):
        to_tensor(np.zeros((4, 4), complex))
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        to_tensor(np.zeros(4))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int8", "int16", "float16", "float32"])
def test_every_level_survives_the_way_through_tensors(dtype: str) -> None:
    if dtype.startswith("float"):
        array = np.linspace(-3, 300, 256, dtype=dtype).reshape(16, 16)
    else:
        limits = np.iinfo(dtype)
        array = np.arange(limits.min, limits.max + 1, dtype=dtype).reshape(16, -1)
        assert to_tensor(array).min() == 0
        assert to_tensor(array).max() == 1
    back = to_array(to_tensor(array), dtype)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
def test_the_ends_of_wide_ranges_stay(dtype: str) -> None:
    limits = np.iinfo(dtype)
    array = np.array([[limits.min, limits.max]], dtype)
    np.testing.assert_array_equal(to_array(to_tensor(array), dtype), array)


def test_a_shared_array_is_not_touched() -> None:
    array = random_picture()
    to_tensor(array).zero_()
    np.testing.assert_array_equal(array, random_picture())
