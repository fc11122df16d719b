"""Files made to do harm: refused, on one line, with nothing run, soon and in little memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import OWN_ERRORS, outcomes
from hypothesis import given, settings, strategies as st
from test_pictures_damage import (
    bmp_head,
    jpeg_head,
    pillow,
    png_head,
    tiff,
    tiff_bomb,
    webp_head,
    zeros,
)

from pydenoise.checkpoint import load_weights
from pydenoise.checkpoint._one import load_checkpoint
from pydenoise.data import load_course_file, read_picture

TESTS = Path(__file__).parent


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, call: Any, *words: Any) -> None:
        self.call = call, words

    def __reduce__(self) -> Any:
        return self.call


def pickled(path: Path, protocol: int) -> bytes:
    return pickle.dumps(Touch(os.mkdir, str(path)), protocol=protocol)


def by_hand(path: Path) -> bytes:
    """The INST operation, which no pickler writes any more."""
    return b"(S'" + f"mkdir {path}".encode() + b"'\nios\nsystem\n."


def in_zip(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def torch_zip(**more: bytes) -> dict[str, bytes]:
    """The records of a right file of two tensors."""
    buffer = io.BytesIO()
    pair = torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8)
    torch.save((pair[0].clone(), pair[1].clone()), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()} | more


def inflated() -> bytes:
    """Torch's archive whose tensors' bytes are a few that unpack to a gigabyte."""
    records = torch_zip()
    name = next(name for name in records if name.endswith("data/0"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, content in records.items():
            if other != name:
                archive.writestr(other, content)
        with archive.open(name, "w", force_zip64=True) as record:
            for _ in range(16):
                record.write(bytes(2**26))
    return buffer.getvalue()


def safetensors(header: dict[str, Any] | bytes, values: bytes = b"") -> bytes:
    """A file with a right SHA-256, so that what it says is looked at."""
    metadata = {
        "format_version": "1",
        "architecture": '{"name": "autoencoder", "channels": [2], "in_channels": 1}',
        "value_range": "[0.0, 1.0]",
        "trained_on": "",
        "sha256": "0" * 64,
    }
    if isinstance(header, dict):
        whole = {"__metadata__": metadata | header.pop("__metadata__", {}), **header}
        header = json.dumps(whole, separators=(",", ":")).encode()
    content = struct.pack("<Q", len(header)) + header + values
    place = content.find(b'"sha256":"') + 10
    if place < 10:
        return content
    digest = sha256(content[:place] + b"0" * 64 + content[place + 64 :]).hexdigest().encode()
    return content[:place] + digest + content[place + 64 :]


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def architecture(**words: Any) -> dict[str, Any]:
    return {"__metadata__": {"architecture": json.dumps(words)}}


def npy_header(text: str) -> bytes:
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + bytes(64)


def object_array(path: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([[Touch(os.mkdir, str(path))]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def png_with(kind: bytes, packed: bytes) -> bytes:
    """A picture with a chunk behind its header."""
    content = pillow("PNG")
    chunk = struct.pack(">I", len(packed)) + kind + packed
    chunk += struct.pack(">I", zlib.crc32(kind + packed))
    return content[:33] + chunk + content[33:]


def png_data_bomb() -> bytes:
    """A small picture whose pixels unpack to a gigabyte."""
    head = pillow("PNG")[:33]
    packed = zeros(2**30)
    data = struct.pack(">I", len(packed)) + b"IDAT" + packed
    data += struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    return head + data + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def looping_tiff() -> bytes:
    """Pages that follow each other in a circle."""
    entry = struct.pack("<HHII", 256, 3, 1, 1)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def tiff_around_a_large_jpeg() -> bytes:
    """A small picture whose strip's JPEG says that it is large."""
    content = bytearray(tiff(compression="jpeg"))
    place = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, place + 5, 65500, 65500)
    return bytes(content)


