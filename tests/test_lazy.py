"""Folders larger than memory: what files say of themselves, the index, and pictures on demand.

Whatever is cut on demand is held against the same folder read whole.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from pictures import exif_stream, random_picture
from PIL import Image

from pydenoise import data
from pydenoise.data import ImageError, index, lazy
from pydenoise.data.pictures import read_head, upright

AN_HOUR = 3600 * 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "pydenoise"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Gray and RGB, alpha, a stack, lying on its side, another dtype, damaged, and no picture."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    data.write(folder / "a.png", random_picture(1, 40, 50))
    data.write(folder / "b.png", random_picture(4, 41, 50))
    image = Image.fromarray(random_picture(3, 40, 60))
    image.save(folder / "c.jpg", exif=b"Exif\0\0" + exif_stream(orientation=6))
    stack = np.stack([random_picture(None, 44, 45) + np.uint8(page) for page in range(3)])
    tifffile.imwrite(folder / "d.tif", stack, photometric="minisblack")
    np.save(folder / "e.npy", random_picture(3, 40, 40)[::-1])
    data.write(folder / "f.bmp", random_picture(3, 48, 40))
    data.write(folder / "g.png", random_picture(3, 40, 50).astype(np.uint16))
    (folder / "h.png").write_bytes((folder / "b.png").read_bytes()[:-20])
    (folder / "i.txt").write_text("words")
    return folder


def settle(folder: Path) -> None:
    """As if nothing had come or gone for an hour."""
    long_ago = folder.stat().st_mtime_ns - AN_HOUR
    os.utime(folder, ns=(long_ago, long_ago))


def deep(folder: Path, dtype: str, top: float, count: int = 5) -> Path:
    folder.mkdir()
    for number in range(count):
        ramp = np.linspace(0, top - number, 40 * 50).reshape(40, 50)
        np.save(folder / f"{number}.npy", ramp.astype(dtype))
    return folder


# --- heads --------------------------------------------------------------------------------------


def save_palette(path: Path) -> None:
    Image.fromarray(random_picture()).quantize(16).save(path)


SAVED: dict[str, Callable[[Path], None]] = {
    "gray.png": lambda path: data.write(path, random_picture(1)),
    "gray_alpha.png": lambda path: data.write(path, random_picture(2)),
    "rgba.png": lambda path: data.write(path, random_picture(4)),
    "deep.png": lambda path: data.write(path, random_picture().astype(np.uint16)),
    "palette.png": save_palette,
    "bits.png": lambda path: Image.fromarray(random_picture(None) > 9).save(path),
    "turned.png": lambda path: Image.fromarray(random_picture()).save(
        path, exif=b"Exif\0\0" + exif_stream(orientation=8)
    ),
    "gray.jpg": lambda path: data.write(path, random_picture(None)),
    "turned.jpg": lambda path: Image.fromarray(random_picture(3, 400, 600)).save(
        path, exif=b"Exif\0\0" + exif_stream(orientation=5), comment=b"c" * 65000
    ),
    "shorts.tif": lambda path: tifffile.imwrite(
        path, random_picture().astype(np.uint16), photometric="rgb", compression="zlib"
    ),
    "planes.tif": lambda path: tifffile.imwrite(
        path, random_picture().transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    ),
    "stack.tif": lambda path: tifffile.imwrite(
        path, np.ones((3, 8, 9), np.float32), photometric="minisblack"
    ),
    "stack.npy": lambda path: np.save(path, np.ones((5, 8, 9), ">i2")),
    "rgba.npy": lambda path: np.save(path, np.asfortranarray(random_picture(4))),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_head_says_what_reading_finds(name: str, tmp_path: Path) -> None:
    SAVED[name](tmp_path / name)
    picture = data.read_picture(tmp_path / name)
    page = upright(picture.samples[0], picture.metadata.orientation)
    found = picture.pages, *page.shape[:2], picture.colours, picture.samples.dtype
    head = read_head(tmp_path / name)
    assert head is not None
    assert tuple(head) == found


@pytest.mark.parametrize("name", SAVED)
def test_a_file_cut_off_has_no_head(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVED[name](path)
    path.write_bytes(path.read_bytes()[:-40])
    assert read_head(path) is None


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x93NUMPY", b"II*\0", b"\xff\xd8\xff"])
def test_what_is_no_picture_has_no_head(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert read_head(tmp_path / "x.png") is None
    assert read_head(tmp_path / "missing.png") is None


def test_numbers_not_to_learn_from_have_no_head(tmp_path: Path) -> None:
    for dtype in ("bool", "complex64"):
        np.save(tmp_path / "x.npy", np.zeros((4, 4), dtype))
        assert read_head(tmp_path / "x.npy") is None


# --- pictures on demand -------------------------------------------------------------------------


def test_a_folder_opened_is_the_folder_read(mixed: Path) -> None:
    whole, opened = data.read_folder(mixed, 40), data.open_folder(mixed, 40)
    assert opened.skipped == whole.skipped
    assert [path.name for path in whole.skipped] == ["g.png", "h.png", "i.txt"]
    pictures = opened.pictures
    assert len(pictures) == len(whole.pictures) == 8
    for number, picture in enumerate(whole.pictures):
        assert pictures.path(number).name == whole.paths[number].name
        assert pictures[number].shape == picture.shape
        np.testing.assert_array_equal(pictures[number][:, :], picture)
        np.testing.assert_array_equal(pictures[number][3:20, 5:30], picture[3:20, 5:30])


@pytest.mark.parametrize("noise", ["gauss:25", "point:2"])
def test_batches_have_the_bits_of_those_from_memory(noise: str, mixed: Path) -> None:
    model = data.parse(noise)
    whole, opened = data.read_folder(mixed).pictures, data.open_folder(mixed).pictures
    order = np.random.default_rng(3).permutation(len(whole))
    some = [whole[number] for number in order[2:]]
    expected = data.NoisyCrops(some, model, 16, seed=5)
    found = data.NoisyCrops(opened.taken(order[2:]), model, 16, seed=5)
    assert_same_pairs(found, expected)
    held_out = [whole[number] for number in order[:2]]
    for a, b in zip(
        data.validation_crops(opened.taken(order[:2]), model, 20, 16),
        data.validation_crops(held_out, model, 20, 16),
        strict=True,
    ):
        assert torch.equal(a, b)
    drawn = [x[0].permute(1, 2, 0).numpy() for x, _ in data.noisy_pictures(some, model, 7)]
    lazily = lazy.NoisyOnce(opened.taken(order[2:]), model, 7)
    assert_same_pairs(data.SingleCrops(lazily, 16), data.SingleCrops(drawn, 16))


@pytest.mark.parametrize(("dtype", "top"), [("uint16", 4000), ("uint16", 60000), ("float32", 900)])
def test_deep_numbers_come_on_the_same_scale(dtype: str, top: float, tmp_path: Path) -> None:
    folder = deep(tmp_path / "deep", dtype, top)
    whole, opened = data.read_folder(folder).pictures, data.open_folder(folder).pictures
    bounds = data.value_range(whole, folder)
    assert opened.value_range(folder) == bounds
    expected = data.SingleCrops(data.on_scale(whole, bounds), 16, 50)
    assert_same_pairs(data.SingleCrops(opened.on_scale(bounds), 16, 50), expected)


def test_the_range_of_much_is_that_of_an_even_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deep(tmp_path / "deep", "uint16", 4000)
    monkeypatch.setattr(lazy, "_RANGED_BYTES", 2 * 40 * 50 * 2)
    whole, opened = data.read_folder(folder).pictures, data.open_folder(folder).pictures
    assert opened.value_range(folder) == data.value_range(whole[::3], folder)


def assert_same_pairs(found: data.PairSource, expected: data.PairSource) -> None:
    """Also after a journey to another process."""
    assert len(found) == len(expected)
    numbers = np.random.default_rng(1).permutation(len(expected))
    for source in (found, pickle.loads(pickle.dumps(found))):
        pairs = zip(source.batch(numbers, 2), expected.batch(numbers, 2), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_no_more_is_kept_than_allowed(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "KEPT_BYTES", 3 * 41 * 50 * 2)
    read: list[str] = []
    monkeypatch.setattr(
        lazy, "read_pages", lambda path: [read.append(path.name), data.folders.read_pages(path)][1]
    )
    pictures = data.open_folder(mixed).pictures
    assert not read, "opening reads nothing"
    for number in (0, 1, 0, 1, 2, 0, 3, 4, 5, 0):
        pictures[number][:4, :4]
    assert read == ["a.png", "b.png", "c.jpg", "a.png", "d.tif"]


def test_too_small_a_picture_is_refused_as_in_memory(mixed: Path) -> None:
    for opening in (data.read_folder, data.open_folder):
        with pytest.raises(ImageError, match=r"a.png: is 40x50 pixels; expected at least 45x45"):
            opening(mixed, 45)
    pictures = data.open_folder(mixed).pictures
    with pytest.raises(data.PairsError, match=r"picture 0 is 40x50x3; a crop reads 64x64 pixels"):
        data.SingleCrops(pictures, 64)


def test_a_folder_without_pictures_is_refused_as_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    for opening in (data.read_folder, data.open_folder):
        with pytest.raises(ImageError, match=r"a.png: is a GIF; expected a whole picture file"):
            opening(tmp_path)
        with pytest.raises(ImageError, match=r"nowhere: does not exist; expected a folder of"):
            opening(tmp_path / "nowhere")


# --- the index ----------------------------------------------------------------------------------


def test_an_index_is_made_once_and_brought_up_to_date(
    mixed: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    find = index._found_in
    monkeypatch.setattr(
        index, "_found_in", lambda path: [looked_at.append(path.name), find(path)][1]
    )
    settle(mixed)
    before = {path.name for path in mixed.iterdir()}
    first = data.open_folder(mixed)
    assert len(looked_at) == 8
    assert {path.name for path in mixed.iterdir()} == before, "nothing lies beside the pictures"
    assert len(list(cache.iterdir())) == 1
    looked_at.clear()
    with monkeypatch.context() as patch:
        patch.setattr(index, "_listed", None)  # not called while nothing came or went
        again = data.open_folder(mixed / ".." / mixed.name)
    assert len(again.pictures) == len(first.pictures)
    (mixed / "a.png").unlink()
    (mixed / "h.png").write_bytes((mixed / "b.png").read_bytes())
    data.write(mixed / "z.png", random_picture(3, 40, 40))
    second = data.open_folder(mixed)
    assert looked_at == ["h.png", "z.png"], "what was there is known"
    whole = data.read_folder(mixed)
    assert second.skipped == whole.skipped
    assert [second.pictures[n].shape for n in range(9)] == [p.shape for p in whole.pictures]
    sources = [data.SingleCrops(each.pictures, 8) for each in (first, second)]
    assert sources[0].fingerprint() != sources[1].fingerprint()
    assert sources[1].fingerprint() == data.SingleCrops(second.pictures, 8).fingerprint()


def test_files_that_come_while_the_clock_stands_still_are_found(mixed: Path) -> None:
    data.open_folder(mixed)
    moment = mixed.stat().st_mtime_ns
    data.write(mixed / "z.png", random_picture(3, 40, 40))
    os.utime(mixed, ns=(moment, moment))
    assert len(data.open_folder(mixed).pictures) == 9


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "rows"])
def test_a_damaged_index_is_made_again(damage: str, mixed: Path, cache: Path) -> None:
    settle(mixed)
    expected = data.open_folder(mixed)
    (file,) = cache.iterdir()
    made = index.kept_index(mixed)
    assert made is not None
    assert made.is_current
    content = file.read_bytes()
    if damage == "rows":
        index._keep(index.Index(made.folder, made.changed, made.names, made.rows[1:], {}))
    else:
        file.write_bytes({"cut": content[:-50], "empty": b"", "other": b"PK" + content}[damage])
    if damage != "other":  # what stands before a zip does not harm it
        assert index.kept_index(mixed) is None
    again = data.open_folder(mixed)
    assert again.skipped == expected.skipped
    assert len(again.pictures) == 8


def test_where_no_index_can_be_kept_the_work_goes_on(mixed: Path, cache: Path) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match=r"cannot be written .*is indexed again next time"):
        assert len(data.open_folder(mixed).pictures) == 8


def test_files_that_changed_since_are_refused_and_indexed_anew(mixed: Path) -> None:
    settle(mixed)
    pictures = data.open_folder(mixed).pictures
    (mixed / "e.npy").unlink()
    data.write(mixed / "b.png", random_picture(3, 30, 30), overwrite=True)
    settle(mixed)
    with pytest.raises(ImageError, match=r"e.npy: is gone since its folder was indexed"):
        pictures[6][:4, :4]
    with pytest.raises(ImageError, match=r"b.png: was changed since its folder was indexed; start"):
        pictures[1][:4, :4]
    again = data.open_folder(mixed).pictures
    assert len(again) == 7
    assert again[1][:, :].shape == (30, 30, 3)


def test_samples_that_are_damaged_show_when_they_are_read(mixed: Path) -> None:
    content = bytearray((mixed / "b.png").read_bytes())
    content[200] ^= 1
    (mixed / "b.png").write_bytes(content)
    pictures = data.open_folder(mixed).pictures
    with pytest.raises(ImageError, match=r"b.png: truncated or damaged \(the check sum"):
        pictures[1][:4, :4]


def test_what_pictures_take_in_memory_is_known_before(mixed: Path) -> None:
    about = index.decoded_bytes(mixed)
    whole = sum(picture.nbytes for picture in data.read_folder(mixed).pictures)
    assert 0.5 * whole < about < 2 * whole
    settle(mixed)
    exactly = sum(
        page.nbytes
        for path in "abcdefg"
        for page in data.folders.read_pages(*mixed.glob(f"{path}.*"))
    )
    data.open_folder(mixed)
    assert index.decoded_bytes(mixed) == exactly


def test_a_million_files_open_at_once(tmp_path: Path) -> None:
    count = 10**6
    settle(tmp_path)
    rows = np.zeros(count, index.ROW)
    rows["pages"], rows["height"], rows["width"], rows["colours"] = 1, 96, 128, 3
    names = np.frombuffer(b"".join(b"%07d.png\0" % n for n in range(count)), np.uint8)
    changed = tmp_path.stat().st_mtime_ns
    index._keep(index.Index(tmp_path.resolve(), changed, names, rows, {}))
    began = time.monotonic()
    pictures = data.open_folder(tmp_path, 32).pictures
    assert data.SingleCrops(pictures, 32).describe()["pairs"] == 12 * count
    assert time.monotonic() - began < 10
    assert pictures.path(654321).name == "0654321.png"
