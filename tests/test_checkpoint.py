"""Weights files: there and back, any damage found, nothing in them trusted."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from pydenoise import models, nn
from pydenoise.checkpoint import WeightsError, load_weights, save_weights

Edit = Callable[[dict[str, str]], Any]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    model = models.autoencoder(channels=(2,), in_channels=1, seed=1)
    save_weights(path, model, trained_on='the "sha256":"course"', value_range=(-0.5, 0.5))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 700
    return message


def sealed(content: bytes) -> bytes:
    """The content with the SHA-256 that belongs to it, worked out without the package."""
    place = content.index(b'"sha256":"') + 10
    digest = hashlib.sha256(content[:place] + b"0" * 64 + content[place + 64 :]).hexdigest()
    return content[:place] + digest.encode() + content[place + 64 :]


def edited(path: Path, edit: Edit) -> Path:
    """The file with other words in its header, and the right SHA-256 for them."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    edit(header["__metadata__"])
    text = json.dumps(header, separators=(",", ":")).encode()
    made_up = len(text).to_bytes(8, "little") + text + content[8 + size :]
    path.write_bytes(sealed(made_up) if b'"sha256":"' in text else made_up)
    return path


# --- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_comes_back_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = models.autoencoder(channels=(4, 8), seed=3).to(dtype)
    path = tmp_path / "w.safetensors"
    save_weights(path, model, trained_on="Bäume")
    again, header = load_weights(path)
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    for name, values in again.state_dict().items():
        assert values.dtype == dtype
        assert torch.equal(values, state[name])
    assert again.architecture == model.architecture
    assert again.size_multiple == 4
    assert header == {
        "format_version": 1,
        "architecture": {"name": "autoencoder", "channels": [4, 8], "in_channels": 3},
        "value_range": (0.0, 1.0),
        "trained_on": "Bäume",
        "sha256": header["sha256"],
    }
    x = torch.rand(1, 3, 8, 8, dtype=dtype)
    assert torch.equal(again.forward(x), model.forward(x))


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    model = models.autoencoder((4,), seed=0)
    next(iter(model.parameters())).data.view(-1)[0] = -70000.0
    with pytest.raises(WeightsError, match=r"holds 70000, float16 ends at 65504; save with half"):
        save_weights(tmp_path / "half", model, half=True)
    assert not (tmp_path / "half").exists()
    save_weights(tmp_path / "whole", model)


def test_half_the_bytes_for_three_digits(tmp_path: Path) -> None:
    model = models.autoencoder(seed=3)
    save_weights(tmp_path / "whole", model)
    save_weights(tmp_path / "half", model, half=True)
    whole, half = ((tmp_path / name).read_bytes() for name in ("whole", "half"))
    assert len(half) < 0.51 * len(whole)
    again, _ = load_weights(tmp_path / "half")
    for name, values in again.state_dict().items():
        assert values.dtype == torch.float32
        assert torch.equal(values, model.state_dict()[name].half().float())
    save_weights(tmp_path / "again", again, half=True)
    assert (tmp_path / "again").read_bytes() == half


def test_the_network_comes_in_training_mode(saved: Path) -> None:
    model, _ = load_weights(saved)
    output = model.forward(torch.rand(1, 1, 4, 4))
    assert model.backward(torch.ones_like(output)).shape == (1, 1, 4, 4)


def test_the_range_of_values_goes_with_the_network(tmp_path: Path) -> None:
    model = models.autoencoder(channels=(4,), seed=1)
    assert model.value_range is None
    save_weights(tmp_path / "a", model)
    assert load_weights(tmp_path / "a")[0].value_range is None
    save_weights(tmp_path / "b", model, value_range=(100, 4000))
    again, _ = load_weights(tmp_path / "b")
    assert again.value_range == (100, 4000)
    save_weights(tmp_path / "c", again)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_flattened_weights_are_saved_each_for_itself(tmp_path: Path) -> None:
    model = models.autoencoder(channels=(4,), seed=1)
    model.flatten()
    save_weights(tmp_path / "w", model)
    assert torch.equal(load_weights(tmp_path / "w")[0].flatten().data, model.flatten().data)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, models.autoencoder(seed=5), trained_on="x")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_readers_of_safetensors_read_it(saved: Path) -> None:
    with safetensors.safe_open(saved, "np") as file:
        metadata = file.metadata()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {np.dtype(np.float32)}  # noqa: SIM118
    assert metadata["format_version"] == "1"
    assert json.loads(metadata["architecture"])["name"] == "autoencoder"
    assert json.loads(metadata["value_range"]) == [-0.5, 0.5]
    assert metadata["trained_on"] == 'the "sha256":"course"'


def test_the_sha256_is_the_files_own_with_64_zeros(saved: Path) -> None:
    assert sealed(saved.read_bytes()) == saved.read_bytes()


def test_a_file_longer_than_a_piece_is_checked_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    save_weights(path, models.autoencoder(channels=(96, 192, 192), seed=0))
    assert path.stat().st_size > 2 * 2**20
    assert sealed(path.read_bytes()) == path.read_bytes()
    load_weights(path)
    content = bytearray(path.read_bytes())
    for position in (2**20 - 1, 2**20, 2 * 2**20, len(content) - 1):
        content[position] ^= 1
        path.write_bytes(content)
        assert "is damaged" in refusal(path)
        content[position] ^= 1


