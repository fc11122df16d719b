"""Several noisy captures of each scene: any two of them are a pair.

Two folders, bursts and stacks are read into the same `Scene`s; `ScenePairs` cuts pairs from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from pydenoise.data.brightness import Match, check_captures, match_brightness
from pydenoise.data.crops import Corner, Crops, check_crop
from pydenoise.data.folders import (
    ValueRange,
    matching_pictures,
    read_folder,
    read_pages,
    scale_of,
)
from pydenoise.data.noise import Array, generator
from pydenoise.data.pairs import PairsError
from pydenoise.data.pictures import ImageError, PathLike


class Scene(NamedTuple):
    """Captures of one still scene, each (H, W, C), and where each comes from, for messages."""

    captures: list[Array]
    names: list[str]


class Scenes(NamedTuple):
    """Scenes, and what else lay in their folders; see `pydenoise.data.folders.Folder`."""

    scenes: list[Scene]
    skipped: dict[Path, str]


class ScenePairs(Crops):
    """Crops of two noisy captures of one scene, any two of them, drawn anew in every epoch.

    The captures of a scene are made equally bright, see `match_brightness`.

    Parameters
    ----------
    scenes : sequence of Scene
        Two captures each or more, of one size within a scene; one dtype and C for all. Kept in
        the numbers of their files.
    crop, length
        As in `Crops`.
    seed : int
        Scene, position and captures are functions of (seed, epoch, index).
    value_range : (float, float), optional
        The numbers that become 0 and 1; as `pydenoise.data.folders.value_range` gives them.

    Attributes
    ----------
    matches : list of Match
        What was done to the captures of each scene.

    Raises
    ------
    PairsError
        When a scene has one capture alone, captures of a scene differ in size, are the same
        picture, or look unrelated; when scenes differ in depth or channels or are smaller than
        a crop.

    Warns
    -----
    CapturesWarning
        When captures of a scene are shifted against each other.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        crop: int = 32,
        length: int | None = None,
        seed: int = 0,
        value_range: ValueRange = None,
    ) -> None:
        check_crop(crop)
        if not scenes:
            raise PairsError("ScenePairs: no scenes; expected at least one")
        for scene in scenes:
            _check(scene, scenes[0], crop)
        self.matches = [match_brightness(scene.captures) for scene in scenes]
        self._scenes = [scene.captures for scene in scenes]
        gain, offset = scale_of(self._scenes[0][0].dtype, value_range)
        self._scales = [Match(m.gain * gain, m.offset * gain + offset) for m in self.matches]
        self.value_range = value_range
        super().__init__([captures[0] for captures in self._scenes], crop, crop, length, seed)

    def _pair(self, corner: Corner, epoch: int, index: int) -> tuple[Array, Array]:
        rng = generator(self._seed, epoch, index, "picture")
        first, second = rng.choice(len(self._scenes[corner[0]]), size=2, replace=False).tolist()
        return self._cut(corner, first), self._cut(corner, second)

    def _cut(self, corner: Corner, number: int) -> Array:
        scene, top, left = corner
        piece = self._scenes[scene][number][top : top + self._size, left : left + self._size]
        scale = self._scales[scene]
        scaled: Array = piece * scale.gain[number] + scale.offset[number]
        return scaled

    def contents(self) -> Iterator[Array]:
        return chain.from_iterable(self._scenes)

    @property
    def captures(self) -> int:
        """Captures of all scenes."""
        return sum(map(len, self._scenes))

    @property
    def drifting(self) -> int:
        """Captures whose brightness was changed."""
        return sum(int((m.gain != 1).any(axis=1).sum()) for m in self.matches)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "captures of scenes",
            "captures": self.captures,
            "brightness_matched": self.drifting,
            "value_range": self.value_range and list(self.value_range),
            **super().describe(),
        }


def two_folders(folder_a: PathLike, folder_b: PathLike, smallest: int = 1) -> Scenes:
    """Two captures of each scene, in two folders under matching names; see `matching_pictures`."""
    matched = matching_pictures(folder_a, folder_b, smallest)
    scenes = [
        Scene([a, b], [f"{folder_a}: {name!r}", f"{folder_b}: {name!r}"])
        for a, b, name in zip(matched.first, matched.second, matched.names, strict=True)
    ]
    return Scenes(scenes, matched.skipped)


def bursts(folder: PathLike, smallest: int = 1) -> Scenes:
    """Captures of each scene in a folder of its own.

    Parameters
    ----------
    folder : path
        Its sub-folders are scenes, with two pictures or more each; without any it is one scene.
    smallest : int
        As in `pydenoise.data.folders.read_folder`.

    Raises
    ------
    ImageError
        When it is no folder, or a scene's folder holds no picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder}: is no folder; expected one with a folder for each scene")
    places = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = Scenes([], {})
    for place in places or [folder]:
        content = read_folder(place, smallest)
        found.scenes.append(Scene(content.pictures, _numbered(content.paths)))
        found.skipped.update(content.skipped)
    if places:
        found.skipped.update((p, "") for p in sorted(folder.iterdir()) if p not in places)
    return found


def stacks(paths: Sequence[PathLike]) -> Scenes:
    """Pages of a TIFF or .npy, each file a still scene."""
    scenes = []
    for path in paths:
        pages = read_pages(path)
        scenes.append(Scene(pages, _numbered([Path(path)] * len(pages))))
    return Scenes(scenes, {})


def _numbered(paths: Sequence[Path]) -> list[str]:
    """The files' names, and the page where a file has several."""
    pages, met = Counter(paths), Counter[Path]()
    names = []
    for path in paths:
        met[path] += 1
        names.append(f"{path}, page {met[path]}" if pages[path] > 1 else str(path))
    return names


def _check(scene: Scene, first: Scene, crop: int) -> None:
    captures, names = scene
    if len(captures) < 2:
        raise PairsError(f"{names[0]}: is the only capture of its scene; expected two or more")
    check_captures(captures, names)
    ours, theirs = captures[0], first.captures[0]
    if (ours.shape[2], ours.dtype) != (theirs.shape[2], theirs.dtype):
        raise PairsError(
            f"{names[0]} has {ours.shape[2]} channels of {ours.dtype}, {first.names[0]} has "
            f"{theirs.shape[2]} of {theirs.dtype}; expected one kind for all scenes"
        )
    if min(ours.shape[:2]) < crop:
        raise PairsError(
            f"{names[0]}: is {ours.shape[0]}x{ours.shape[1]} pixels; expected at least "
            f"{crop}x{crop}: take smaller crops, or leave the scene out"
        )
