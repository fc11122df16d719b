"""What picture files say beside their samples: kept, carried to other formats, or named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from pictures import ICC, XMP, exif_stream, lost, random_picture, rewritten, smooth_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pydenoise.data import ImageError, Picture, read_picture, write_picture

# --- PNG ----------------------------------------------------------------------------------------


def chunks(path: Path) -> list[tuple[bytes, bytes]]:
    content, place, found = path.read_bytes(), 8, []
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        found.append((kind, content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_chunks_go_from_file_to_file(tmp_path: Path, channels: int, dtype: str) -> None:
    before = [
        (b"sRGB", b"\0"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", *range(31000, 39000, 1000))),
        (b"iCCP", b"sRGB\0\0" + zlib.compress(ICC)),
        (b"sBIT", bytes([8] * channels)),
        (b"bKGD", bytes(6 if channels > 2 else 2)),
        (b"pHYs", struct.pack(">IIB", 11811, 11800, 1)),
        (b"tIME", struct.pack(">HBBBBB", 2026, 11, 24, 1, 2, 3)),
        (b"eXIf", exif_stream(">")),
        (b"tEXt", b"Comment\0short"),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"long" * 500)),
        (b"iTXt", "Title\0\0\0de\0Titel\0Ölbild".encode()),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"prVt", b"private, safe to copy"),
    ]
    behind = [(b"tEXt", b"Author\0behind the data")]
    array = random_picture(channels).astype(dtype)
    path = tmp_path / "p.png"
    path.write_bytes(imagecodecs.png_encode(array[..., 0] if channels == 1 else array))
    head, *data, end = chunks(path)
    write_chunks(path, [head, *before, *data, *behind, end])
    again = rewritten(path)
    assert without_data(again) == without_data(path)
    np.testing.assert_array_equal(read_picture(again).samples[0], array)
    metadata = read_picture(path).metadata
    assert metadata.icc == ICC
    assert metadata.exif == exif_stream(">")
    assert metadata.xmp == XMP
    assert metadata.dots_per_metre == (11811, 11800)
    assert metadata.orientation == 6


def write_chunks(path: Path, found: list[tuple[bytes, bytes]]) -> None:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, body in found:
        parts.append(struct.pack(">I", len(body)) + kind + body)
        parts.append(struct.pack(">I", zlib.crc32(kind + body)))
    path.write_bytes(b"".join(parts))


def without_data(path: Path) -> list[tuple[bytes, bytes]]:
    """The chunks, the data as one without content."""
    found: list[tuple[bytes, bytes]] = []
    for kind, body in chunks(path):
        if kind != b"IDAT":
            found.append((kind, body))
        elif found[-1][0] != b"IDAT":
            found.append((kind, b""))
    return found


def test_png_chunks_that_no_longer_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    palette = Image.fromarray(smooth_picture()).quantize(4)
    palette.save(path, transparency=1)
    found = chunks(path)
    extra = [(b"bKGD", b"\0"), (b"prVT", b"unsafe to copy"), (b"tEXt", b"a\0b"), (b"dSIG", b"1")]
    write_chunks(path, [*found[:3], *extra, *found[3:]])
    assert lost(path, "again.png") == "its palette, bKGD, prVT, dSIG"
    assert without_data(tmp_path / "again.png")[1:-1] == [(b"tEXt", b"a\0b"), (b"IDAT", b"")]


def test_a_chunk_with_a_wrong_check_sum_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    write_picture(path, Picture.of(random_picture()))
    found = chunks(path)
    write_chunks(path, [found[0], (b"tEXt", b"Author\0me"), *found[1:]])
    path.write_bytes(path.read_bytes().replace(b"\0me", b"\0we"))
    with pytest.raises(ImageError, match="check sum of chunk 'tEXt' is wrong"):
        read_picture(path)


def test_a_profile_that_is_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    write_picture(path, Picture.of(random_picture()))
    found = chunks(path)
    bomb = b"x\0\0" + zlib.compress(bytes(2**26), 9)
    write_chunks(path, [found[0], (b"iCCP", bomb), *found[1:]])
    assert read_picture(path).metadata.icc is None
    assert chunks(rewritten(path))[1] == (b"iCCP", bomb)


# --- BMP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bmp_keeps_resolution_and_profile(tmp_path: Path, channels: int) -> None:
    png = tmp_path / "p.png"
    array = random_picture(channels)
    image = Image.fromarray(array[..., 0] if channels == 1 else array)
    image.save(png, dpi=(300, 150), icc_profile=ICC if channels > 1 else None)
    bmp = rewritten(png, "p.bmp")
    np.testing.assert_array_equal(np.array(Image.open(bmp)), np.array(image))
    again = rewritten(bmp)
    assert again.read_bytes() == bmp.read_bytes()
    metadata = read_picture(again).metadata
    assert metadata.dots_per_metre == (11811, 5906)
    assert metadata.icc == (ICC if channels > 1 else None)


# --- TIFF ---------------------------------------------------------------------------------------

EXTRA = [
    (33550, 12, 3, (0.5, 0.25, 0.0), True),  # of a map: doubles
    (42113, 2, None, "-9999", True),
    (65000, 7, 5, b"\0\1\2\3\4", True),
    (65001, 3, 2, (7, 65535), True),
    (65002, 5, 1, (1, 3), True),
    (65003, 10, 1, (-1, 3), True),
    (65004, 4, 1, 123456, True),
]


def tags(path: Path) -> list[dict[int, Any]]:
    structure = {*range(256, 260), 262, 273, *range(277, 280), 284, 317, *range(322, 326), 338, 339}
    with tifffile.TiffFile(path) as file:
        return [
            {tag.code: tag.value for tag in page.tags if tag.code not in structure}
            for page in file.pages
        ]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_big", [False, True])
def test_tiff_tags_go_from_file_to_file(tmp_path: Path, order: Any, is_big: bool) -> None:
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path, byteorder=order, bigtiff=is_big) as file:
        for number in range(3):
            file.write(
                random_picture(),
                photometric="rgb",
                compression="lzw",
                description=f"page {number}",
                datetime="2026:11:24 01:02:03",
                software="Scope",
                resolution=(254, 127),
                resolutionunit="INCH",
                iccprofile=ICC,
                extratags=[(274, 3, 1, 3, True), *EXTRA, (700, 1, len(XMP), XMP, True)],
                metadata=None,
                contiguous=False,
            )
    again = rewritten(path)
    assert tags(again) == tags(path)
    metadata = read_picture(path).metadata
    assert metadata.icc == ICC
    assert metadata.xmp == XMP
    assert metadata.orientation == 3
    assert metadata.dots_per_metre == pytest.approx((10000, 5000))


@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_below_a_tiffs_stay(tmp_path: Path, order: str) -> None:
    path = tmp_path / "p.tif"
    jpeg = tmp_path / "p.jpg"
    exif = Image.Exif()
    exif.load(exif_stream(order))
    exif[282] = 72.0  # less than what JFIF says
    exif[0x0131] = "odd!"  # five bytes with its end
    head = b"Exif\0\0"
    told = head + exif.tobytes().removeprefix(head)
    Image.fromarray(smooth_picture()).save(jpeg, exif=told, dpi=(300, 300))
    rewritten(jpeg, "p.tif")
    again = rewritten(path)
    for file in (path, again):
        with tifffile.TiffFile(file) as pages:
            codes = [tag.code for tag in pages.pages[0].tags]
            places = [tag.valueoffset for tag in pages.pages[0].tags]
        assert codes == sorted(set(codes)), "ascending, each once"
        assert not any(place % 2 for place in places), "on whole words"
        exif = Image.open(file).getexif()
        assert exif[0x010F] == "Maker"
        assert exif[0x0112] == 6
        assert exif.get_ifd(0x8769)[0x829A] == 0.005
        assert exif.get_ifd(0x8825)[1] == "N"
    assert tags(again) == tags(path)


def test_what_a_tiff_cannot_be_again_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, smooth_picture(), photometric="ycbcr", compression="jpeg")
    assert lost(path, "again.tif") == "its JPEG compression"
    picture = read_picture(path)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again.tif"), picture.array)
    with tifffile.TiffWriter(path) as file:
        file.write(smooth_picture(), photometric="rgb", subifds=1, metadata=None)
        file.write(smooth_picture(24, 32), photometric="rgb", subfiletype=1, metadata=None)
    assert lost(path, "again.tif") == "its smaller versions"


# --- from format to format ----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["png", "jpg", "tif", "webp", "bmp", "npy"])
@pytest.mark.parametrize("source", ["png", "jpg", "tif", "webp"])
def test_other_formats_get_what_they_can_hold(tmp_path: Path, source: str, target: str) -> None:
    path = tmp_path / f"source.{source}"
    first = tmp_path / "first.jpg"
    Image.fromarray(smooth_picture()).save(
        first,
        exif=b"Exif\0\0" + exif_stream(),
        icc_profile=ICC,
        xmp=XMP,
        dpi=(300, 300),
        quality=95,
    )
    rewritten(first, path.name, quiet=False)
    told = "" if source == target else target
    if target in ("webp", "bmp", "npy") and target != source:
        without = lost(path, f"out.{target}")
        has_resolution = source != "webp"
        assert ("the resolution" in without) == (has_resolution and target != "bmp")
        assert ("EXIF with its orientation" in without) == (target != "webp")
        assert ("ICC" in without) == (target == "npy")
        told = ""
    if told:
        rewritten(path, f"out.{target}")
    before = read_picture(path).metadata
    after = read_picture(tmp_path / f"out.{target}").metadata if told else before
    assert after.icc == ICC
    assert after.xmp == XMP
    assert after.orientation == 6
    exif = Image.Exif()
    exif.load(after.exif)
    assert exif[0x010F] == "Maker"
    assert exif.get_ifd(0x8769)[0x829A] == 0.005
    if before.dots_per_metre and after.dots_per_metre:
        assert after.dots_per_metre == pytest.approx(before.dots_per_metre, abs=1)


def test_what_only_one_format_says_is_named_by_others(tmp_path: Path) -> None:
    said = PngInfo()
    said.add_text("Author", "me")
    said.add(b"gAMA", struct.pack(">I", 45455))
    path = tmp_path / "p.png"
    Image.fromarray(smooth_picture()).save(path, pnginfo=said)
    assert lost(path, "out.jpg") == "tEXt, gAMA"
    assert lost(path, "out.tif") == "tEXt, gAMA"
    Image.fromarray(smooth_picture()).save(tmp_path / "p.jpg", comment="words")
    assert lost(tmp_path / "p.jpg", "out.png") == "a comment"
    tifffile.imwrite(tmp_path / "p.tif", smooth_picture(), extratags=EXTRA[:3], metadata=None)
    assert lost(tmp_path / "p.tif", "out.png") == "ModelPixelScaleTag, GDAL_NODATA, tag 65000"


def test_a_profile_of_other_colours_is_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    gray = ICC[:16] + b"GRAY" + ICC[20:]
    Image.fromarray(smooth_picture()[:, :, 0]).save(path, icc_profile=gray)
    assert lost(path, "out.webp") == "the ICC profile"
    assert read_picture(rewritten(path, "out.jpg")).metadata.icc == gray


def test_damaged_exif_is_kept_or_named(tmp_path: Path) -> None:
    path = tmp_path / "p.webp"
    Image.fromarray(smooth_picture()).save(path, exif=b"II*\0\x99\0\0\0")
    assert read_picture(rewritten(path)).metadata.exif == b"II*\0\x99\0\0\0"
    assert lost(path, "out.tif") == "EXIF, which is damaged"


def test_a_pointer_to_nowhere_in_a_tiff_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tags_of_it = [(34853, 4, 1, 10**6, True), (305, 2, None, "Scope", True)]
    tifffile.imwrite(path, smooth_picture(), extratags=tags_of_it, metadata=None, software=False)
    assert 34853 not in tags(rewritten(path))[0]
    assert tags(rewritten(path))[0][305] == "Scope"


def test_exif_too_long_for_a_jpeg_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.webp"
    long = exif_stream() + bytes(70_000)
    Image.fromarray(smooth_picture()).save(path, exif=long)
    assert lost(path, "out.jpg") == "EXIF"
    assert read_picture(rewritten(path, "out.png")).metadata.exif == long


# --- smaller pictures ---------------------------------------------------------------------------


def test_shrunk_pictures_are_means_of_cells(tmp_path: Path) -> None:
    pages = np.arange(2 * 7 * 9, dtype=np.uint16).reshape(2, 7, 9) * 11
    tifffile.imwrite(tmp_path / "stack.tif", pages, metadata={"axes": "ZYX"}, resolution=(200, 400))
    shrunk = read_picture(tmp_path / "stack.tif").shrunk(2)
    expected = np.rint(pages[:, :6, :8].reshape(2, 3, 2, 4, 2).mean(axis=(2, 4)))
    np.testing.assert_array_equal(shrunk.array, expected)
    assert shrunk.samples.dtype == np.uint16
    write_picture(tmp_path / "shrunk.tif", shrunk)
    again = read_picture(tmp_path / "shrunk.tif")
    np.testing.assert_array_equal(again.array, expected)
    assert again.axes == "ZYX"
    dots = read_picture(tmp_path / "stack.tif").metadata.dots_per_metre
    assert again.metadata.dots_per_metre == pytest.approx([d / 2 for d in dots])


def test_shrunk_pictures_keep_floating_point_alpha_and_profile(tmp_path: Path) -> None:
    holes = np.ones((4, 4), np.float32)
    holes[0, 0] = np.nan
    shrunk = Picture.of(holes / 3).shrunk(2)
    np.testing.assert_array_equal(np.isnan(shrunk.array), [[True, False], [False, False]])
    assert shrunk.samples.dtype == np.float32
    Image.fromarray(random_picture(4)).save(tmp_path / "p.png", icc_profile=ICC)
    small = read_picture(tmp_path / "p.png").shrunk(3)
    assert (small.alpha, small.samples.shape, small.metadata.icc) == (3, (1, 4, 5, 4), ICC)
    with pytest.raises(ValueError, match="has 4x4 pixels; expected 5x5 at least"):
        Picture.of(holes).shrunk(5)
