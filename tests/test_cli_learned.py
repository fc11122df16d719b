"""`pydenoise train --from`: a network that has learned before learns on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from terminal import listing, picture

from pydenoise import builtin, models
from pydenoise.checkpoint import load_weights, save_weights
from pydenoise.data import write

FEW = ("--epochs", 1, "--pairs-count", 8, "--crop", 16, "--batch-size", 4)


@pytest.fixture
def words(folder: Path) -> tuple[object, ...]:
    return ("train", folder, "--noise", "gauss:25", "--hold-out", 1, *FEW)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    save_weights(tmp_path / "learned.safetensors", models.autoencoder((4, 6), seed=5))
    return tmp_path / "learned.safetensors"


def flat(path: Path) -> torch.Tensor:
    return load_weights(path)[0].flatten().data


def test_the_network_that_ships_learns_on(run: Any, words: Any, tmp_path: Path) -> None:
    assert run(*words, "--from", "builtin", "-o", tmp_path / "run").code == 0
    model, header = load_weights(tmp_path / "run" / "model.safetensors")
    shipped = builtin.trainable(3)
    assert model.architecture == shipped.architecture
    assert json.loads(header["trained_on"])["origin"] == shipped.origin
    moved = (model.flatten().data - shipped.flatten().data).abs().max()
    assert 0 < moved < 0.01, "a few steps at a low rate"


def test_gray_pictures_get_the_gray_one(run: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "scene.png", picture(len(name), layers=1))
    words = ("--pairs", tmp_path / "first", tmp_path / "second", "--from", "builtin", *FEW)
    ended = run("train", *words, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    model, _ = load_weights(tmp_path / "run" / "model.safetensors")
    assert (model.architecture or {})["channels"] == 1


def test_it_begins_with_the_weights_of_a_file(
    run: Any, words: Any, learned: Path, tmp_path: Path
) -> None:
    words = (*words, "--from", learned)
    assert run(*words, "--lr", 0, "-o", tmp_path / "still").code == 0
    assert torch.equal(flat(tmp_path / "still" / "model.safetensors"), flat(learned))
    assert run(*words, "-o", tmp_path / "run").code == 0
    assert not torch.equal(flat(tmp_path / "run" / "model.safetensors"), flat(learned))
    again = ("--from", tmp_path / "run" / "model.safetensors", "--lr", 0)
    assert run(*words[:-2], *again, "-o", tmp_path / "again").code == 0


def test_a_run_is_gone_on_with_from_the_same_weights_alone(
    run: Any, words: Any, learned: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "run")
    assert run(*words, "--from", learned, *out).code == 0
    assert run(*words, "--from", learned, *out, "--resume").code == 0
    save_weights(learned, models.autoencoder((4, 6), seed=6), overwrite=True)
    ended = run(*words, "--from", learned, *out, "--resume")
    assert ended.code == 2
    assert "is of another run (origin was " in ended.err


def test_what_is_refused(run: Any, words: Any, learned: Path, tmp_path: Path) -> None:
    gray, broken = tmp_path / "gray.safetensors", tmp_path / "broken.safetensors"
    save_weights(gray, models.autoencoder((4,), in_channels=1))
    nan = models.autoencoder((4,))
    nan[0].bias.fill_(torch.nan)
    save_weights(broken, nan)
    for start, reason in {
        ("builtin", "--model", "unet"): "--model is for a new network",
        (learned, "--channels", "4,6"): "--channels is for a new network",
        (tmp_path / "none",): "none': no such file; name a model.safetensors",
        ("",): "--from '': no such file",
        (broken,): "holds weights that are not finite",
        (builtin.NETWORKS[3],): "predicts noise, and pairs teach pictures",
        (gray,): "takes pictures of 1 channels, those to learn from have 3",
    }.items():
        ended = run(*words, "-o", tmp_path / "run", "--from", *start)
        assert ended.code == 2, ended.err
        assert reason in ended.err
    assert not (tmp_path / "run").exists()


def test_what_a_run_would_destroy_it_does_not_begin_with(
    run: Any, words: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run(*words, "--channels", "4", "-o", out).code == 0
    before = listing(out)
    for name in ("model.safetensors", "checkpoints/000000002.json"):
        ended = run(*words, "-o", out, "--overwrite", "--from", out / name)
        assert ended.code == 2
        assert f"lies in {out}, which the run is to fill" in ended.err
    assert listing(out) == before


@pytest.mark.parametrize("is_gray", [True, False])
def test_gray_pictures_saved_as_rgb_are_spoken_of(run: Any, tmp_path: Path, is_gray: bool) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        pixels = picture(0)
        pixels = pixels[..., :1].repeat(3, axis=2) if is_gray else pixels
        write(tmp_path / name / "scene.png", pixels + np.uint8(len(name) - 5))
    words = ("--pairs", tmp_path / "first", tmp_path / "second", "--from", "builtin", *FEW)
    ended = run("train", *words, "-o", tmp_path / "run")
    assert ended.code == 0, ended.err
    assert ("are gray, saved as RGB" in ended.err) == is_gray
