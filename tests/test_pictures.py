"""Picture files of every format, depth and layout: there and back, the same."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from pictures import smooth_picture
from PIL import Image

from pydenoise.data import ImageError, Picture, read_picture, write_picture
from pydenoise.data.pictures import upright

INTEGERS = ["uint8", "uint16", "uint32", "int8", "int16", "int32"]
FLOATS = ["float16", "float32", "float64"]
CHANNELS = [None, 1, 2, 3, 4]


def numbers(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    if dtype.startswith("float"):
        return (rng.normal(size=shape) * 1000).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def again(path: Path, **words: Any) -> tuple[Picture, Picture]:
    """A file read, and what is read of the file that is written of it without a loss."""
    first = read_picture(path, **words)
    out = path.with_name(f"again{path.suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_picture(out, first)
    second = read_picture(out, **words)
    np.testing.assert_array_equal(first.samples, second.samples)
    assert first.samples.dtype == second.samples.dtype
    assert first.alpha == second.alpha
    assert first.layout == second.layout
    assert first.metadata == second.metadata
    assert not second.changed
    return first, second


# --- arrays into files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *((".png", dtype) for dtype in ("uint8", "uint16")),
        *((".tif", dtype) for dtype in INTEGERS + FLOATS),
        *((".npy", dtype) for dtype in INTEGERS + FLOATS),
        (".bmp", "uint8"),
        (".webp", "uint8"),
    ],
)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [(13, 17), (1, 1), (1, 9), (9, 1)])
def test_every_depth_and_layout(
    tmp_path: Path, suffix: str, dtype: str, channels: int | None, size: tuple[int, int]
) -> None:
    array = numbers(size if channels is None else (*size, channels), dtype)
    if suffix == ".webp" and channels in (None, 1, 2):
        pytest.skip("WebP holds gray as RGB")
    if suffix == ".bmp" and channels == 2:
        pytest.skip("BMP has no alpha beside gray")
    path = tmp_path / f"p{suffix}"
    write_picture(path, Picture.of(array))
    first, _ = again(path)
    np.testing.assert_array_equal(first.samples[0], array.reshape(*size, -1))
    assert first.samples.dtype == dtype
    if suffix != ".npy" or channels != 2:
        assert first.alpha == {2: 1, 4: 3}.get(channels or 1)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_array_comes_back_bit_by_bit(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    suffix = data.draw(st.sampled_from([".png", ".tif", ".npy", ".bmp", ".webp"]))
    dtypes = {".png": ["u1", "u2"], ".bmp": ["u1"], ".webp": ["u1"]}.get(suffix)
    dtype = data.draw(st.sampled_from(dtypes or ["u1", "u2", "i2", "f4", "f8"]))
    channels = data.draw(st.sampled_from([3, 4] if suffix in (".bmp", ".webp") else [1, 2, 3, 4]))
    sides = st.integers(1, 20)
    shape = (data.draw(sides), data.draw(sides), channels)
    array = data.draw(arrays.arrays(dtype, shape))
    path = tmp_path_factory.mktemp("any") / f"p{suffix}"
    write_picture(path, Picture.of(array))
    samples = read_picture(path).samples
    assert samples[0].tobytes() == array.tobytes()


# --- files of others ----------------------------------------------------------------------------

TIFFS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "gray": ((13, 17), {}),
    "pages": ((5, 13, 17), {}),
    "hyperstack": ((2, 3, 13, 17), {"metadata": {"axes": "TZYX"}}),
    "colours": ((13, 17, 3), {"photometric": "rgb"}),
    "planar colours": ((3, 13, 17), {"photometric": "rgb", "planarconfig": "separate"}),
    "pages of colours": ((4, 13, 17, 3), {"photometric": "rgb"}),
    "planar pages": ((4, 3, 13, 17), {"photometric": "rgb", "planarconfig": "separate"}),
    "alpha": ((13, 17, 4), {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "gray and alpha": ((13, 17, 2), {"planarconfig": "contig", "extrasamples": ["unassalpha"]}),
    "bands": ((13, 17, 6), {"planarconfig": "contig"}),
}
STORED: dict[str, dict[str, Any]] = {
    "plain": {},
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate", "byteorder": ">"},
    "packbits": {"compression": "packbits"},
    "zstd tiles": {"compression": "zstd", "tile": (16, 32)},
    "big-endian": {"byteorder": ">", "rowsperstrip": 4},
    "BigTIFF": {"bigtiff": True, "byteorder": ">", "compression": "lzw"},
}


def structure(path: Path) -> tuple[Any, ...]:
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages[0]
        return (
            *(file.byteorder, file.is_bigtiff, len(file.pages)),
            *(series.kind, series.axes, series.shape, series.dtype),
            *(page.compression, page.predictor, page.tile, page.rowsperstrip),
            *(page.photometric, page.planarconfig, page.extrasamples, page.description),
        )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("kind", TIFFS)
def test_tiffs_stay_what_they_are(tmp_path: Path, kind: str, stored: str, dtype: str) -> None:
    shape, words = TIFFS[kind]
    array = numbers(shape, dtype)
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **words, **STORED[stored]})
    first, _ = again(path)
    np.testing.assert_array_equal(first.array, array)
    assert first.samples.dtype == np.dtype(dtype)
    assert structure(tmp_path / "again.tif") == structure(path)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again.tif"), array)
    assert first.alpha == {"alpha": 3, "gray and alpha": 1}.get(kind)
    assert first.pages == {"pages": 5, "hyperstack": 6}.get(kind, 4 if "pages" in kind else 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_imagej_hyperstacks_stay_what_they_are(tmp_path: Path, dtype: str) -> None:
    array = numbers((3, 2, 13, 17), dtype)
    path = tmp_path / "p.tif"
    tifffile.imwrite(
        path,
        array,
        imagej=True,
        resolution=(2.5, 2.5),
        metadata={"axes": "TCYX", "unit": "um", "finterval": 0.5, "Labels": list("abcdef")},
    )
    again(path)
    assert structure(tmp_path / "again.tif") == structure(path)
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(tmp_path / "again.tif") as two:
        assert one.imagej_metadata == two.imagej_metadata


def test_ome_files_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "p.ome.tif"
    array = numbers((3, 2, 13, 17), "uint16")
    tifffile.imwrite(path, array, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.1}, ome=True)
    first, _ = again(path)
    assert first.axes == "ZCYX"
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(tmp_path / "again.tif") as two:
        assert one.ome_metadata == two.ome_metadata
        assert two.series[0].axes == "ZCYX"


def test_one_directory_for_a_whole_stack(tmp_path: Path) -> None:
    array = numbers((5, 13, 17), "uint16")
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, array, photometric="minisblack", truncate=True)
    first, _ = again(path)
    np.testing.assert_array_equal(first.array, array)
    assert structure(tmp_path / "again.tif") == structure(path)


def test_white_at_zero_is_seen_as_white(tmp_path: Path) -> None:
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        array = numbers((13, 17), dtype)
        path = tmp_path / f"{dtype}.tif"
        tifffile.imwrite(path, array, photometric="miniswhite")
        first, _ = again(path)
        np.testing.assert_array_equal(first.samples[0, :, :, 0], white - array)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "again.tif"), array)
        (tmp_path / "again.tif").unlink()


def test_twelve_bits_with_white_at_zero_have_room_for_more(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    bits = b"\x12\x3f\xff"  # two samples: 0x123 and white's opposite
    fields = [
        *((256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 0)),
        *((273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)),
    ]
    table = b"".join(struct.pack("<HHII", *field) for field in fields)
    head = struct.pack("<2sHI", b"II", 42, 12) + bits + b"\0"
    path.write_bytes(head + struct.pack("<H", len(fields)) + table + bytes(4))
    picture = read_picture(path)
    assert picture.samples.ravel().tolist() == [0xFFF - 0x123, 0]
    brighter = picture.with_samples(picture.samples + np.uint16(5000))
    with pytest.warns(UserWarning, match="written without 12 bits a sample"):
        write_picture(tmp_path / "out.tif", brighter)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.tif").samples, brighter.samples)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "<i8", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_keep_their_byte_order_and_memory_order(
    tmp_path: Path, dtype: str, order: Any
) -> None:
    array = np.array(np.arange(5 * 13 * 17).reshape(5, 13, 17) % 251, dtype, order=order)
    np.save(tmp_path / "p.npy", array)
    first, _ = again(tmp_path / "p.npy")
    assert first.samples.shape == (5, 13, 17, 1)
    before = (tmp_path / "p.npy").read_bytes()
    assert (tmp_path / "again.npy").read_bytes() == before
    write_picture(tmp_path / "new.npy", first.with_samples(first.samples.copy("C")))
    assert (tmp_path / "new.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("shape", "axes", "samples"),
    [
        ((13, 17), None, (1, 13, 17, 1)),
        ((13, 17, 3), None, (1, 13, 17, 3)),
        ((9, 13, 17), None, (9, 13, 17, 1)),
        ((2, 9, 13, 17), None, (18, 13, 17, 1)),
        ((9, 13, 17, 4), None, (9, 13, 17, 4)),
        ((13, 17, 3), "YXT", (3, 13, 17, 1)),
        ((13, 17, 3), "YXC", (1, 13, 17, 3)),
        ((3, 13, 17), "CYX", (3, 13, 17, 1)),
        ((3, 13, 17), "SYX", (1, 13, 17, 3)),
        ((13, 2, 17, 3), "YTXZ", (6, 13, 17, 1)),
        ((17, 13), "XY", (1, 13, 17, 1)),
    ],
)
def test_axes_order_an_array(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None, samples: tuple[int, ...]
) -> None:
    array = numbers(shape, "uint16")
    np.save(tmp_path / "p.npy", array)
    first, _ = again(tmp_path / "p.npy", axes=axes)
    assert first.samples.shape == samples
    np.testing.assert_array_equal(first.array, array)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), array)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("TYX", "axes 'TYX' name 3 dimensions, the file has shape"),
        ("TTYX", "each letter once"),
        ("TZXC", "expected Y and X"),
        ("tzyx", "capital letters"),
        ("YXTZ", "are 'TZYX'"),
    ],
)
def test_wrong_axes_are_refused(tmp_path: Path, axes: str, message: str) -> None:
    path = tmp_path / "p.tif"
    shape, words = TIFFS["hyperstack"]
    tifffile.imwrite(path, numbers(shape, "uint8"), photometric="minisblack", **words)
    assert read_picture(path, axes="CZYX").axes == "CZYX"
    with pytest.raises(ImageError, match=message):
        read_picture(path, axes=axes)
    write_picture(tmp_path / "p.png", Picture.of(numbers((3, 4), "uint8")))
    with pytest.raises(ImageError, match="is a PNG, which holds one picture"):
        read_picture(tmp_path / "p.png", axes="YX")


def test_a_stack_of_an_array_gets_its_axes_named(tmp_path: Path) -> None:
    array = numbers((2, 3, 13, 17, 3), "uint8")
    np.save(tmp_path / "p.npy", array)
    write_picture(tmp_path / "p.tif", read_picture(tmp_path / "p.npy", axes="TZYXS"))
    first, _ = again(tmp_path / "p.tif")
    assert first.axes == "TZYXS"
    np.testing.assert_array_equal(first.array, array)


# --- depths below 8, palettes, transparent colours ----------------------------------------------


def png(depth: int, colour_type: int, rows: list[bytes], width: int, *chunks: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    extra = b"".join(chunk(c[:4], c[4:]) for c in chunks)
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


def test_few_bits_are_spread_over_eight(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png(2, 0, [bytes([0b00011011])] * 3, 4, b"gAMA\0\0\xb1\x8f"))
    picture = read_picture(path)
    assert picture.samples[0, 0, :, 0].tolist() == [0, 85, 170, 255]
    with pytest.warns(UserWarning, match=r"out.png: written without 2 bits a sample$"):
        write_picture(tmp_path / "out.png", picture)
    assert b"gAMA\0\0\xb1\x8f" in (tmp_path / "out.png").read_bytes()
    path = tmp_path / "p.tif"
    bits = numbers((13, 17), "uint8") > 99
    tifffile.imwrite(path, bits, photometric="minisblack")
    assert (read_picture(path).samples[0, :, :, 0] == 255 * bits).all()
    with pytest.warns(UserWarning, match="without 1 bit a sample"):
        write_picture(tmp_path / "out.tif", read_picture(path))


def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    row = struct.pack(">6H", 1, 2, 3, 1, 2, 4)
    path.write_bytes(png(16, 2, [row], 2, b"tRNS" + struct.pack(">3H", 1, 2, 3)))
    picture = read_picture(path)
    assert picture.samples[0, 0].tolist() == [[1, 2, 3, 0], [1, 2, 4, 65535]]
    again(path)
    path.write_bytes(png(16, 0, [row], 6, b"tRNS" + struct.pack(">H", 2)))
    assert read_picture(path).samples[0, 0, :, 1].tolist() == [65535, 0, 65535, 65535, 0, 65535]


def test_palettes_become_colours_and_that_is_said(tmp_path: Path) -> None:
    palette = Image.fromarray(smooth_picture()).quantize(16)
    expected = np.array(palette.convert("RGB"))
    for suffix in (".png", ".bmp", ".tif"):
        palette.save(tmp_path / f"p{suffix}")
        picture = read_picture(tmp_path / f"p{suffix}")
        assert picture.samples.dtype == np.uint8
        np.testing.assert_array_equal(picture.samples[0], expected)
        with pytest.warns(UserWarning, match="written without its palette"):
            write_picture(tmp_path / f"out{suffix}", picture)
        np.testing.assert_array_equal(
            read_picture(tmp_path / f"out{suffix}").samples, picture.samples
        )


def test_interlaced_pictures_are_read(tmp_path: Path) -> None:
    """Three of the seven passes of Adam7 hold the pixels of a picture of 2x2."""
    passes = [bytes([0, 10]), bytes([0, 20]), bytes([0, 30, 40])]
    content = png(8, 0, [b"", b""], 2)
    head = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    data = zlib.compress(b"".join(passes))
    for kind, body in ((b"IHDR", head), (b"IDAT", data)):
        start = content.index(kind) - 4
        end = start + 12 + struct.unpack_from(">I", content, start)[0]
        check = struct.pack(">I", zlib.crc32(kind + body))
        content = (
            content[:start] + struct.pack(">I", len(body)) + kind + body + check + content[end:]
        )
    (tmp_path / "p.png").write_bytes(content)
    assert read_picture(tmp_path / "p.png").samples[0, :, :, 0].tolist() == [[10, 20], [30, 40]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pillow_does(orientation: int) -> None:
    from PIL import ImageOps

    array = smooth_picture(5, 7)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(buffer))
    np.testing.assert_array_equal(upright(array, orientation), np.array(expected))


def test_a_picture_refuses_samples_of_another_kind() -> None:
    picture = Picture.of(numbers((3, 4, 4), "uint16"))
    assert (picture.colours, picture.alpha, picture.pages, picture.axes) == (3, 3, 1, "YXS")
    with pytest.raises(ValueError, match=r"dtype uint8; expected \(1, 3, 4, 4\) and uint16"):
        picture.with_samples(picture.samples.astype(np.uint8))
    with pytest.raises(ValueError, match="none of them 0"):
        Picture(np.zeros((0, 2, 2, 1)))
    with pytest.raises(ValueError, match="C from 1 to 4"):
        Picture.of(numbers((3, 4, 5), "uint8"))
