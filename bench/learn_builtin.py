"""The networks that ship, learned from pairs of noisy pictures.

    python bench/learn_builtin.py PHOTOGRAPHS [gray] [colour]

The scenes are the photographs of a folder, those that come with scikit-image and matplotlib, all as
they are and at half the size, and leaves: drawn disks and bars that hide one another. Every step
sees two noisy captures of a few crops, with normal noise or photon counts of a random level, or
noise that neighbours share, on a scale on which 0 and 1 are percentiles of all that is seen
together.

All that is random is a function of the seed and the step. A run is kept every 1000 steps, under
build/builtin, and goes on where it stopped, to the same weights. An hour of a core for each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import recipe
import skimage.data
import tables
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pydenoise import builtin, checkpoint, data, models, nn, optim
from pydenoise.atomic import new_file
from pydenoise.data.noise import unit
from pydenoise.objectives import Noise2Noise

SEED, WARM_UP, DECAY = 0, 0.025, 0.999
CROPS, SIDE = 4, 64
SAVED_EVERY = 1000
SNAPSHOTS = recipe.CACHE.parent / "builtin"
CHANNELS = {"gray": 1, "colour": 3}
LONGEST_GRADIENT = 1.5  # in usual ones
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
GRAY = (
    *("brick", "camera", "cell", "coins", "grass", "gravel", "moon", "page", "clock", "text"),
    "microaneurysms",
)
RADII = (2, 120), (4, 120), (8, 160), (2, 40), (1, 60), (15, 160)
LEAVES_SIDE, LEAVES = 320, 4000
LEAVES_SHARE = 0.25
LEAST_LEVEL = 1e-3  # of the noise, mean square


class Stage(NamedTuple):
    """Steps at a rate that falls to zero; a new one begins with the averaged weights.

    A network that meets independent noise alone learns to rely on it, and fails on what cameras
    make: so neighbours share the noise of some steps, and channels a part of that.
    """

    steps: int
    lr: float
    shared: float  # share of such steps
    in_common: float  # the most that channels share of it, where all is 1
    gray: float  # share of steps on scenes without colour, some of them toned
    radius: float  # of the blur that makes neighbours share, in pixels, at most


STAGES = {
    "gray": (Stage(100_000, 1.2e-3, 0.1, 0.6, 0, 0.9),),
    "colour": (
        Stage(90_000, 1.2e-3, 0.2, 0.6, 0, 0.9),
        Stage(16_000, 4e-4, 0.4, 1.3, 0.2, 1.2),
    ),
}

# --- scenes -------------------------------------------------------------------------------------


def photographs(channels: int, folder: Path) -> list[np.ndarray]:
    """float32 (H, W, C) on the scale 0..1, each also at half the size; the folder's in colour."""
    portrait = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    found = [*data.sample_photographs().values(), data.read(portrait)]
    found += [data.read(path) for path in recipe.photographs(folder)]
    pictures = [unit(picture) for picture in found if picture.shape[2:] == (3,)]
    if channels == 1:
        pictures = [(picture @ LUMINANCE)[..., None] for picture in pictures]
        pictures += [unit(getattr(skimage.data, name)())[..., None] for name in GRAY]
    return [
        picture.clip(0, 1)
        for whole in pictures
        for picture in (whole, halved(whole))
        if min(picture.shape[:2]) >= 2 * SIDE
    ]


