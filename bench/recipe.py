"""The report's experiment as data and settings, shared by experiment.py and ablation.py.

50,000 point-sampled pairs of 32 x 32 pictures (blocks of 8 pixels) from a folder of photographs,
50 of which are held back whole for 1000 validation pictures. They stand in for the course's own
files, which are not public.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pydenoise import data, models, nn, optim
from pydenoise.training import TrainingResult, train

BLOCK, CROP = 8, 32
PAIRS, VALIDATION, HELD_BACK = 50_000, 1000, 50
DATA_SEED = 0
CACHE = Path(__file__).resolve().parent.parent / "build" / "experiment"


@dataclass(frozen=True)
class Recipe:
    """How to train Table I; the defaults are the best found (b), REPORT is the report's own (a)."""

    channels: tuple[int, int] = (48, 96)
    optimizer: str = "adam"
    lr: float = 5e-3
    momentum: float = 0.9
    schedule: str = "cosine"
    batch_size: int = 16
    init: str = "default"
    augment: bool = True
    swap: bool = True
    average: float = 0.999


REPORT = Recipe(
    optimizer="sgd",
    lr=0.1,
    momentum=0.0,
    schedule="constant",
    augment=False,
    swap=False,
    average=0.0,
)
BEST = Recipe()


@dataclass(frozen=True)
class Pictures:
    """uint8 pairs to train on; noisy and clean float pictures to measure on."""

    first: Tensor
    second: Tensor
    validation: tuple[Tensor, Tensor]
    photographs: int


def photographs(folder: Path) -> list[Path]:
    """The pictures under a folder, at all depths."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    ]


def draw(folder: Path) -> Pictures:
    """The experiment's pictures: a function of the folder's photographs alone."""
    paths = photographs(folder)
    if len(paths) <= HELD_BACK:
        raise SystemExit(
            f"{folder} holds {len(paths)} pictures, the experiment holds back {HELD_BACK}; "
            "name a folder with some hundred photographs"
        )
    order = data.generator(DATA_SEED, 0, 0, "order").permutation(len(paths))
    held_back = [data.read(paths[i]) for i in order[:HELD_BACK]]
    seen = [data.read(paths[i]) for i in order[HELD_BACK:]]
    first, second = data.point_sampled_pairs(seen, BLOCK, PAIRS, CROP, DATA_SEED)
    noisy, clean = data.point_sampled_validation(held_back, BLOCK, VALIDATION, CROP, DATA_SEED)
    return Pictures(first, second, (noisy / 255, clean / 255), len(seen))


def cached(folder: Path) -> Pictures:
    """As `draw`, kept in a file so that many runs draw once."""
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    path = CACHE / f"pairs-{key}.pt"
    if not path.exists():
        pictures = draw(folder)
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        torch.save(asdict(pictures), partial)
        partial.replace(path)
    return Pictures(**torch.load(path, weights_only=True))


def source(pictures: Pictures, recipe: Recipe, seed: int) -> data.PairSource:
    """The pairs in the order and orientation that the recipe wants."""
    pairs: data.PairSource = data.TensorPairs(pictures.first, pictures.second)
    if recipe.augment or recipe.swap:
        pairs = data.Augmented(
            pairs, flips=recipe.augment, transpose=recipe.augment, swap=recipe.swap, seed=seed
        )
    return pairs


def run(
    pictures: Pictures,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[nn.Module, TrainingResult]:
    """Train once."""
    model = models.autoencoder(recipe.channels, init=recipe.init, seed=seed)
    optimizer: optim.Optimizer
    if recipe.optimizer == "adam":
        optimizer = optim.Adam(model, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    else:
        optimizer = optim.SGD(model, lr=recipe.lr, momentum=recipe.momentum)
    result = train(
        model,
        source(pictures, recipe, seed),
        epochs=epochs,
        batch_size=recipe.batch_size,
        optimizer=optimizer,
        schedule=optim.cosine() if recipe.schedule == "cosine" else optim.constant(),
        validation=pictures.validation,
        average=recipe.average,
        seed=seed,
        progress=progress,
    )
    return model, result
