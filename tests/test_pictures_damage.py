"""Bad picture files: one line that names the file and the cure, and nothing else happens."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import one_line, random_picture, smooth_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pydenoise.data import ImageError, Picture, read_picture, write, write_picture
from pydenoise.data.pictures import FORMATS, Limit, Unfit

SMOOTH = smooth_picture()
STACK = np.repeat(SMOOTH[None, ..., 0], 4, 0)


def pillow(format: str, array: np.ndarray = SMOOTH, **words: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **words)
    return buffer.getvalue()


def tiff(array: np.ndarray = SMOOTH, **words: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **{"photometric": "rgb", **words})
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, SMOOTH)
    return buffer.getvalue()


FILES = {
    "gray.png": lambda: pillow("PNG", SMOOTH[..., 0]),
    "alpha.png": lambda: pillow("PNG", random_picture(4)),
    "plain.jpg": lambda: pillow("JPEG"),
    "progressive.jpg": lambda: pillow("JPEG", progressive=True),
    "lossless.webp": lambda: pillow("WEBP", lossless=True),
    "lossy.webp": lambda: pillow("WEBP", random_picture(4)),
    "plain.bmp": lambda: pillow("BMP"),
    "plain.npy": npy,
    "plain.tif": tiff,
    "lzw.tif": lambda: tiff(compression="lzw", predictor=True, tile=(16, 16)),
    "deflate.tif": lambda: tiff(
        STACK.astype("u2"), photometric="minisblack", compression="deflate", byteorder=">"
    ),
    "jpeg.tif": lambda: tiff(compression="jpeg"),
    "big.tif": lambda: tiff(compression="zstd", bigtiff=True),
    "imagej.tif": lambda: tiff(STACK, photometric="minisblack", imagej=True),
    "exif.tif": lambda: pillow("TIFF", exif=camera(), compression="tiff_lzw"),
}


def camera() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x829A] = 0.5
    return exif


def read_or_refuse(path: Path) -> Picture | None:
    """The picture, or None for a file that is refused on one line with its name."""
    try:
        return read_picture(path, max_pixels=2**16)
    except ImageError as error:
        message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return None


@pytest.mark.parametrize("name", FILES)
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    content = FILES[name]()
    path = tmp_path / name
    path.write_bytes(content)
    whole = read_picture(path)
    for size in range(1, len(content), max(1, len(content) // 70)):
        path.write_bytes(content[:size])
        part = read_or_refuse(path)
        if part is not None:  # only what no pixel needs was cut off
            np.testing.assert_array_equal(part.samples, whole.samples)
            assert name in ("plain.bmp", "exif.tif")


@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_raise_nothing_else(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    content = np.frombuffer(FILES[name](), np.uint8)
    path = tmp_path / name
    refused = 0
    for round in range(80):
        broken = content.copy()
        reach = len(broken) if round % 2 else min(len(broken), 300)
        broken[rng.integers(0, reach, 3)] ^= np.uint8(1) << rng.integers(0, 8, 3, dtype=np.uint8)
        path.write_bytes(broken.tobytes())
        picture = read_or_refuse(path)
        refused += picture is None
        if picture is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                write_picture(tmp_path / f"again{path.suffix}", picture, overwrite=True)
    assert refused == 80 if name.endswith("png") else refused > 0
    assert capfd.readouterr() == ("", "")


def test_a_flipped_bit_in_any_byte_of_a_png_is_found(tmp_path: Path) -> None:
    """Also where no pixel depends on it."""
    words = PngInfo()
    words.add_text("Comment", "taken at night")
    content = pillow("PNG", SMOOTH[:8, :8], pnginfo=words, dpi=(300, 300))
    path = tmp_path / "words.png"
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        assert read_or_refuse(path) is None, f"byte {place}"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".npy"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the file is empty \(0 bytes\); get it again"),
        (b"GIF89a" + bytes(30), "is a GIF; expected a whole picture file"),
        (b"words", "is a text file; expected a whole picture file"),
        (bytes(99), "is no picture; expected a whole picture file"),
    ],
)
def test_foreign_files_are_called_what_they_are(
    tmp_path: Path, suffix: str, content: bytes, message: str
) -> None:
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_picture(path)
    one_line(caught, path)


# --- sizes, judged before anything is decoded ---------------------------------------------------


@cache
def zeros(pixels: int) -> bytes:
    packer = zlib.compressobj(1 if pixels > 2**28 else 9)
    block = bytes(2**20)
    parts = [packer.compress(block) for _ in range(pixels // len(block))]
    return b"".join(parts) + packer.flush()


def tiff_bomb(sides: int, strips: int, pages: int = 1) -> bytes:
    """A stack of black pages whose strips are all the same few bytes."""
    packed = zeros(sides * sides // strips)
    content = struct.pack("<2sHI", b"II", 42, 0)
    place = len(content)
    content += packed
    arrays = len(content)
    content += struct.pack(f"<{strips}I", *[place] * strips)
    content += struct.pack(f"<{strips}I", *[len(packed)] * strips)
    pointers = [4]
    for _ in range(pages):
        pointers.append(len(content) + 2 + 9 * 12)
        fields = [
            *((256, 3, 1, sides), (257, 3, 1, sides), (258, 3, 1, 8), (259, 3, 1, 8)),
            *((262, 3, 1, 1), (273, 4, strips, arrays), (277, 3, 1, 1)),
            *((278, 4, 1, sides // strips), (279, 4, strips, arrays + 4 * strips)),
        ]
        table = b"".join(struct.pack("<HHII", *field) for field in fields)
        start = len(content)
        content += struct.pack("<H", len(fields)) + table + bytes(4)
        content = content[: pointers[-2]] + struct.pack("<I", start) + content[pointers[-2] + 4 :]
    return content


def png_head(width: int, height: int) -> bytes:
    content = bytearray(pillow("PNG"))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def jpeg_head(width: int, height: int) -> bytes:
    content = bytearray(pillow("JPEG"))
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def webp_head(lossless: bool) -> bytes:
    content = bytearray(pillow("WEBP", lossless=lossless))
    if lossless:
        content[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    else:
        content[26:30] = struct.pack("<HH", 0x3FFF, 0x3FFF)
    return bytes(content)


def bmp_head(width: int, height: int) -> bytes:
    content = bytearray(pillow("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


BOMBS = {
    "p.png": (lambda: png_head(20000, 20000), "20000x20000"),
    "p.jpg": (lambda: jpeg_head(65500, 65500), "65500x65500"),
    "l.webp": (lambda: webp_head(True), "16384x16384"),
    "p.webp": (lambda: webp_head(False), "16383x16383"),
    "p.bmp": (lambda: bmp_head(20000, -20000), "20000x20000"),
    "p.tif": (lambda: tiff_bomb(20480, 20), "20480x20480"),
    "stack.tif": (lambda: tiff_bomb(2048, 2, 100), "100 x 2048x2048"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    make, size = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(make())
    assert path.stat().st_size < 420_000

    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    for decoder in ("png_decode", "webp_decode"):
        monkeypatch.setattr(f"imagecodecs.{decoder}", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    monkeypatch.setattr("tifffile.TiffPageSeries.asarray", decode)
    with pytest.raises(ImageError, match=f"{size} pixels are more than the limit of") as caught:
        read_picture(path)
    assert "raise max_pixels" in one_line(caught, path)
    with pytest.raises(ImageError, match="decoded"):
        read_picture(path, max_pixels=2**33)


def test_a_tile_may_be_a_bomb_too(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    content = bytearray(tiff(compression="deflate", tile=(16, 16)))
    for code in (322, 323):
        place = content.index(struct.pack("<H", code), 8)
        content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 65536)
    path.write_bytes(content)
    with pytest.raises(ImageError, match="65536x65536 pixels are more than the limit") as caught:
        read_picture(path)
    one_line(caught, path)


def test_a_small_file_with_a_bomb_in_it_is_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    path.write_bytes(tiff_bomb(2048, 2, 40))
    with pytest.raises(ImageError, match="40 x 2048x2048 pixels"):
        read_picture(path)
    assert not read_picture(path, max_pixels=40 * 2048**2).samples.any()


def test_what_lies_there_unpacked_needs_no_leave(tmp_path: Path) -> None:
    limit = Limit(None, 2 * 12000**2)  # a picture of 16 bits, a byte for each of its bytes
    limit.check(1, 12000, 12000, 2)
    with pytest.raises(Unfit, match="12000x12000 pixels are more than the limit of 67108864"):
        Limit(None, 419_000).check(1, 12000, 12000, 2)
    with pytest.raises(Unfit, match="limit of 1000"):
        Limit(1000, 2 * 12000**2).check(1, 12000, 12000, 2)


def test_an_npy_that_promises_more_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    for shape in ((2**20, 2**20), (2**62, 2**62), (10, 10)):
        with open(path, "wb") as file:
            words = {"descr": "<f8", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, words)
            file.write(bytes(90))
        with pytest.raises(ImageError, match="truncated or damaged") as caught:
            read_picture(path)
        one_line(caught, path)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    for array in (np.array([[{}]], object), np.zeros((2, 2), "c8"), np.zeros((2, 2), "u1,u2")):
        np.save(tmp_path / "p.npy", array)
        with pytest.raises(ImageError, match="expected whole numbers or floating point"):
            read_picture(tmp_path / "p.npy")


# --- what no picture or stack can be made of ----------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"photometric": "separated", "shape": (9, 9, 4)}, "colours are SEPARATED; expected gray"),
        ({"photometric": "cfa", "shape": (9, 9)}, "colours are CFA; expected gray or RGB"),
        ({"dtype": "complex64", "photometric": "minisblack"}, "holds complex64; expected numbers"),
        ({"dtype": "bool", "photometric": "rgb", "shape": (9, 9, 3)}, "colours of 1 bits"),
        ({"dtype": "float32", "photometric": "miniswhite"}, "white at zero"),
    ],
)
def test_tiffs_of_other_kinds_are_refused(
    tmp_path: Path, words: dict[str, Any], message: str
) -> None:
    words = dict(words)
    array = np.zeros(words.pop("shape", (9, 9)), words.pop("dtype", "uint8"))
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, array, **words)
    with pytest.raises(ImageError, match=message) as caught:
        read_picture(path)
    one_line(caught, path)


def test_pictures_of_several_sizes_are_no_stack(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(random_picture(), photometric="rgb")
        file.write(SMOOTH, photometric="rgb")
    with pytest.raises(ImageError, match="holds 2 pictures of different sizes") as caught:
        read_picture(path)
    one_line(caught, path)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "message"),
    [
        ("p.png", (3, 9, 9, 1), "uint8", "PNG holds one picture, this has 3 pages; write a .tif"),
        ("p.png", (1, 9, 9, 5), "uint8", "this has 5 channels; write a .tif"),
        ("p.png", (1, 9, 9, 1), "float32", "dtype float32; expected uint8 or uint16 for PNG"),
        ("p.jpg", (1, 9, 9, 3), "uint16", "dtype uint16; expected uint8 for JPEG"),
        ("p.webp", (1, 9, 9, 3), "uint16", "dtype uint16; expected uint8 for WEBP"),
        ("p.tif", (1, 9, 9, 1), "bool", "dtype bool; expected uint8 or"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str, message: str
) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        write_picture(tmp_path / name, Picture(np.zeros(shape, dtype)))
    one_line(caught, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_alpha_is_refused_where_there_is_no_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="BMP has no alpha channel beside gray"):
        write(tmp_path / "p.bmp", random_picture(2))
    with pytest.raises(ImageError, match=r"JPEG has no alpha channel; write a \.png"):
        write(tmp_path / "p.jpg", random_picture(2))


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path = tmp_path / f"p{FORMATS[name].suffixes[0]}"
    with pytest.raises(ImageError, match=r"cannot be written \(No space left on .*\); make room"):
        write(path, random_picture())
    assert not list(tmp_path.iterdir())


def test_sides_too_long_for_a_format_are_named(tmp_path: Path) -> None:
    for name, side in (("p.webp", 16384), ("p.jpg", 65536)):
        with pytest.raises(ImageError, match=r"cannot be written \(") as caught:
            write(tmp_path / name, np.zeros((1, side), np.uint8))
        one_line(caught, tmp_path / name)
    assert not list(tmp_path.iterdir())
