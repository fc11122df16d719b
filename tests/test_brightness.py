"""Captures held against each other: what is refused, what is warned of, what is made equal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from captured import bytes_of, capture, captures, named, scene

from pydenoise.data import CapturesWarning, PairsError, ScenePairs
from pydenoise.data.brightness import check_captures, match_brightness

# --- what is refused ----------------------------------------------------------------------------


def test_captures_of_other_sizes_or_depths_are_refused() -> None:
    first, second = captures(2)
    with pytest.raises(PairsError, match=r"0 is 128x160x1 uint8, .*1 is 127x160x1 uint8; .* crop"):
        ScenePairs([named([first, second[1:]])])
    with pytest.raises(PairsError, match=r"1 is 128x160x1 uint16; expected captures of one size"):
        ScenePairs([named([first, second.astype(np.uint16)])])
    with pytest.raises(PairsError, match=r"c-0 has 3 channels of uint8, s-0 has 1 of uint8"):
        ScenePairs([named(captures(2), "s"), named(captures(2, channels=3), "c")])
    with pytest.raises(PairsError, match=r"s-0: is 128x160 pixels; expected at least 129x129"):
        ScenePairs([named(captures(2), "s")], crop=129)
    with pytest.raises(PairsError, match="no scenes; expected at least one"):
        ScenePairs([])


def test_the_same_picture_twice_is_refused() -> None:
    first, second, third = captures(3)
    with pytest.raises(PairsError, match="scene-0 and scene-2 are the same picture, noise inclu"):
        ScenePairs([named([first, second, first.copy(), third])])


@pytest.mark.parametrize("stranger", [0, 1, 2])
def test_captures_of_something_else_are_refused(stranger: int) -> None:
    pictures = captures(3)
    pictures[stranger] = pictures[stranger][::-1, ::-1].copy()
    with pytest.raises(PairsError, match=rf"scene-{stranger} does not look like .* \(correlation"):
        ScenePairs([named(pictures)])


@pytest.mark.parametrize("sigma", [1, 40])
@pytest.mark.parametrize("kind", ["dark", "flat", "shapes"])
def test_dark_flat_and_very_noisy_captures_are_not_taken_for_strangers(
    kind: str, sigma: float
) -> None:
    clean = {"dark": 0 * scene(), "flat": 0 * scene() + 90, "shapes": scene()}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(10):
            pair = [capture(clean, 2 * seed + side, sigma) for side in (0, 1)]
            check_captures(pair, ["a", "b"])
            check_captures([bytes_of(picture) for picture in pair], ["a", "b"])


@pytest.mark.parametrize(("down", "right"), [(3, 0), (0, -2), (-5, 6)])
def test_a_shift_is_warned_of(down: int, right: int) -> None:
    clean = scene(200, 200)
    moved = np.roll(clean, (down, right), axis=(0, 1))
    vertical = f"{abs(down)} pixels {'lower' if down > 0 else 'higher'}"
    sideways = f"{abs(right)} further {'right' if right > 0 else 'left'} than a"
    with pytest.warns(CapturesWarning, match=f"b seems to lie {vertical} and {sideways}; align"):
        check_captures([capture(clean, 1), capture(moved, 2)], ["a", "b"])


@pytest.mark.filterwarnings("error")
def test_huge_numbers_are_held_against_each_other() -> None:
    clean = scene(channels=3) * 1.5e36
    huge = [capture(clean, seed, 1e37).astype(np.float32) for seed in range(2)]
    check_captures(huge, ["a", "b"])
    with pytest.raises(CapturesWarning, match="5 pixels lower"):
        check_captures([huge[0][5:], huge[1][:-5]], ["a", "b"])


def test_a_pixel_is_no_shift() -> None:
    clean = scene(200, 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_captures([capture(clean, 1), capture(np.roll(clean, 1, axis=0), 2)], ["a", "b"])


# --- brightness ---------------------------------------------------------------------------------


def matched(pictures: list[np.ndarray]) -> list[np.ndarray]:
    gains, offsets = match_brightness(pictures)
    return [x * gain + offset for x, gain, offset in zip(pictures, gains, offsets, strict=True)]


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(("gain", "offset"), [(1.05, 0), (1, 4), (0.8, 30), (1.5, -20)])
def test_matched_captures_differ_by_nothing_on_average(
    count: int, gain: float, offset: float
) -> None:
    clean = scene()
    differences, slopes, middles = [], [], []
    for run in range(40):
        pictures = [capture(clean, 100 * run + number) for number in range(count)]
        pictures[1] = gain * pictures[1] + offset
        ours = matched(pictures)
        differences.append(ours[1].mean() - ours[0].mean())
        gains = match_brightness(pictures).gain[:, 0]
        slopes.append(gains[0] / gains[1])
        assert np.log(gains).mean() == pytest.approx(0, abs=1e-12), "to no capture's side"
        middles.append(np.mean(ours) - np.mean(pictures))
    error = 10 * np.sqrt(2 / clean.size / 40)
    assert abs(np.mean(differences)) < 3 * error
    assert np.mean(slopes) == pytest.approx(gain, rel=2.5e-3), "no slope is flattened by noise"
    assert np.abs(middles).max() < 0.05, "towards the middle of all"


def test_captures_that_do_not_drift_stay_as_they_are() -> None:
    """Three standard errors of four kinds: few in a hundred are touched, and by no more."""
    touched = 0
    for run in range(100):
        pictures = [capture(scene(), 2 * run + number, sigma=25) for number in (0, 1)]
        gain, offset = match_brightness(pictures)
        touched += bool((gain != 1).any())
        change = gain * 100 + offset - 100
        assert np.abs(change).max() < 6 * 25 / np.sqrt(scene().size)
    assert touched <= 5


def test_flat_captures_are_left_alone_or_levelled() -> None:
    flat = np.full((64, 64, 1), 50.0)
    assert (match_brightness([flat, flat + 0]).gain == 1).all()
    levelled = matched([capture(flat, 1, 2), capture(flat + 10, 2, 2)])
    assert levelled[0].mean() == pytest.approx(55, abs=0.2)
    assert levelled[1].mean() == pytest.approx(levelled[0].mean(), abs=0.2)


def test_what_has_moved_does_not_count() -> None:
    clean = scene()
    drifted = 1.1 * clean + 3
    drifted[20:50, 30:70] = 255
    gain, offset = match_brightness([capture(clean, 1, 4), capture(drifted, 2, 4)])
    assert gain[0, 0] / gain[1, 0] == pytest.approx(1.1, rel=5e-3)
    assert (gain[0] * 100 + offset[0]) == pytest.approx(gain[1] * 113 + offset[1], abs=0.3)


def test_each_channel_drifts_by_itself() -> None:
    clean = scene(channels=3)
    pictures = [capture(clean, 1), capture(clean * [1, 1.2, 1] + [0, 0, 9], 2)]
    gain, offset = match_brightness(pictures)
    assert gain[0] / gain[1] == pytest.approx([1, 1.2, 1], rel=5e-3)
    levels = gain * [[100, 100, 100], [100, 120, 109]] + offset
    assert levels[0] == pytest.approx(levels[1], abs=0.6)


def test_drifting_pairs_come_out_equally_bright() -> None:
    pictures = captures(3)
    pictures[2] = bytes_of(0.8 * scene() + capture(0 * scene(), 9, 8))
    pairs = ScenePairs([named(pictures)], crop=64, length=200)
    assert pairs.drifting == 3
    assert pairs.describe()["brightness_matched"] == 3
    source, target = pairs.batch(np.arange(200), 0)
    assert abs(float((source - target).mean((1, 2, 3)).abs().max()) * 255) < 2
    assert abs(float((source - target).mean()) * 255) < 0.3