def tiff_with_a_circle_behind() -> bytes:
    """A right page, whose next one is empty and followed by itself."""
    content = bytearray(tiff())
    first = struct.unpack_from("<I", content, 4)[0]
    entries = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * entries, len(content))
    return bytes(content) + struct.pack("<HI", 0, len(content))


CANARY = "canary"
MOST_BYTES = 600 * 2**20
"""More than a picture takes, less than what bombs unpack to."""

PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "pickle protocol 0.pkl": lambda canary: pickled(canary, 0),
    "pickle protocol 2.pkl": lambda canary: pickled(canary, 2),
    "pickle protocol 5.pkl": lambda canary: pickled(canary, 5),
    "pickle by hand.pkl": by_hand,
    "pickle in a zip.pkl": lambda canary: in_zip(
        torch_zip() | {n: pickled(canary, 2) for n in torch_zip() if n.endswith("data.pkl")}
    ),
    "zip slip.pkl": lambda canary: in_zip({f"../../{canary.name}/data.pkl": pickled(canary, 2)}),
    "zip of the root.pkl": lambda canary: in_zip({str(canary): b"x", "a/data.pkl": b"."}),
    "zip bomb.pkl": lambda _: inflated(),
    "deep tuples.pkl": lambda _: b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "many lists.pkl": lambda _: b"\x80\x02]" + b"(h\x00" + b"]q\x000" * 100_000 + b".",
    "huge string.pkl": lambda _: b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "huge header.safetensors": lambda _: struct.pack("<Q", 2**62) + b"{}",
    "header beyond the file.safetensors": lambda _: struct.pack("<Q", 10**6) + b"{}",
    "deep header.safetensors": lambda _: safetensors(b'{"a":' * 100_000),
    "overlapping tensors.safetensors": lambda _: safetensors(
        {"0.weight": tensor("F32", [4], 0, 16), "0.bias": tensor("F32", [4], 8, 24)}, bytes(24)
    ),
    "tensor beyond the file.safetensors": lambda _: safetensors(
        {"0.weight": tensor("F32", [2**40], 0, 2**42)}
    ),
    "tensor of overflowing size.safetensors": lambda _: safetensors(
        {"0.weight": tensor("F32", [2**32, 2**32], 0, 0)}
    ),
    "network of another's code.safetensors": lambda _: safetensors(architecture(name="os.system")),
    "huge network.safetensors": lambda _: safetensors(
        architecture(name="autoencoder", channels=[10**6, 10**6], in_channels=3)
    ),
    "endless network.safetensors": lambda _: safetensors(
        architecture(name="autoencoder", channels=[1] * 100_000, in_channels=1)
    ),
    "deep.json": lambda _: b'{"sha256":"' + b"0" * 64 + b'","a":' + b"[" * 100_000,
    "long number.json": lambda _: b'{"sha256":"' + b"0" * 64 + b'","step":' + b"9" * 10**6 + b"}",
    "objects.npy": object_array,
    "code in the header.npy": lambda canary: npy_header(
        f"{{'descr': '<f8', 'fortran_order': __import__('os').mkdir({str(canary)!r}), 'shape': ()}}"
    ),
    "huge shape.npy": lambda _: npy_header(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"
    ),
    "deep header.npy": lambda _: npy_header("(" * 60_000),
    "huge.png": lambda _: png_head(2**31 - 1, 2**31 - 1),
    "huge.jpg": lambda _: jpeg_head(65500, 65500),
    "huge.webp": lambda _: webp_head(lossless=True),
    "huge.bmp": lambda _: bmp_head(2**31 - 1, 2**31 - 1),
    "bomb.tif": lambda _: tiff_bomb(20480, 20),
    "bomb of pages.tif": lambda _: tiff_bomb(2048, 2, 100),
    "large JPEG in it.tif": lambda _: tiff_around_a_large_jpeg(),
    "circle.tif": lambda _: looping_tiff(),
    "circle behind a page.tif": lambda _: tiff_with_a_circle_behind(),
}
READERS = {".pkl": load_course_file, ".safetensors": load_weights, ".json": load_checkpoint}


