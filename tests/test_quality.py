"""bench/quality.py: figures that are kept, by what they hold for, and tables made of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from terminal import picture

from pydenoise import comparison
from pydenoise.data import read, write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bench"))

import quality
import quality_cache
import quality_scenes
import tables


class Counted:
    """Stands in for `comparison.measure`: a figure for each picture, until it is told to stop."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.stop_after: int | None = None

    def __call__(
        self, method: str, pictures: Any, weights: Any = None, turns: int | None = None
    ) -> Iterator[Any]:
        for noisy, clean in pictures:
            if len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(method if turns is None else f"{method} {turns}")
            psnr, ssim = comparison.score(noisy, clean)
            yield comparison.Measured(psnr + 1, ssim, float(len(self.asked)), 5.0)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    stand_in = Counted()
    monkeypatch.setattr(comparison, "measure", stand_in)
    return stand_in


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    def command(*words: object) -> str:
        words = ("quality.py", *words, "--results", tmp_path / "results")
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        quality.main()
        return str(capsys.readouterr().out)

    return command


def test_a_stopped_run_goes_on_where_it_was(
    bench: Any, tmp_path: Path, folder: Path, counted: Counted
) -> None:
    words = (folder, "--methods", "tv", "nlm", "--noise", "gauss:25", "poisson:30")
    counted.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        bench(*words)
    kept = json.loads((tmp_path / "results" / "quality.json").read_text())
    assert len(kept) == 5
    counted.stop_after = None
    table = bench(*words)
    assert len(counted.asked) == 12, "three pictures, two methods, two noises, each once"
    now = json.loads((tmp_path / "results" / "quality.json").read_text())
    assert {key: now[key] for key in kept} == kept
    assert bench(*words) == table
    assert len(counted.asked) == 12
    assert read(tmp_path / "results" / "quality.png").size