def halved(picture: np.ndarray) -> np.ndarray:
    height, width = (size // 2 for size in picture.shape[:2])
    cells = picture[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return cells.mean(axis=(1, 3))


def leaves(channels: int, smallest: float, largest: float, index: int) -> np.ndarray:
    """Disks and bars of a random size, colour and texture, the later ones before the earlier.

    Their radii r are distributed as 1 / r^3, which makes the picture look alike at every scale:
    A. Lee, D. Mumford, J. Huang, "Occlusion models for natural images", IJCV 41, 2001.
    """
    random = data.generator(SEED, channels, index, "picture")
    side = 2 * LEAVES_SIDE
    picture = np.full((side, side, channels), 0.5, np.float32)
    share = random.random(LEAVES)
    for radius in 2 * (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5:
        place = random.uniform(-radius, side + radius, 2)
        top, left = np.clip(place - radius, 0, side).astype(int)
        bottom, right = np.clip(place + radius + 1, 0, side).astype(int)
        y, x = np.ogrid[top:bottom, left:right]
        y, x = y - place[0], x - place[1]
        angle, thickness = random.uniform(0, 2 * np.pi), random.uniform(0.2, 0.7)
        along, across = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
        is_disk = random.random() < 0.5
        inside = (
            y**2 + x**2 < radius**2
            if is_disk
            else (abs(along) < 0.7 * radius) & (abs(across) < thickness * radius)
        )
        pattern = random.random()
        texture = np.zeros(inside.shape)
        if pattern < 0.5:
            waves = np.exp(random.uniform(np.log(0.025), np.log(0.6)))
            texture = np.sin(waves * along + random.uniform(0, 2 * np.pi))
            texture = random.uniform(0.02, 0.3) * texture
        elif pattern < 0.75:
            texture = random.uniform(-0.3, 0.3) * along / radius
        colour = random.random(channels) + np.broadcast_to(texture, inside.shape)[inside][:, None]
        picture[top:bottom, left:right][inside] = colour
    return halved(picture).clip(0, 1)


class Scenes:
    """Pairs of noisy pictures for a step."""

    def __init__(self, channels: int, folder: Path) -> None:
        self._channels = channels
        self._photographs = photographs(channels, folder)
        self._leaves = [leaves(channels, *radii, i) for i, radii in enumerate(RADII)]

    def pair(self, step: int, stage: Stage) -> tuple[Tensor, Tensor]:
        """Two captures of a few crops, (N, C, H, W), under one noise."""
        random = data.generator(SEED, self._channels, step, "crop")
        clean = np.stack([self._crop(random) for _ in range(CROPS)])
        if stage.gray and random.random() < stage.gray:
            clean = np.repeat(np.tensordot(clean, LUMINANCE, (1, 0))[:, None], 3, axis=1)
        if random.random() < 0.3:
            clean = 1 - clean
        if random.random() < 0.5:
            clean = clean ** np.exp(random.uniform(-0.5, 0.8))
        if self._channels == 3 and random.random() < 0.3:
            clean = clean * random.uniform(0.1, 1, (1, 3, 1, 1))
        clean = clean * random.uniform(0.5, 1, (CROPS, 1, 1, 1))
        capture = noise(clean, random, stage)
        first, second = capture(), capture()
        low, high = np.percentile(first, (0.1, 99.9))
        scale = max(high - low, 1e-3)
        source, target = (
            torch.from_numpy(((each - low) / scale).astype(np.float32)) for each in (first, second)
        )
        return source, target

    def _crop(self, random: np.random.Generator) -> np.ndarray:
        pictures = self._leaves if random.random() < LEAVES_SHARE else self._photographs
        weights = np.sqrt([picture.size for picture in pictures])
        picture = pictures[random.choice(len(pictures), p=weights / weights.sum())]
        top, left = (random.integers(size - SIDE + 1) for size in picture.shape[:2])
        crop = picture[top : top + SIDE, left : left + SIDE]
        crop = np.rot90(crop, random.integers(4))
        crop = crop[:, ::-1] if random.random() < 0.5 else crop
        return crop[..., random.permutation(self._channels)].transpose(2, 0, 1)


def noise(clean: np.ndarray, random: np.random.Generator, stage: Stage) -> Callable[[], np.ndarray]:
    """A function that draws captures of (N, C, H, W) under one noise.

    Normal noise, photon counts, counts read with an error, or noise that neighbours share.
    """
    if random.random() < stage.shared:
        return shared(clean, random, stage)
    kind = random.random()
    low, high = (0, 60) if random.random() < 0.85 else (60, 130)
    sigma = random.uniform(low, high) / 255
    photons = np.exp(random.uniform(np.log(3), np.log(300)))
    if kind < 0.5:
        return lambda: clean + sigma * random.standard_normal(clean.shape)
    read = 0 if kind < 0.8 else sigma / 2
    return lambda: (
        random.poisson(clean * photons) / photons + read * random.standard_normal(clean.shape)
    )


def shared(
    clean: np.ndarray, random: np.random.Generator, stage: Stage
) -> Callable[[], np.ndarray]:
    """Noise as demosaicing and compression leave it: blurred, partly alike in all channels."""
    sigma, radius = random.uniform(0, 50) / 255, random.uniform(0.25, stage.radius)
    in_common = min(1, random.uniform(0, stage.in_common)) if random.random() < 0.5 else 0
    grows = random.random() < 0.5
    strength = sigma * np.sqrt(clean.clip(0) + 0.02) if grows else sigma
    dot = np.zeros((33, 33))
    dot[16, 16] = 1
    strength = strength / np.linalg.norm(gaussian_filter(dot, radius))

    def capture() -> np.ndarray:
        drawn = random.standard_normal(clean.shape)
        drawn = gaussian_filter(drawn, (0, 0, radius, radius), mode="wrap")
        drawn += in_common * (drawn.mean(axis=1, keepdims=True) - drawn)
        return clean + strength * drawn

    return capture


# --- learning -----------------------------------------------------------------------------------


def learn(name: str, stages: Sequence[Stage], folder: Path) -> nn.Module:
    """Train to the end, from where the last run stopped; holds the average of the weights."""
    channels = CHANNELS[name]
    model = models.halved(channels, seed=SEED)
    weights, gradient = model.flatten()
    average, usual, done = weights.clone(), 0.0, 0
    steps = sum(stage.steps for stage in stages)
    snapshot = SNAPSHOTS / f"{name}-{steps}.pt"
    told = {"photographs": folder.resolve().name, **(model.architecture or {})}
    kept: dict[str, Any] = {}
    if snapshot.exists():
        kept = torch.load(snapshot, weights_only=True)
        if kept["told"] != told:
            raise SystemExit(f"{snapshot}: is of {kept['told']}, not of {told}; move it away")
        weights.copy_(kept["weights"])
        average.copy_(kept["average"])
        usual, done = kept["usual"], kept["steps"]
    scenes, objective, schedule = Scenes(channels, folder), Noise2Noise(), optim.cosine(WARM_UP)
    began, missed = time.process_time(), []
    for stage, end in zip(stages, accumulate(stage.steps for stage in stages), strict=True):
        if done >= end:
            continue
        first = end - stage.steps
        rule = optim.Adam(model, lr=stage.lr, betas=(0.9, 0.99))
        if done > first:
            rule.load_state_dict(kept["rule"])
        else:
            weights.copy_(average)
            usual = 0.0
        for step in range(max(first, done), end):
            rule.lr = stage.lr * schedule((step - first + 1) / (stage.steps + 1))
            source, target = scenes.pair(step, stage)
            difference = source - target
            level = difference.square().mean().item() / 2
            # loud noise shall not drown what is learned about faint noise
            share = (level + LEAST_LEVEL) ** -0.75
            loss = objective.step(model, source, difference, share) / share
            missed.append(loss / (2 * level + 1e-12))
            usual = shorten(gradient, usual)
            rule.step()
            rule.zero_grad()
            seen = step - first
            average.lerp_(weights, 1 - min(DECAY, (1 + seen) / (10 + seen)))
            if (step + 1) % SAVED_EVERY == 0 or step + 1 == end:
                state = {"weights": weights, "average": average, "usual": usual, "told": told}
                keep(snapshot, {**state, "steps": step + 1, "rule": rule.state_dict()})
                print(
                    f"{name}: step {step + 1} of {steps}, loss {np.median(missed):.3f} of the "
                    f"noise, {time.process_time() - began:.0f} s of a core",
                    flush=True,
                )
                missed.clear()
    weights.copy_(average)
    return model


def shorten(gradient: Tensor, usual: float) -> float:
    """Bring a gradient down that is much longer than usual; returns what is usual from now on.

    Faint noise makes some, before the network knows any: they would throw it over.
    """
    length = gradient.norm().item()
    usual = usual or length
    longest = LONGEST_GRADIENT * usual
    if length > longest:
        gradient.mul_(longest / length)
    return usual + 0.01 * (min(length, 2 * longest) - usual)


def keep(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, overwrite=True) as file:
        torch.save(state, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PHOTOGRAPHS")
    parser.add_argument("names", nargs="*", help=f"{' and '.join(CHANNELS)}; both if omitted")
    parser.add_argument("--steps", type=int, help="of a trial of the first stage")
    parser.add_argument("--out", type=Path, help="folder for the weights; the package if omitted")
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.out is None:
        parser.error("--steps makes a trial, which must not replace what ships: give --out")
    if unknown := set(arguments.names) - CHANNELS.keys():
        parser.error(
            f"unknown network {', '.join(sorted(unknown))}; known are {', '.join(CHANNELS)}"
        )
    if not recipe.photographs(arguments.folder):
        parser.error(f"{arguments.folder}: holds no pictures; name a folder of photographs")
    commit = tables.commit()
    for name in arguments.names or CHANNELS:
        stages = STAGES[name]
        if arguments.steps is not None:
            stages = (stages[0]._replace(steps=arguments.steps),)
        steps = " + ".join(str(stage.steps) for stage in stages)
        ships = builtin.NETWORKS[CHANNELS[name]]
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
        where = f"bench/learn_builtin.py, seed {SEED}, {steps} steps, commit {commit}"
        checkpoint.save_weights(
            ships if arguments.out is None else arguments.out / ships.name,
            learn(name, stages, arguments.folder),
            half=True,
            trained_on=f"noisy pairs of the photographs of {arguments.folder.resolve().name}, "
            f"of those that come with scikit-image and matplotlib, and of drawn leaves: {where}",
            overwrite=True,
        )


if __name__ == "__main__":
    main()