def test_thirty_payloads_are_refused(tmp_path: Path) -> None:
    assert len(PAYLOADS) >= 30
    canary = tmp_path / CANARY
    jobs = []
    for name, make in PAYLOADS.items():
        path = tmp_path / name
        path.write_bytes(make(canary))
        assert path.stat().st_size < 5_000_000
        jobs.append((path, READERS.get(path.suffix, read_picture)))
    said = dict(zip(PAYLOADS, outcomes(jobs, MOST_BYTES), strict=True))
    assert {name: each for name, each in said.items() if each != "refused"} == {}
    assert not canary.exists()


@pytest.mark.parametrize("name", ["pickle protocol 2.pkl", "pickle by hand.pkl", "objects.npy"])
def test_the_payloads_are_live(tmp_path: Path, name: str) -> None:
    """The negative control: a reader that trusts its files runs them."""
    canary = tmp_path / CANARY
    content = PAYLOADS[name](canary)
    if name.endswith(".npy"):
        np.load(io.BytesIO(content), allow_pickle=True)
    else:
        pickle.loads(content)
    assert canary.exists()


def test_bombs_beside_the_pixels_take_no_memory(tmp_path: Path) -> None:
    """A chunk of text or of colours, or data behind the last pixel, that unpacks to a gigabyte."""
    heads = {b"zTXt": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00", b"iCCP": b"a\x00\x00"}
    contents = [png_with(kind, head + zeros(2**30)) for kind, head in heads.items()]
    jobs = []
    for number, content in enumerate([*contents, png_data_bomb()]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        jobs.append((path, read_picture))
    assert set(outcomes(jobs, MOST_BYTES)) <= {"read", "refused"}


def test_a_reader_that_unpacks_them_would_be_found_out(tmp_path: Path) -> None:
    """The negative control, with a smaller bomb and less memory to unpack it in."""

    def unpack(path: Path) -> object:
        return zlib.decompress(path.read_bytes())

    path = tmp_path / "bomb"
    path.write_bytes(zeros(2**28))
    (said,) = outcomes([(path, unpack)], 2**27)
    assert said.startswith("took ")


STARTS = (
    *(b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\x00\x08\x00\x00\x00", b"BM"),
    *(b"MM\x00*\x00\x00\x00\x08", b"RIFF\x40\x00\x00\x00WEBPVP8 ", b"\x93NUMPY\x01\x00v\x00{"),
    *(b"PK\x03\x04", b"\x80\x02", b"\x08\x00\x00\x00\x00\x00\x00\x00{", b'{"sha256":"'),
)


@settings(max_examples=200)
@given(
    start=st.sampled_from(STARTS),
    rest=st.binary(max_size=300),
    kind=st.sampled_from([".png", ".tif", ".jpg", ".webp", ".bmp", ".npy", *READERS]),
)
def test_any_bytes_are_refused_on_one_line(
    tmp_path: Path, start: bytes, rest: bytes, kind: str
) -> None:
    path = tmp_path / f"p{kind}"
    path.write_bytes(start + rest)
    reader: Any = READERS.get(kind, read_picture)
    with pytest.raises(OWN_ERRORS) as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def damage(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "damage.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_damaged_files_are_refused_or_read() -> None:
    done = damage("300")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("300 files, ")
    assert done.stdout.endswith("\n0 faults\n")


@pytest.mark.parametrize(
    ("how", "word"), [("crash", "died with -6"), ("traceback", "raised KeyError")]
)
def test_a_sabotaged_reader_is_found_out(how: str, word: str) -> None:
    """The negative control of the test above."""
    done = damage("20", "--sabotage", how)
    assert done.returncode == 1, done.stdout + done.stderr
    assert word in done.stdout
