"""JPEG and WebP: written again as their source was coded, with all that stands beside."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import ICC, XMP, exif_stream, lost, psnr, random_picture, rewritten, smooth_picture
from PIL import Image

from pydenoise.data import MetadataWarning, Picture, read_picture, write_picture

# --- JPEG ---------------------------------------------------------------------------------------


def segments(path: Path) -> list[tuple[int, bytes]]:
    content, place, found = path.read_bytes(), 2, []
    while content[place + 1] != 0xDA:
        marker, length = struct.unpack_from(">xBH", content, place)
        if marker >= 0xE0 and marker != 0xEE:
            found.append((marker, content[place + 4 : place + 2 + length]))
        place += 2 + length
    return found


def natural_picture() -> np.ndarray:
    y, x = np.mgrid[:90, :130]
    noise = np.random.default_rng(3).normal(0, 3, (90, 130, 3))
    return (np.stack([x, 2 * y, 128 + 60 * np.sin(x / 5)], 2) + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("quality", [3, 30, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_written_as_its_source(
    tmp_path: Path, quality: int, subsampling: int, progressive: bool
) -> None:
    path = tmp_path / "p.jpg"
    words: dict[str, Any] = {"quality": quality, "subsampling": subsampling}
    Image.fromarray(natural_picture()).save(
        path,
        progressive=progressive,
        exif=b"Exif\0\0" + exif_stream(),
        icc_profile=ICC * 200,  # several segments
        xmp=XMP,
        comment="words",
        dpi=(300, 200),
        **words,
    )
    again = rewritten(path)
    assert segments(again) == segments(path)
    before, after = Image.open(path), Image.open(again)
    assert before.quantization == after.quantization
    assert before.layer == after.layer
    assert before.info.get("progressive") == after.info.get("progressive")
    assert (before.size, before.mode) == (after.size, after.mode)
    shown = np.array(before)
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", **words)
    assert psnr(shown, np.array(after)) > psnr(shown, np.array(Image.open(buffer))) - 0.01
    assert read_picture(path).metadata.icc == ICC * 200


def test_jpeg_of_other_colours_is_written_as_its_source(tmp_path: Path) -> None:
    gray = tmp_path / "gray.jpg"
    Image.fromarray(natural_picture()[:, :, 0]).save(gray, quality=80)
    assert Image.open(rewritten(gray)).mode == "L"
    rgb = tmp_path / "rgb.jpg"
    Image.fromarray(natural_picture()).save(rgb, quality=90, keep_rgb=True)
    again = rewritten(rgb)
    assert b"Adobe" in again.read_bytes()
    assert psnr(np.array(Image.open(rgb)), np.array(Image.open(again))) > 40
    tables = tmp_path / "tables.jpg"
    three = [[number] * 64 for number in (4, 9, 14)]
    Image.fromarray(natural_picture()).save(tables, qtables=three)
    assert Image.open(rewritten(tables)).quantization == Image.open(tables).quantization


def test_noise_too_fine_for_a_progressive_jpeg_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (1, 200, 200, 3), dtype=np.uint8)
    Image.fromarray(smooth_picture()).save(path, quality=100, subsampling=0, progressive=True)
    grown = Picture(noise, format="JPEG", form=read_picture(path).form)
    with pytest.warns(MetadataWarning, match="written without its progressive order"):
        write_picture(tmp_path / "large.jpg", grown)
    assert psnr(read_picture(tmp_path / "large.jpg").samples, noise) > 40


def test_what_stands_behind_a_jpeg_is_named(tmp_path: Path) -> None:
    pages = [Image.fromarray(smooth_picture()) for _ in range(2)]
    path = tmp_path / "p.jpg"
    pages[0].save(path, format="MPO", save_all=True, append_images=pages[1:])
    assert lost(path, "again.jpg") == "the further pictures, data behind the picture"


# --- WebP ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("quality", [None, 5, 40, 75, 90, 100])
def test_webp_is_written_as_its_source(tmp_path: Path, quality: int | None, channels: int) -> None:
    path = tmp_path / "p.webp"
    array = natural_picture()
    if channels == 4:
        array = np.concatenate([array, array[:, :, :1]], axis=2)
    words: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    said = {"icc_profile": ICC, "exif": exif_stream(), "xmp": XMP}
    Image.fromarray(array).save(path, **words, **said)
    again = rewritten(path)
    before, after = Image.open(path), Image.open(again)
    assert (before.size, before.mode) == (after.size, after.mode)
    for name in said:
        assert before.info[name] == after.info[name]
    assert read_picture(path).metadata == read_picture(again).metadata
    content = again.read_bytes()
    assert content.index(b"ICCP") < content.index(b"VP8", 24), "the profile comes first"
    shown = np.array(before)
    if quality is None:
        np.testing.assert_array_equal(np.array(after), shown)
    else:
        buffer = io.BytesIO()
        Image.fromarray(shown).save(buffer, "WEBP", **words)
        assert psnr(shown, np.array(after)) > psnr(shown, np.array(Image.open(buffer))) - 0.1
        assert again.stat().st_size < 1.5 * path.stat().st_size


def test_unknown_webp_chunks_stay(tmp_path: Path) -> None:
    path = tmp_path / "p.webp"
    Image.fromarray(smooth_picture()).save(path, exif=exif_stream())
    content = path.read_bytes() + b"WORD\x03\0\0\0abc\0"
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    assert rewritten(path).read_bytes().endswith(b"WORD\x03\0\0\0abc\0")


def test_opaque_alpha_of_a_webp_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.webp"
    array = random_picture(4)
    write_picture(path, Picture.of(array))
    opaque = read_picture(path)
    opaque.samples[..., 3] = 255
    write_picture(tmp_path / "again.webp", opaque)
    np.testing.assert_array_equal(read_picture(tmp_path / "again.webp").samples, opaque.samples)
