"""What quality.py has measured, in a file that grows with every figure.

A figure holds for a noisy picture and its clean one, bit for bit, and for the code of the method:
its own files, or the weights. Speed also depends on the kernels, so each says its commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tables
from quality_scenes import Scene

from pydenoise import comparison
from pydenoise.atomic import new_file

PACKAGE = tables.ROOT / "pydenoise"
_MODEL = ("inference.py", "tiles.py")
_SCALED = ("scale.py", "data/levels.py", "data/gaps.py", *_MODEL)
BUILTIN = (
    "builtin.py",
    "weights/gray.safetensors",
    "weights/colour.safetensors",
    "models/halved.py",
    *_SCALED,
)
ZERO_SHOT = (
    "zero_shot.py",
    "objectives/zero_shot.py",
    "models/zero_shot.py",
    "optim/schedules.py",
    *_SCALED,
)
CLASSIC = ("classic.py",)
_BETWEEN = " | "
_OWN = {"builtin": BUILTIN, "zero-shot": ZERO_SHOT, "zero-shot-paper": ZERO_SHOT}


class Contender(NamedTuple):
    """A method of `pydenoise.comparison`, the model with its weights."""

    method: str
    weights: Path | None = None
    turns: int | None = None

    @property
    def title(self) -> str:
        """What tables call it: weights by file and folder, since many are named alike."""
        title = comparison.METHODS[self.method]
        if self.weights:
            title = "/".join(self.weights.resolve().parts[-2:])
        return title if self.turns is None else f"{title}, turns: {self.turns}"

    def code(self) -> bytes:
        """A digest of what decides the result."""
        turns = "" if self.turns is None else f" {self.turns}"
        digest = hashlib.sha256(f"{self.method}{turns}".encode())
        if self.weights:
            digest.update(self.weights.read_bytes())
            for name in _MODEL:
                digest.update((PACKAGE / name).read_bytes())
            return digest.digest()
        for name in _OWN.get(self.method, CLASSIC):
            digest.update((PACKAGE / name).read_bytes())
        if self.method not in _OWN:
            package = "bm3d" if self.method == "bm3d" else "scikit-image"
            digest.update(version(package).encode())
        return digest.digest()


class Cache:
    """Figures by contender, picture and noise; written whole after each, so a stop loses one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, dict[str, Any]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        )
        self._commit = tables.commit()
        self._used: dict[str, None] = {}

    def holds(self, contender: Contender, scene: Scene) -> bool:
        kept = self._kept.get(_key(contender.title, scene))
        return kept is not None and kept["holds_for"] == _fingerprint(contender, scene)

    def titles(self, scenes: Sequence[Scene]) -> set[str]:
        """Of those who have figures of all scenes, whatever they hold for."""
        return {
            title
            for title in {key.split(_BETWEEN)[0] for key in self._kept}
            if all(_key(title, scene) in self._kept for scene in scenes)
        }

    def figures(self, title: str, scene: Scene) -> dict[str, Any]:
        """What is kept of a title and a picture; nothing if it was not measured."""
        kept = self._kept.get(_key(title, scene), {})
        if kept:
            self._used[kept["commit"]] = None
        return kept

    def keep(self, contender: Contender, scene: Scene, figures: dict[str, Any]) -> None:
        holds_for = _fingerprint(contender, scene)
        entry = {**figures, "commit": self._commit, "holds_for": holds_for}
        self._kept[_key(contender.title, scene)] = entry
        with new_file(self._path, overwrite=True) as file:
            file.write(json.dumps(self._kept, indent=1).encode() + b"\n")

    def commits(self) -> list[str]:
        """Those of all figures that were asked for."""
        return list(self._used)


def _key(title: str, scene: Scene) -> str:
    return _BETWEEN.join(filter(None, (title, scene.name, scene.noise)))


def _fingerprint(contender: Contender, scene: Scene) -> str:
    digest = hashlib.sha256(contender.code())
    for picture in (scene.noisy, scene.clean):
        digest.update(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()[:16]
