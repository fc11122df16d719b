"""The script that trains the networks that ship: its scenes, and that a run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pydenoise import builtin
from pydenoise.checkpoint import load_weights
from pydenoise.data import write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import learn_builtin  # noqa: E402

STAGE = learn_builtin.Stage(5, 1e-3, 0.1, 0.6, 0, 0.9)
STAGES = (STAGE, STAGE._replace(steps=4, shared=0.5))
photographs = learn_builtin.photographs


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of seconds, in a folder of its own."""
    monkeypatch.setattr(learn_builtin, "LEAVES", 200)
    monkeypatch.setattr(learn_builtin, "LEAVES_SIDE", 80)
    monkeypatch.setattr(learn_builtin, "SAVED_EVERY", 2)
    monkeypatch.setattr(learn_builtin, "SNAPSHOTS", tmp_path / "snapshots")
    scenes = np.random.default_rng(0).random((2, 100, 90, 1), np.float32)
    monkeypatch.setattr(learn_builtin, "photographs", lambda *_: list(scenes))
    (tmp_path / "scenes").mkdir()
    write(
        tmp_path / "scenes" / "1.png",
        (255 * np.random.default_rng(1).random((300, 260, 3))).astype("u1"),
    )
    for channels in (1, 3):
        monkeypatch.setitem(builtin.NETWORKS, channels, tmp_path / f"{channels}.safetensors")


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn_builtin.learn("gray", STAGES, tmp_path).flatten().data.clone()
    pair, seen = learn_builtin.Scenes.pair, []

    def stopping(self: Any, step: int, stage: Any) -> Any:
        seen.append((step, stage.shared))
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return pair(self, step, stage)

    monkeypatch.setattr(learn_builtin.Scenes, "pair", stopping)
    for stop_at in (4, 6, 8):
        monkeypatch.setattr(learn_builtin, "SNAPSHOTS", tmp_path / str(stop_at))
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            learn_builtin.learn("gray", STAGES, tmp_path)
        again = learn_builtin.learn("gray", STAGES, tmp_path)
        assert torch.equal(again.flatten().data, whole)
        assert [share for _, share in sorted(set(seen))] == [0.1] * 5 + [0.5] * 4
    with pytest.raises(SystemExit, match=r"gray-9\.pt: is of .*, not of .*scenes"):
        learn_builtin.learn("gray", STAGES, tmp_path / "scenes")


def test_what_it_writes_says_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["learn_builtin.py", str(tmp_path / "scenes"), "gray", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        learn_builtin.main()
    assert not list(tmp_path.glob("*.safetensors"))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path)])
    learn_builtin.main()
    model, header = load_weights(builtin.NETWORKS[1])
    assert "noisy pairs of the photographs of scenes, of those that come" in header["trained_on"]
    assert "bench/learn_builtin.py, seed 0, 2 steps, commit" in header["trained_on"]
    assert model.architecture["channels"] == 1


def test_two_captures_share_the_scene_and_not_the_noise(tmp_path: Path) -> None:
    scenes = learn_builtin.Scenes(1, tmp_path)
    stage = STAGE._replace(shared=0)
    pairs = [scenes.pair(step, stage) for step in range(40)]
    for first, second in pairs:
        assert first.shape == (4, 1, 64, 64) and first.dtype == torch.float32
        assert abs((first - second).mean()) < 6 * (first - second).std() / first.numel() ** 0.5
        inside = (first >= 0) & (first <= 1)
        assert inside.float().mean() > 0.995, "0 and 1 are percentiles of what is seen"
    noise = [first - second for first, second in pairs]
    beside = [(each[..., 1:] * each[..., :-1]).mean() / each.square().mean() for each in noise]
    assert np.abs(beside).max() < 0.06
    again = learn_builtin.Scenes(1, tmp_path).pair(7, stage)
    assert all(torch.equal(a, b) for a, b in zip(pairs[7], again, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_folder_is_among_the_scenes(tmp_path: Path, channels: int) -> None:
    pictures = photographs(channels, tmp_path)
    assert len(pictures) > 8 and all(picture.shape[2] == channels for picture in pictures)
    whole, half = (p for p in pictures if p.shape[:2] in ((300, 260), (150, 130)))
    np.testing.assert_allclose(learn_builtin.halved(whole), half, rtol=0, atol=1e-6)


def test_so_much_of_the_noise_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(learn_builtin, "shared", lambda *_: asked.append(1))
    rng = np.random.default_rng(0)
    for share, least, most in ((0, 0, 0), (0.5, 70, 130)):
        asked.clear()
        for _ in range(200):
            learn_builtin.noise(np.zeros((1, 3, 2, 2)), rng, STAGE._replace(shared=share))
        assert least <= len(asked) <= most


def test_neighbours_and_channels_share_some_noise() -> None:
    clean = np.zeros((1, 3, 64, 64))
    rng = np.random.default_rng(0)
    first, second = (
        np.stack(pair) for pair in zip(*[draw_twice(clean, rng) for _ in range(40)], strict=True)
    )
    level = np.square(first).mean(axis=(1, 2, 3, 4), keepdims=True)
    first, second = first / np.sqrt(level), second / np.sqrt(level)
    assert abs((first * second).mean()) < 0.01, "two captures are independent"
    assert 0.2 < (first[..., 1:] * first[..., :-1]).mean() < 0.7
    assert 0.1 < (first[:, :, 0] * first[:, :, 1]).mean() < 0.5


def draw_twice(clean: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    capture = learn_builtin.shared(clean, rng, STAGE)
    return capture(), capture()


def test_long_gradients_are_shortened() -> None:
    gradient = torch.tensor([3.0, 4.0])
    assert learn_builtin.shorten(gradient, 0.0) == pytest.approx(5)
    assert gradient.tolist() == [3, 4]
    assert learn_builtin.shorten(gradient, 2.0) == pytest.approx(2 + 0.01 * (5 - 2))
    torch.testing.assert_close(gradient, torch.tensor([1.8, 2.4]))
    assert learn_builtin.shorten(gradient * 1e6, 2.0) == pytest.approx(2 + 0.01 * (6 - 2))


def test_scenes_without_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colourful = np.random.default_rng(0).random((100, 90, 3)).astype(np.float32)
    monkeypatch.setattr(learn_builtin, "photographs", lambda *_: [colourful])
    monkeypatch.setattr(learn_builtin, "LEAVES_SHARE", 0)
    monkeypatch.setattr(learn_builtin, "noise", lambda clean, *_: lambda: clean)
    scenes = learn_builtin.Scenes(3, tmp_path)

    def is_toned(step: int, share: float) -> bool:
        scene = scenes.pair(step, STAGE._replace(gray=share))[0].flatten(2)
        first, second = scene[0, 0], scene[0, 1]
        return bool(np.corrcoef(first, second)[0, 1] > 0.999)

    assert all(is_toned(step, 1) for step in range(8))
    assert not any(is_toned(step, 0) for step in range(8))


def test_leaves_hide_one_another_and_have_colours() -> None:
    picture = learn_builtin.leaves(3, 4, 40, 0)
    assert picture.shape == (80, 80, 3) and picture.dtype == np.float32
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.1
    assert (np.ptp(picture, axis=2) > 0.1).mean() > 0.5


def test_unknown_names_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["scenes", "grey"], "unknown network grey; known are gray, colour"),
        (["nowhere"], "nowhere: holds no pictures; name a folder of photographs"),
    ):
        monkeypatch.setattr(sys, "argv", ["learn_builtin.py", *words])
        with pytest.raises(SystemExit):
            learn_builtin.main()
        assert said in capsys.readouterr().err
