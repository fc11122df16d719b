"""The small U-Net, trained on noisy and on clean targets, and on the report's pairs.

    python bench/train_unet.py targets PHOTOGRAPHS EVALUATION [--seeds 0 1 2] [--minutes 5 15 30]
    python bench/train_unet.py pairs PHOTOGRAPHS [--seeds 0] [--minutes 5 15 30]

`targets`: noise of sigma 25 on crops of the photographs; the target is another noisy picture, or
the clean one. Measured on the whole pictures of EVALUATION. `pairs`: the report's 50,000
point-sampled pairs (recipe.py), the small U-Net beside Table I with its best recipe's rates.

Each figure is kept in bench/results/unet.json when it is there; a run that was interrupted goes on
where it stopped, and one that has ended is not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import readme
import recipe
from timed import TimedRun

from pydenoise import data, inference, metrics, models, nn, ops, optim
from pydenoise.atomic import new_file

RESULTS = readme.RESULTS / "unet.json"
SNAPSHOTS = recipe.CACHE.parent / "unet"
NOISE, CROP, PAIRS_AN_EPOCH = "gauss:25", 64, 8192


class CleanTargets(data.NoiseModel):
    """Noise on the source alone: what the paper compares with."""

    def __init__(self, noise: data.NoiseModel) -> None:
        self._noise = noise

    def pair(self, clean: Any, rng: np.random.Generator) -> tuple[Any, Any]:
        return self._noise.draw(clean, rng), self._noise.expectation(clean)

    def _drawn(self, clean: Any, rng: np.random.Generator) -> Any:
        return self._noise.draw(clean, rng)

    def __str__(self) -> str:
        return f"{self._noise} on the source alone"


class Arm(NamedTuple):
    """One of the things compared, but for the seed."""

    name: str
    build: Callable[[int], nn.Module]
    source: Callable[[int], data.PairSource]
    lr: float
    schedule: optim.Schedule
    batch_size: int


def colour_pictures(folder: Path) -> list[Any]:
    """All pictures under a folder, gray ones in three equal channels."""
    paths = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".bmp")
    )
    pictures = [data.read(path) for path in paths]
    return [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, axis=2) for p in pictures]


def target_arms(folder: Path) -> list[Arm]:
    noise = data.parse(NOISE)
    pictures = colour_pictures(folder)

    def source(noise: data.NoiseModel, swap: bool) -> Callable[[int], data.PairSource]:
        def made(seed: int) -> data.PairSource:
            crops = data.NoisyCrops(pictures, noise, CROP, PAIRS_AN_EPOCH, seed)
            return data.Augmented(crops, swap=swap, seed=seed)

        return made

    return [
        Arm(name, lambda seed: models.small_unet(seed=seed), pairs, 1e-3, optim.ramp_down(), 8)
        for name, pairs in (
            ("noisy targets", source(noise, True)),
            ("clean targets", source(CleanTargets(noise), False)),
        )
    ]


def measure_on(folder: Path) -> Callable[[nn.Module], dict[str, float]]:
    scenes = data.noisy_pictures(colour_pictures(folder), data.parse(NOISE))
    noisy, clean = [scene[0] for scene in scenes], [scene[1] for scene in scenes]
    psnr_noisy = metrics.psnr_per_image(noisy, clean)

    def measure(model: nn.Module) -> dict[str, float]:
        denoised = [inference.denoise(model.eval(), picture) for picture in noisy]
        psnr = metrics.psnr_per_image(denoised, clean)
        return {"psnr_noisy": psnr_noisy, "psnr_per_image": psnr}

    return measure


def pair_arms(pictures: recipe.Pictures) -> list[Arm]:
    def source(seed: int) -> data.PairSource:
        return recipe.source(pictures, recipe.BEST, seed)

    best = recipe.BEST
    return [
        Arm("small U-Net", lambda seed: models.small_unet(seed=seed), source, 1e-3,
            optim.ramp_down(), 16),
        Arm("Table I", lambda seed: models.autoencoder(seed=seed), source, best.lr,
            optim.cosine(), best.batch_size),
    ]  # fmt: skip


def compare(
    task: str,
    arms: list[Arm],
    measure: Callable[[nn.Module], dict[str, float]],
    seeds: list[int],
    minutes: list[float],
) -> None:
    for seed in seeds:
        for arm in arms:
            model = arm.build(seed)
            name = f"{task}-{arm.name}-{seed}-{max(minutes):g}.pt".replace(" ", "-")
            run = TimedRun(
                model,
                arm.source(seed),
                seconds=60 * max(minutes),
                lr=arm.lr,
                batch_size=arm.batch_size,
                schedule=arm.schedule,
                seed=seed,
                snapshot=SNAPSHOTS / name,
            )
            weights = sum(parameter.data.numel() for parameter in model.parameters())
            what = {"task": task, "arm": arm.name, "seed": seed, "weights": weights}
            what["minutes_in_all"] = max(minutes)
            for minute in sorted(minutes):
                key = {**what, "minutes": minute}
                if not any(key.items() <= known.items() for known in kept()):
                    run.until(60 * minute)
                    spent = {"steps": run.steps, "seconds": run.seconds}
                    keep({**key, **spent, **measure(model)})


def kept() -> list[dict[str, Any]]:
    """The records so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def keep(record: dict[str, Any]) -> None:
    """Append a record to the results, and show it."""
    results = [*kept(), {**record, "config": ops.show_config().splitlines()}]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with new_file(RESULTS, overwrite=True) as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(record), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["targets", "pairs"])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("evaluation", type=Path, nargs="?", help="a folder, for targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 30])
    arguments = parser.parse_args()
    if (arguments.task == "targets") != (arguments.evaluation is not None):
        parser.error(
            "targets takes a folder of photographs and one to evaluate on, pairs takes one"
        )
    if arguments.task == "targets":
        arms, measure = target_arms(arguments.photographs), measure_on(arguments.evaluation)
    else:
        pictures = recipe.cached(arguments.photographs)
        noisy, clean = pictures.validation
        before = {"psnr_noisy": metrics.psnr_per_image(noisy, clean)}
        arms = pair_arms(pictures)

        def measure(model: nn.Module) -> dict[str, float]:
            return {**before, **inference.evaluate(model.eval(), noisy, clean)}

    compare(arguments.task, arms, measure, arguments.seeds, arguments.minutes)


if __name__ == "__main__":
    main()