def test_what_changed_is_measured_anew(
    bench: Any, tmp_path: Path, folder: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (folder, "--methods", "tv", "zero-shot", "builtin", "--noise", "gauss:25")
    bench(*words)
    write(folder / "1.png", picture(7, 41), overwrite=True)
    counted.asked.clear()
    bench(*words)
    assert counted.asked == ["tv", "zero-shot", "builtin"], "one picture is another"
    copy = tmp_path / "package"
    for name in (*quality_cache.BUILTIN, *quality_cache.ZERO_SHOT, *quality_cache.CLASSIC):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((quality_cache.PACKAGE / name).read_bytes())
    (copy / "classic.py").write_text("other")
    monkeypatch.setattr(quality_cache, "PACKAGE", copy)
    counted.asked.clear()
    bench(*words)
    assert counted.asked == ["tv"] * 3, "another method's code is not its own"
    (copy / "weights" / "gray.safetensors").write_bytes(b"other")
    counted.asked.clear()
    bench(*words)
    assert counted.asked == ["builtin"] * 3


def test_of_others_what_is_kept_is_shown_as_it_is(
    bench: Any, folder: Path, weights: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (folder, "--noise", "gauss:25", "poisson:30", "--methods")
    table = bench(*words, "tv", "builtin", "--models", weights)
    counted.asked.clear()
    monkeypatch.setattr(quality_cache.Contender, "code", lambda self: b"other")
    again = bench(*words, "builtin", "--others")
    assert counted.asked == ["builtin"] * 6
    rows, before = ([row.split("|")[1:3] for row in each.splitlines()] for each in (again, table))
    assert rows == before
    assert " total variation " in again and f"{weights.parent.name}/w.safetensors" in again
    bench(folder, "--noise", "gauss:25", "--methods", "wavelet")
    again = bench(*words, "builtin", "bm3d", "--others")
    assert " wavelet " not in again, "it has no figures at the second noise"
    assert " total variation " in again
    with pytest.raises(SystemExit):
        bench(folder, "--recipes", "--others")


def test_pictures_that_the_network_has_learned_from_are_named(
    bench: Any, folder: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "SEEN", {f"{folder.name}/1.png"})
    scenes = list(quality_scenes.with_noise([folder], "gauss:25"))
    other = [comparison.score(scene.noisy, scene.clean)[0] + 1 for scene in scenes[::2]]
    told = f"without it, the means of that network are {np.mean(other):.2f} dB."
    words = (folder, "--noise", "gauss:25", "--methods")
    assert told in bench(*words, "builtin", "tv")
    assert "has learned from" not in bench(*words, "tv")


def test_a_model_is_known_by_its_weights(
    bench: Any, folder: Path, weights: Path, counted: Counted
) -> None:
    words = (folder, "--methods", "tv", "--models", weights, "--noise", "gauss:25")
    bench(*words)
    weights.write_bytes(weights.read_bytes() + b"\0")
    counted.asked.clear()
    assert f"| {weights.parent.name}/w.safetensors |" in bench(*words)
    assert counted.asked == ["model"] * 3


def test_turns_are_a_contender_of_their_own(
    bench: Any, folder: Path, weights: Path, counted: Counted
) -> None:
    words = (folder, "--noise", "gauss:25", "--methods", "builtin")
    bench(*words, "tv")
    counted.asked.clear()
    table = bench(*words, "--models", weights, "--turns", "1", "--others")
    assert counted.asked == ["builtin 1"] * 3 + ["model 1"] * 3
    rows = [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("| ")]
    of_model = f"{weights.parent.name}/w.safetensors, turns: 1"
    assert [
        *("noisy", "built-in network", "built-in network, turns: 1", "total variation", of_model)
    ] == rows[-5:]
    again = bench(*words[:-2], "--methods", "--models", weights, "--turns", "8", "--others")
    assert counted.asked[6:] == ["model 8"] * 3
    assert again.count("turns: 8") == 2, "in the table and in that of the means"
    for refused in (
        ("--methods", "builtin", "tv", "--turns", "1"),
        ("--methods", "builtin", "--turns", "9"),
        ("--turns", "1"),
        ("--recipes", "--turns", "1"),
        ("--methods",),
    ):
        with pytest.raises(SystemExit):
            bench(folder, *refused)


def test_models_stand_behind_the_methods_whatever_their_name() -> None:
    titles = ["wavelet_run/w, turns: 8", "BM3D", "wavelet", "built-in network, turns: 1"]
    assert sorted(titles, key=quality.place) == [titles[3], titles[2], titles[1], titles[0]]


def test_the_table_holds_the_means(
    bench: Any, folder: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "find_spec", lambda name: None)
    scenes = list(quality_scenes.with_noise([folder], "gauss:25"))
    noisy = np.mean([comparison.score(scene.noisy, scene.clean) for scene in scenes], axis=0)
    table = bench(folder, "--methods", "tv", "bm3d", "--noise", "gauss:25")
    assert f"| noisy | {noisy[0]:.2f} / {noisy[1]:.3f} |  |  |" in table
    assert f"| total variation | {noisy[0] + 1:.2f} / {noisy[1]:.3f} | 2.00 | 5 |" in table
    assert "| BM3D: not installed; pip install bm3d" in table


def test_scenes_are_the_same_every_time_and_differ_in_their_noise(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.png", np.full((32, 32, 4), 99, np.uint8))
    first, second = quality_scenes.with_noise([tmp_path], "gauss:25")
    assert first.noisy.shape == first.clean.shape == (32, 32, 3), "alpha is no colour"
    assert (first.noisy - second.noisy).std() == pytest.approx(2**0.5 * 25 / 255, rel=0.1)
    again, _ = quality_scenes.with_noise([tmp_path], "gauss:25")
    np.testing.assert_array_equal(again.noisy, first.noisy)


def test_recipes_meet_on_the_centres_of_the_named_pictures(
    bench: Any, tmp_path: Path, counted: Counted
) -> None:
    folder = tmp_path / "Set12"
    folder.mkdir()
    for name in ("01", "02", "10"):
        write(folder / f"{name}.png", picture(1, 200, 260, 1))
    scenes = list(quality_scenes.with_noise([folder], "gauss:25", 192))
    assert [scene.name for scene in scenes] == ["Set12/01.png 192x192", "Set12/10.png 192x192"]
    centre = picture(1, 200, 260, 1)[4:196, 34:226, 0].astype(np.float32) / 255
    np.testing.assert_array_equal(scenes[0].clean, centre)
    table = bench(folder, "--recipes")
    assert counted.asked == ["zero-shot"] * 4 + ["zero-shot-paper"] * 4
    assert "| mean |" in table and "| +0.00 | 2.5 | 6.5 |" in table
    with pytest.raises(SystemExit, match="Set12 and Set14"):
        bench(folder.rename(tmp_path / "others"), "--recipes")


def captures(folder: Path, gain: float, offset: float) -> dict[str, np.ndarray]:
    """A folder laid out as W2S-8bit: two scenes, the capture brighter than the mean, and noisy."""
    clean = {}
    (folder / "avg1").mkdir(parents=True)
    (folder / "avg400").mkdir()
    for seed, name in enumerate(("001_0", "002_1")):
        mean = picture(seed, 64, 64, 1)[..., 0] // 2
        noise = np.random.default_rng(seed).normal(0, 12, mean.shape)
        clean[name] = gain * mean + offset
        noisy = np.rint((clean[name] + noise).clip(0, 255)).astype(np.uint8)
        write(folder / "avg1" / f"input_avg1_{name}.tif", noisy)
        write(folder / "avg400" / f"target_avg400_{name}.tif", mean)
    return clean


def test_real_captures_are_held_to_the_mean_in_their_own_brightness(
    bench: Any, tmp_path: Path, counted: Counted
) -> None:
    clean = captures(tmp_path / "W2S", 1.4, 30)
    scenes = list(quality_scenes.real([tmp_path / "W2S"]))
    for scene, expected in zip(scenes, clean.values(), strict=True):
        assert np.abs(255 * scene.clean - expected).max() < 2
    table = bench(tmp_path / "W2S", "--real")
    assert counted.asked == ["builtin"] * 2 + ["zero-shot"] * 2
    each, means = table.split("| W2S, 2 captures |")
    assert each.count("(+1.00) |") == 6
    assert "**W2S, mean**" in each
    assert means.count("(+1.00) |") == 2


def test_repeated_captures_are_held_to_the_last_three(tmp_path: Path) -> None:
    (tmp_path / "S95" / "fern").mkdir(parents=True)
    base = picture(0, 24, 24, 3) // 2
    for number in range(6):
        seen = base[::-1] if number in (1, 2) else base + np.uint8(20 * (number > 2))
        write(tmp_path / "S95" / "fern" / f"{number}.png", seen)
    (scene,) = quality_scenes.real([tmp_path / "S95"])
    assert scene.name == "S95/fern/0.png"
    np.testing.assert_allclose(scene.clean, scene.noisy, atol=1e-5)


def test_of_photographs_every_fifth_is_taken_and_what_was_not_measured_is_blank(
    bench: Any, tmp_path: Path, counted: Counted
) -> None:
    captures(tmp_path / "W2S", 1.4, 30)
    (tmp_path / "PolyU").mkdir()
    for number in range(6):
        for kind, brightness in (("real", 0), ("mean", 9)):
            pixels = picture(number, 24, 24, 3) // 2 + np.uint8(brightness)
            write(tmp_path / "PolyU" / f"{number}_{kind}.JPG", pixels)
    names = [scene.name for scene in quality_scenes.real([tmp_path / "PolyU"])]
    assert names == ["PolyU/0_real.JPG", "PolyU/5_real.JPG"]
    bench(tmp_path / "W2S", "--real", "--methods", "builtin")
    bench(tmp_path / "PolyU", "--real", "--methods", "zero-shot")
    told = bench(*(tmp_path / name for name in ("W2S", "PolyU")), "--real", "--methods", "--others")
    assert counted.asked == ["builtin"] * 2 + ["zero-shot"] * 2
    cells = {
        row.split("|")[1].strip(): row.split("|")[3:5] for row in told.splitlines() if "|" in row
    }
    for folder, blank in (("W2S", 1), ("PolyU", 0)):
        row = cells[f"{folder}, 2 captures"]
        assert not row[blank].strip() and "(+1.00)" in row[1 - blank]


def test_it_runs_for_real(bench: Any, tmp_path: Path, folder: Path) -> None:
    table = bench(folder, "--methods", "wavelet", "--noise", "gauss:25")
    kept = json.loads((tmp_path / "results" / "quality.json").read_text())
    assert len(kept) == 3
    assert all(figures["seconds"] > 0 for figures in kept.values())
    mean = fmean(figures["psnr"] for figures in kept.values())
    assert f"| wavelet | {mean:.2f} | " in table


def test_tables_fill_the_document_that_has_their_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "README.md", tmp_path / "bench" / "RESULTS.md"
    second.parent.mkdir()
    first.write_text("<!-- a:begin -->\nold\n<!-- a:end -->\n")
    second.write_text("before\n<!-- b:begin -->\n<!-- b:end -->\nafter\n<!-- c:begin -->\n")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "DOCUMENTS", (first, second))
    tables.fill("b", "new")
    assert second.read_text() == (
        "before\n<!-- b:begin -->\nnew\n<!-- b:end -->\nafter\n<!-- c:begin -->\n"
    )
    for name in ("c", "d"):
        with pytest.raises(SystemExit, match=f"no markers of {name} "):
            tables.fill(name, "lost")
    assert "old" in first.read_text() and "lost" not in second.read_text()
