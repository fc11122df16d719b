"""Picture files: what is read, and what is refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import one_line, random_picture, smooth_picture
from PIL import Image

from pydenoise.data import ImageError, read, read_picture, write

LOSSLESS = [".png", ".tif", ".tiff", ".bmp", ".webp"]
LAYERS = [None, 1, 2, 3, 4]


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("layers", LAYERS)
def test_lossless_files_come_back_the_same(tmp_path: Path, suffix: str, layers: int | None) -> None:
    if suffix == ".bmp" and layers in (2, 4):
        pytest.skip("BMP has no alpha")
    array = random_picture(layers)
    path = tmp_path / f"picture{suffix}"
    write(path, array)
    back = read(path)
    assert back.dtype == np.uint8
    if suffix == ".webp" and layers in (None, 1, 2):  # WebP knows no gray
        gray = array.reshape(*array.shape[:2], -1)
        array = np.concatenate([gray[..., :1]] * 3 + [gray[..., 1:]], axis=2)
    np.testing.assert_array_equal(back, array[..., 0] if array.shape[2:] == (1,) else array)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_files_come_back_nearly_the_same(tmp_path: Path, suffix: str) -> None:
    array = smooth_picture()
    write(tmp_path / f"p{suffix}", array)
    difference = read(tmp_path / f"p{suffix}").astype(int) - array
    assert np.abs(difference).max() <= 8


def test_arrays_of_any_layout_are_written(tmp_path: Path) -> None:
    array = random_picture()
    for number, view in enumerate([array[::-1, ::2], np.asfortranarray(array)]):
        write(tmp_path / f"{number}.png", view)
        np.testing.assert_array_equal(read(tmp_path / f"{number}.png"), view)


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    write(tmp_path / "p.png", random_picture())
    read(tmp_path / "p.png")[0, 0] = 1


def test_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    write(tmp_path / "p.png", random_picture())
    (tmp_path / "p.png").rename(tmp_path / "p.jpg")
    np.testing.assert_array_equal(read(tmp_path / "p.jpg"), random_picture())


# --- the kinds of pictures ----------------------------------------------------------------------


def test_palettes_become_colours(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth_picture()).quantize(16)
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png"), np.array(palette.convert("RGB")))


def test_transparent_palettes_get_alpha(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth_picture()).quantize(16)
    palette.save(tmp_path / "p.png", transparency=3)
    picture = read(tmp_path / "p.png")
    assert picture.shape == (48, 64, 4)
    np.testing.assert_array_equal(picture[..., 3] == 0, np.array(palette) == 3)


def test_a_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    array = random_picture()
    Image.fromarray(array).save(tmp_path / "p.png", transparency=tuple(array[2, 3].tolist()))
    picture = read(tmp_path / "p.png")
    np.testing.assert_array_equal(picture[..., :3], array)
    assert picture[2, 3, 3] == 0
    Image.fromarray(array[..., 0]).save(tmp_path / "g.png", transparency=int(array[2, 3, 0]))
    assert read(tmp_path / "g.png").shape == (13, 17, 2)


def test_single_bits_become_black_and_white(tmp_path: Path) -> None:
    bits = random_picture(None) > 100
    Image.fromarray(bits).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read(tmp_path / "p.png"), bits * np.uint8(255))


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    array = smooth_picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at
    Image.fromarray(array).save(tmp_path / "p.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "p.png"), np.rot90(array, -1))


def test_the_first_picture_of_a_stereo_jpeg_is_read(tmp_path: Path) -> None:
    pages = [Image.fromarray(smooth_picture()) for _ in range(2)]
    pages[0].save(tmp_path / "p.jpg", format="MPO", save_all=True, append_images=pages[1:])
    assert read(tmp_path / "p.jpg").shape == (48, 64, 3)


# --- refused by name ----------------------------------------------------------------------------


def sixteen_bit_png(colour_type: int, layers: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(8 * layers)) for _ in range(4))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("colour_type", "layers"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_sixteen_bit_png_is_refused_and_not_cut_down(
    tmp_path: Path, colour_type: int, layers: int
) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(sixteen_bit_png(colour_type, layers))
    with pytest.raises(ImageError, match="16 bits a channel; expected 8") as caught:
        read(path)
    one_line(caught, path)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "int8"])
@pytest.mark.parametrize("layers", [None, 3])
def test_deep_tiff_is_refused_and_not_cut_down(
    tmp_path: Path, dtype: str, layers: int | None
) -> None:
    path = tmp_path / "deep.tif"
    photometric = "minisblack" if layers is None else "rgb"
    tifffile.imwrite(path, random_picture(layers).astype(dtype), photometric=photometric)
    with pytest.raises(ImageError) as caught:
        read(path)
    one_line(caught, path)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="holds 3 pictures; expected one"):
        read(path)


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(random_picture() ^ np.uint8(n)) for n in range(3)]
    path = tmp_path / "film.png"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 3 pictures"):
        read(path)
    frames[0].save(path, format="WEBP", lossless=True, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 3 pictures"):
        read(path)
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="is a GIF; expected a whole picture file"):
        read(path)


def test_print_colours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.fromarray(random_picture(4), mode=None).convert("CMYK").save(path)
    with pytest.raises(ImageError, match="CMYK; expected gray or RGB: convert") as caught:
        read(path)
    one_line(caught, path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"I am no picture\n", "is a text file"),
        ("naïve text".encode(), "is a text file"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"\0" * 100, "is no picture"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "truncated or damaged"),
        (b"\x89PNG\r\n\x1a\n", "PNG|truncated or damaged"),
    ],
)
def test_what_is_no_picture_is_called_what_it_is(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=expected) as caught:
        read(path)
    one_line(caught, path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder; expected a picture file"):
        read(tmp_path)


def test_the_limit_is_the_callers(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    write(tmp_path / "p.png", random_picture())
    with pytest.raises(ImageError, match="17x13 pixels are more than the limit of 220"):
        read(tmp_path / "p.png", max_pixels=220)
    assert read(tmp_path / "p.png", max_pixels=221).shape == (13, 17, 3)
    Image.new("1", (13000, 7500)).save(tmp_path / "large.png")  # where Pillow only warns
    assert read(tmp_path / "large.png").shape == (7500, 13000)
    assert not recwarn.list


def test_a_shape_that_says_too_little_is_asked_about(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((40, 30, 5), np.uint16))
    with pytest.raises(ImageError, match="many channels; name its dimensions: --axes TYX or YXS"):
        read_picture(tmp_path / "p.npy")
    assert read_picture(tmp_path / "p.npy", axes="TYX").samples.shape == (40, 30, 5, 1)
    assert read_picture(tmp_path / "p.npy", axes="YXS").samples.shape == (1, 40, 30, 5)


def test_a_shape_below_nothing_is_damage(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((5, 5), np.uint16))
    content = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "p.npy").write_bytes(content.replace(b"(5, 5), ", b"(-5, 5),"))
    with pytest.raises(ImageError, match=r"its shape is \(-5, 5\)"):
        read_picture(tmp_path / "p.npy")