def test_an_existing_file_is_kept_unless_told(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(WeightsError, match="exists already; choose another name"):
        save_weights(saved, models.autoencoder())
    assert saved.read_bytes() == before
    save_weights(saved, models.autoencoder(), overwrite=True)
    assert load_weights(saved)[1]["architecture"]["channels"] == [48, 96]
    assert list(saved.parent.iterdir()) == [saved]


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="names no architecture; build it with"):
        save_weights(tmp_path / "w", nn.Sequential(nn.ReLU()))
    for value_range in [(1, 0), (0, float("inf")), (0,), ("a", "b")]:
        with pytest.raises(WeightsError, match="expected two numbers, low < high"):
            save_weights(tmp_path / "w", models.autoencoder(), value_range=value_range)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "none" / "w", models.autoencoder())
    assert not list(tmp_path.iterdir())


# --- damage -------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    assert len(content) < 1500
    bits = np.random.default_rng(0).integers(0, 8, len(content))
    for position, bit in enumerate(bits.tolist()):
        content[position] ^= 1 << bit
        saved.write_bytes(content)
        refusal(saved)
        content[position] ^= 1 << bit
    saved.write_bytes(content)
    load_weights(saved)


def test_every_bit_of_the_sha256_itself_counts(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    place = content.index(b'"sha256":"') + 10
    for position in range(place, place + 64):
        for bit in range(8):  # bit 5 turns a digit's letter into a capital: still another file
            content[position] ^= 1 << bit
            saved.write_bytes(content)
            refusal(saved)
            content[position] ^= 1 << bit


def test_every_truncation_is_found(saved: Path) -> None:
    content = saved.read_bytes()
    for size in range(len(content)):
        saved.write_bytes(content[:size])
        refusal(saved)


@pytest.mark.parametrize("extra", [b"\0", b"0", b"\0" * 4096, b'"sha256":"'])
def test_appended_bytes_are_found(saved: Path, extra: bytes) -> None:
    saved.write_bytes(saved.read_bytes() + extra)
    assert "is damaged" in refusal(saved)


def test_exchanged_pieces_are_found(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[:-8] + content[-4:] + content[-8:-4])
    assert "is damaged" in refusal(saved)


# --- files made up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"words",
        b"I am a text file and no weights at all",
        b"\xff" * 8 + b"{}",
        (2**20 + 1).to_bytes(8, "little") + b" " * (2**20 + 1),
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (8).to_bytes(8, "little") + b"\xff" * 8,
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
        (19).to_bytes(8, "little") + b'{"__metadata__":[]}',
    ],
    ids=["empty", "short", "text", "endless", "huge", "list", "bare", "binary", "deep", "listed"],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert "is no weights file of pydenoise or is damaged" in refusal(path)


def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with open(path, "wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**41)  # takes no room on the disk
    assert f"a header of {2**40} bytes" in refusal(path)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda m: m.update(format_version="2"), "format version '2'; this pydenoise reads 1"),
        (lambda m: m.update(format_version="x" * 9999), "format version 'xxxx"),
        (lambda m: m.pop("architecture"), "a header without architecture"),
        (lambda m: m.pop("sha256"), "a header without sha256"),
        (lambda m: m.update(architecture="{"), "that is not JSON"),
        (lambda m: m.update(architecture="[1]"), "an architecture that is no JSON object"),
        (lambda m: m.update(architecture="[" * 9999), "that is not JSON"),
        (lambda m: m.update(value_range="[1, 0]"), "the value range"),
        (lambda m: m.update(value_range="[0, NaN]"), "the value range"),
        (lambda m: m.update(architecture='{"name": "os.system"}'), "unknown network 'os.system'"),
        (lambda m: m.update(architecture='{"name": "autoencoder"}'), "describes no network"),
        (lambda m: m.update(architecture='{"name": []}'), "describes no network"),
        (
            lambda m: m.update(
                architecture='{"name": "autoencoder", "channels": [3], "in_channels": 1}'
            ),
            "describes no network that fits its weights",
        ),
        (
            lambda m: m.update(
                architecture='{"name": "autoencoder", "channels": [60000], "in_channels": 3}'
            ),
            "needs more than the",
        ),
        (
            lambda m: m.update(
                architecture='{"name":"autoencoder","channels":[9,60,60],"in_channels":1}'
            ),
            "needs more than the",
        ),
    ],
)
def test_a_header_made_up_with_care_is_refused(saved: Path, edit: Edit, expected: str) -> None:
    assert expected in refusal(edited(saved, edit))


def test_tensors_that_lie_about_their_place_are_refused(saved: Path) -> None:
    content = saved.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    name = next(key for key in header if key != "__metadata__")
    header[name]["data_offsets"] = [0, 2**60]
    text = json.dumps(header, separators=(",", ":")).encode()
    saved.write_bytes(sealed(len(text).to_bytes(8, "little") + text + content[8 + size :]))
    assert "describes no network that fits its weights" in refusal(saved)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "w.safetensors"
    path.write_bytes(pickle.dumps(Bomb(touched)))
    refusal(path)
    torch.save(Bomb(touched), path)
    refusal(path)
    assert not touched.exists()
    pickle.loads(pickle.dumps(Bomb(touched)))
    assert touched.exists(), "the bomb is a dud"


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none")
    assert "is a folder" in refusal(tmp_path)
