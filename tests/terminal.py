"""A command line and what it left behind, and pictures and weights for it to work on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pydenoise import models
from pydenoise.checkpoint import save_weights
from pydenoise.cli import main
from pydenoise.data import Picture, write

QUICK = ["--channels", "4,6", "--epochs", "2", "--pairs-count", "24", "--crop", "16"]


class Ended:
    """What a command line left: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        assert self.out.count("\n") == 1
        result: dict[str, Any] = json.loads(self.out)
        return result

    def refusal(self, *words: object) -> str:
        """The one line on stderr of a refusal, which names all of the words."""
        assert self.code == 2, self.err
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        missing = [word for word in map(str, words) if word not in self.err]
        assert not missing, (missing, self.err)
        return self.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: object) -> Ended:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


def picture(seed: int = 0, height: int = 40, width: int = 50, layers: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + seed + layer)) * np.cos(y / (4 + layer)) for layer in range(layers)]
    return (127 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three colour pictures of several sizes and a text."""
    (tmp_path / "photos").mkdir()
    for index in range(3):
        write(tmp_path / "photos" / f"{index}.png", picture(index, 40 + index))
    (tmp_path / "photos" / "notes.txt").write_text("notes")
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    save_weights(path, models.autoencoder((4, 6), seed=0))
    return path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Methods do nothing but note what they were asked for; zero-shot reports progress."""
    asked: list[dict[str, Any]] = []

    def builtin(picture: Picture, *, progress: Any, **options: Any) -> Picture:
        asked.append({"picture": picture, "method": "builtin", **options})
        return smoothed(picture)

    def zero_shot(picture: Picture, *, progress: Any, **options: Any) -> Picture:
        asked.append({"picture": picture, **options})
        progress({"step": 1, "steps": 2, "loss": 0.5, "seconds_left": 3.0})
        progress({"step": 2, "steps": 2, "loss": 0.25, "seconds_left": 0.0})
        return smoothed(picture)

    def model(network: Any, picture: Picture, *, progress: Any, **options: Any) -> Picture:
        asked.append({"picture": picture, "threads": torch.get_num_threads(), **options})
        return smoothed(picture)

    monkeypatch.setattr("pydenoise.builtin.denoise_pages", builtin)
    monkeypatch.setattr("pydenoise.zero_shot.denoise_pages", zero_shot)
    monkeypatch.setattr("pydenoise.inference.denoise_pages", model)
    return asked


def smoothed(picture: Picture) -> Picture:
    samples = picture.samples.copy()
    colours = samples[..., : picture.colours]
    colours[:] = gaussian_filter(colours.astype(np.float32), (0, 1, 1, 0))
    return picture.with_samples(samples)


@pytest.fixture
def course_file(tmp_path: Path) -> Path:
    (tmp_path / "course").mkdir()
    first, second = torch.randint(256, (2, 20, 3, 16, 16), dtype=torch.uint8)
    torch.save((first, second), tmp_path / "course" / "train_data.pkl")
    torch.save((first[:5], second[:5]), tmp_path / "course" / "val_data.pkl")
    return tmp_path / "course" / "train_data.pkl"


def listing(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
