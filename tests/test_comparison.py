"""Methods side by side: figures that are those of the pictures, and processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from terminal import picture

from pydenoise import builtin, checkpoint, classic, comparison, inference
from pydenoise.data import Picture, to_array, to_tensor


def scene(height: int = 48, width: int = 56, layers: int = 3) -> tuple[np.ndarray, np.ndarray]:
    clean = picture(2, height, width, layers).astype(np.float32) / 255
    clean = clean[..., 0] if layers == 1 else clean
    noise = np.random.default_rng(height).normal(0, 0.1, clean.shape)
    return clean + noise.astype(np.float32), clean


def eight_bits(found: np.ndarray) -> np.ndarray:
    return np.rint(found.clip(0, 1) * 255).astype(np.uint8)


def test_figures_are_those_of_the_picture_in_8_bits() -> None:
    scenes, asked = [scene(), scene(40, 41, 1)], 0

    def in_turn() -> Any:
        nonlocal asked
        for pair in scenes:
            asked += 1
            yield pair

    measured_in_turn = comparison.measure("tv", in_turn())
    assert asked == 0
    for turn, ((noisy, clean), measured) in enumerate(zip(scenes, measured_in_turn, strict=True)):
        assert asked == turn + 1, "a picture is asked for in its turn"
        found = eight_bits(classic.total_variation(noisy))
        target = eight_bits(clean)
        assert measured.psnr == pytest.approx(peak_signal_noise_ratio(target, found), abs=0.01)
        expected = structural_similarity(
            *(target.astype(float), found.astype(float)),
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2 if found.ndim == 3 else None,
        )
        assert measured.ssim == pytest.approx(expected, abs=1e-6)
        assert 0 < measured.seconds < 30


def test_an_oracle_knows_the_clean_picture() -> None:
    scenes = [scene(), scene(40, 41, 1)]
    for (noisy, clean), best in zip(scenes, comparison.measure("nlm-best", scenes), strict=True):
        found = classic.nonlocal_means(noisy, classic.best_h(noisy, clean))
        assert best.psnr == pytest.approx(comparison.score(found, clean)[0])
        assert best.psnr >= comparison.score(classic.nonlocal_means(noisy), clean)[0]


@pytest.mark.parametrize("terms", [{}, {"turns": 8}])
def test_a_model_is_loaded_there(weights: Path, terms: Any) -> None:
    noisy, clean = scene()
    (measured,) = comparison.measure("model", [(noisy, clean)], weights, **terms)
    model = checkpoint.load_weights(weights)[0]
    found = to_array(inference.denoise(model, to_tensor(noisy), **terms), np.float32)
    assert measured[:2] == comparison.score(found, clean)


@pytest.mark.parametrize("terms", [{}, {"turns": 1}])
def test_the_networks_that_ship_are_used_there(terms: Any) -> None:
    scenes = [scene(), scene(40, 41, 1)]
    measures = comparison.measure("builtin", scenes, **terms)
    for (noisy, clean), measured in zip(scenes, measures, strict=True):
        found = builtin.denoise_pages(Picture.of(noisy), **terms).array
        assert measured[:2] == comparison.score(found, clean)
        assert measured.psnr > comparison.score(noisy, clean)[0] + 1


def test_turns_of_what_has_none_are_refused() -> None:
    with pytest.raises(ValueError, match="the method 'tv' has no turns"):
        next(comparison.measure("tv", [scene()], turns=8))


def test_zero_shot_learns_there() -> None:
    noisy, clean = scene(24, 24, 1)
    (measured,) = comparison.measure("zero-shot", [(noisy, clean)])
    assert measured.psnr > comparison.score(noisy, clean)[0] + 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc tells the peak")
def test_peaks_follow_the_picture_and_not_its_predecessor() -> None:
    """Wavelets hold some planes of the picture, and little of a larger one before it."""
    scenes = [scene(64, 64, 1), scene(900, 900, 1), scene(64, 64, 1)]
    small, large, after = (measured.peak_mb for measured in comparison.measure("wavelet", scenes))
    plane = 900 * 900 * 4 / 1e6
    assert 2 * plane < large < 30 * plane
    assert small < plane
    assert after < large / 2


def test_a_peak_that_cannot_begin_anew_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "status").write_text("VmHWM:\t  1000 kB\n")
    monkeypatch.setattr(comparison, "_PROCESS", tmp_path)
    monkeypatch.setattr(comparison.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(comparison, "_worker", None, raising=False)
    comparison._begin("tv", None, {})
    assert comparison._denoised(*scene())[2] == 0
    (tmp_path / "clear_refs").unlink()
    (tmp_path / "clear_refs").mkdir()  # not to be written, even by root
    assert comparison._denoised(*scene())[2] is None
    comparison._begin("tv", None, {})
    assert comparison._denoised(*scene())[2] is None


LONG = """
import numpy as np
from pydenoise import comparison

if __name__ == "__main__":
    picture = np.random.default_rng(0).random((400, 400), dtype=np.float32)
    next(comparison.measure("zero-shot-paper", [(picture, picture)]))
"""


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="no /proc tells children"
)
def test_a_process_does_not_outlive_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "long.py"
    script.write_text(LONG)
    parent = subprocess.Popen([sys.executable, script])
    busy: list[int] = []
    try:
        assert within(60, lambda: busy.extend(filter(has_worked, children(parent.pid))) or busy)
        assert parent.poll() is None
        parent.kill()
        parent.wait()
        assert within(60, lambda: not any(map(is_alive, busy)))
    finally:
        for pid in (parent.pid, *busy):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def within(seconds: float, is_so: Callable[[], Any]) -> bool:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def has_worked(pid: int) -> bool:
    """Whether a process has computed for some seconds, past its imports."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK") > 6


def test_small_pictures_have_no_ssim() -> None:
    noisy, clean = scene(10, 40)
    psnr, ssim = comparison.score(noisy, clean)
    assert psnr > 0 and ssim is None


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(
        comparison.reason_missing(name) is None for name in comparison.METHODS if name != "bm3d"
    )
    monkeypatch.setattr(comparison, "find_spec", lambda name: None)
    assert "not installed; pip install bm3d" in str(comparison.reason_missing("bm3d"))
    with pytest.raises(ValueError, match="bm3d: not installed"):
        next(comparison.measure("bm3d", [scene()]))
    with pytest.raises(ValueError, match="unknown method 'median'; known are builtin, "):
        next(comparison.measure("median", [scene()]))
    with pytest.raises(ValueError, match="'model' needs weights"):
        next(comparison.measure("model", [scene()]))


def test_an_error_there_is_an_error_here_and_a_death_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be \(H, W\)"):
        next(comparison.measure("tv", [(np.zeros(4, np.float32), np.zeros(4, np.float32))]))

    text = tmp_path / "w.safetensors"
    text.write_text("words")
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        next(comparison.measure("model", [scene()], text))

    class Fatal:
        shape = (3, 4)

        def __reduce__(self) -> Any:
            return os._exit, (9,)

    with pytest.raises(RuntimeError, match="tv: its process died on a picture of 3x4"):
        next(comparison.measure("tv", [(Fatal(), Fatal())]))  # type: ignore[list-item]
