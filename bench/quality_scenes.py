"""The pictures that quality.py measures on: clean ones with noise, and real captures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pydenoise import data

RECIPE_SIDE = 192
RECIPE_PICTURES = {
    "Set12": ("01", "04", "08", "10"),
    "Set14": ("monarch", "lenna", "baboon", "flowers"),
}
MEAN_OF_50 = {  # FMD-sample: a capture, and the mean of 50 of its scene
    "image_R_1_001.png": "image_R_1_avg50.png",
    "BPAE_R_Channel_noisy_image.png": "BPAE_R_Channel_gt_image.png",
    "test2d_raw_Confocal_FISH_3.png": "test2d_gt_gt_Confocal_FISH_3.png",
    "test2d_raw_WideField_BPAE_raw_rgb_new1.png": "test2d_gt_WideField_BPAE_gt_rgb_new1.png",
}
EVERY = 5  # of PolyU's hundred captures
SEEN = {"Set12/04.png"}  # a crop of BSDS500's 12003
SEED = 0


class Scene(NamedTuple):
    """A noisy picture and its clean one, float32 on the scale 0..1."""

    folder: str
    name: str
    noise: str
    noisy: np.ndarray
    clean: np.ndarray


def colours(path: Path) -> np.ndarray:
    """A picture of 8 bits without its alpha, (H, W) or (H, W, C)."""
    pixels = data.read(path)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    return np.ascontiguousarray(pixels)


def with_noise(folders: Sequence[Path], noise: str, side: int | None = None) -> Iterator[Scene]:
    """The pictures of folders, or the centres of those that compare the recipes, with noise."""
    model = data.parse(noise)
    for folder in folders:
        for index, path in enumerate(data.list_pictures(folder)[0]):
            if side is not None and path.stem not in RECIPE_PICTURES.get(folder.name, ()):
                continue
            pixels = colours(path)
            if side is not None:
                top, left = ((size - side) // 2 for size in pixels.shape[:2])
                pixels = pixels[top : top + side, left : left + side]
            noisy = model.draw(pixels, data.generator(SEED, 0, index, "picture"))
            name = f"{folder.name}/{path.name}" + ("" if side is None else f" {side}x{side}")
            yield Scene(folder.name, name, noise, noisy, model.expectation(pixels))


def captures(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """A capture of each scene, and the mean of others."""
    if (folder / "avg400").is_dir():  # W2S-8bit
        for path in data.list_pictures(folder / "avg1")[0]:
            name = path.name.replace("input_avg1", "target_avg400")
            yield path, colours(folder / "avg400" / name)
    elif (folder / next(iter(MEAN_OF_50))).exists():  # FMD-sample
        for noisy, mean in MEAN_OF_50.items():
            yield folder / noisy, colours(folder / mean)
    elif of_scene := sorted(folder.glob("*_real.JPG")):  # PolyU-cropped
        for path in of_scene[::EVERY]:
            yield path, colours(path.with_name(path.name.replace("_real", "_mean")))
    else:  # S95-repeated: six captures of a scene, of which the first three may be learned from
        for scene in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
            paths = data.list_pictures(scene)[0]
            yield paths[0], np.mean([colours(path) for path in paths[3:]], axis=0)


def real(folders: Sequence[Path]) -> Iterator[Scene]:
    """Captures, with the mean of many brought to their brightness.

    Gain and offset are fitted once, by least squares from the mean to the noisy capture, and hold
    for whatever is made of that capture.
    """
    for folder in folders:
        for path, mean in captures(folder):
            noisy = data.to_array(data.to_tensor(colours(path)), np.float32)
            gain, offset = np.polyfit(mean.ravel().astype(np.float64), noisy.ravel(), 1)
            clean = (gain * mean + offset).astype(np.float32)
            yield Scene(folder.name, f"{folder.name}/{path.relative_to(folder)}", "", noisy, clean)
