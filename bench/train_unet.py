"""The small U-Net, trained on noisy targets, clean ones and none, and on the report's pairs.

On noisy targets the network of the shape that ships (`models.halved`) is trained, too.

    python bench/train_unet.py targets PHOTOGRAPHS EVALUATION [--arms NAME...] [--seeds 0 1 2]
    python bench/train_unet.py pairs PHOTOGRAPHS [--arms NAME...] [--seeds 0]
    python bench/train_unet.py report

`targets`: noise of sigma 25 on crops of the photographs; the target is another noisy picture, or
the clean one, or there is none and each photograph is noisy once and for all (Neighbor2Neighbor).
Measured on the whole pictures of EVALUATION. `pairs`: the report's 50,000 point-sampled pairs
(recipe.py), the small U-Net beside Table I with its best recipe's rates.

Minutes are those of two cores: each is 120 seconds of processor time. Each figure is a line of
bench/results/unet.jsonl when it is there; a run that was interrupted goes on where it stopped, one
that has ended is not repeated, and several can go on side by side with other seeds or arms.
`report` makes the tables of README.md and RESULTS.md and bench/results/unet.png of these lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import recipe
import tables
from matplotlib.figure import Figure
from timed import TimedRun

from pydenoise import data, inference, metrics, models, nn, ops, optim
from pydenoise.data.noise import unit
from pydenoise.objectives import Neighbor2Neighbor, Noise2Noise, Objective

RESULTS = tables.RESULTS / "unet.jsonl"
CURVE = tables.RESULTS / "unet.png"
SNAPSHOTS = recipe.CACHE.parent / "unet"
NOISE, CROP, PAIRS_AN_EPOCH, NOISE_SEED = "gauss:25", 64, 8192, 1
CORE_SECONDS = 120  # of a minute of two cores
COLOURS = {
    "clean targets": "#6b6b6b",
    "noisy targets": "#0b6e99",
    "single pictures": "#c25b12",
    "noisy targets, halved": "#2e7d32",
}


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
    objective: Callable[[int], Objective]
    lr: float
    schedule: optim.Schedule
    batch_size: int


def colour_pictures(folder: Path) -> list[Any]:
    """All pictures under a folder, gray ones in three equal channels."""
    pictures = [data.read(path) for path in recipe.photographs(folder)]
    return [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, axis=2) for p in pictures]


def target_arms(folder: Path) -> list[Arm]:
    noise = data.parse(NOISE)
    pictures = colour_pictures(folder)

    once = [
        noise.draw(unit(picture), data.generator(NOISE_SEED, 0, number, "noise"))
        for number, picture in enumerate(pictures)
    ]

    def of_pairs(seed: int) -> data.PairSource:
        crops = data.NoisyCrops(pictures, noise, CROP, PAIRS_AN_EPOCH, seed)
        return data.Augmented(crops, seed=seed)

    def of_clean(seed: int) -> data.PairSource:
        crops = data.NoisyCrops(pictures, CleanTargets(noise), CROP, PAIRS_AN_EPOCH, seed)
        return data.Augmented(crops, swap=False, seed=seed)

    def of_singles(seed: int) -> data.PairSource:
        crops = data.SingleCrops(once, CROP, PAIRS_AN_EPOCH, seed)
        return data.Augmented(crops, swap=False, seed=seed)

    def arm(
        name: str,
        source: Callable[[int], data.PairSource],
        objective: Any,
        build: Callable[[int], nn.Module] = _small_unet,
    ) -> Arm:
        return Arm(name, build, source, objective, 1e-3, optim.ramp_down(), 8)

    return [
        arm("noisy targets", of_pairs, _noise2noise),
        arm("clean targets", of_clean, _noise2noise),
        arm("single pictures", of_singles, lambda seed: Neighbor2Neighbor(seed=seed)),
        arm("noisy targets, halved", of_pairs, _noise2noise, _halved),
    ]


def _small_unet(seed: int) -> nn.Module:
    return models.small_unet(seed=seed)


def _halved(seed: int) -> nn.Module:
    return models.halved(residual=True, seed=seed)


def _noise2noise(seed: int) -> Objective:
    return Noise2Noise()


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
        Arm("small U-Net", _small_unet, source, _noise2noise, 1e-3, optim.ramp_down(), 16),
        Arm("Table I", lambda seed: models.autoencoder(seed=seed), source, _noise2noise, best.lr,
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
                arm.objective(seed),
                seconds=CORE_SECONDS * max(minutes),
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
                    run.until(CORE_SECONDS * minute)
                    spent = {"steps": run.steps, "seconds": run.seconds}
                    keep({**key, **spent, **measure(model)})


def kept() -> list[dict[str, Any]]:
    """The records so far."""
    return list(map(json.loads, RESULTS.read_text().splitlines())) if RESULTS.exists() else []


def keep(record: dict[str, Any]) -> None:
    """Append a record to the results, and show it."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        about = {"commit": tables.commit(), "config": ops.show_config().splitlines()}
        file.write(json.dumps({**record, **about}) + "\n")
    print(json.dumps(record), flush=True)


class Curves:
    """The records of a task: what it came to, by arm, seed and minutes."""

    def __init__(self, task: str) -> None:
        self.records = [record for record in kept() if record["task"] == task]
        self.noisy = fmean(record["psnr_noisy"] for record in self.records)
        self.minutes = sorted({record["minutes"] for record in self.records})

    def arms(self) -> list[str]:
        return list(dict.fromkeys(record["arm"] for record in self.records))

    def at(self, arm: str, minutes: float) -> dict[int, dict[str, Any]]:
        """By seed."""
        records = (r for r in self.records if r["arm"] == arm and r["minutes"] == minutes)
        return {record["seed"]: record for record in sorted(records, key=lambda r: r["seed"])}

    def psnr(self, arm: str, minutes: float) -> dict[int, float]:
        """dB by seed."""
        return {seed: r["psnr_per_image"] for seed, r in self.at(arm, minutes).items()}

    def about(self) -> str:
        """Which commits were measured."""
        return f"pydenoise at {', '.join(sorted({record['commit'] for record in self.records}))}"


def targets_table(curves: Curves) -> str:
    def each(values: dict[int, float], form: str) -> str:
        found = [format(value, form) for value in values.values()]
        mean = format(fmean(values.values()), form)
        return mean if len(found) == 1 else f"{mean} ({', '.join(found)})"

    rows = []
    for arm in COLOURS:
        found = [curves.psnr(arm, minutes) for minutes in curves.minutes]
        gain = fmean(found[-1].values()) - curves.noisy
        rows.append([arm, *(each(values, ".2f") for values in found), f"{gain:+.2f}"])
    behind = []
    for minutes in curves.minutes:
        noisy, clean = (curves.psnr(f"{kind} targets", minutes) for kind in ("noisy", "clean"))
        behind.append(each({seed: noisy[seed] - clean[seed] for seed in noisy}, "+.2f"))
    rows.append(["noisy less clean", *behind, ""])
    titles = ["dB", *(f"{minutes:g} minutes" for minutes in curves.minutes), "gain"]
    return (
        f"Set14 at sigma 25, noisy input {curves.noisy:.2f} dB; mean (each seed); {curves.about()}."
        f"\n\n{tables.table(titles, rows)}"
    )


def pairs_table(curves: Curves) -> str:
    rows = []
    for arm in curves.arms():
        for minutes in curves.minutes:
            for record in curves.at(arm, minutes).values():
                gain = record["psnr_per_image"] - record["psnr_noisy"]
                rows.append(
                    [
                        *(arm, f"{record['weights']:,}", f"{record['seconds']:.0f}"),
                        *(f"{record['steps']:,}", f"{record['psnr_per_image']:.2f}"),
                        *(f"{gain:+.2f}", f"{record['psnr_global']:.2f}"),
                    ]
                )
    titles = ["", "weights", "seconds of a core", "steps of 16", "per-image dB", "gain"]
    table = tables.table([*titles, "global dB"], rows)
    return f"Noisy input {curves.noisy:.2f} dB; {curves.about()}.\n\n{table}"


def draw(path: Path, curves: Curves) -> None:
    """PSNR against minutes: a line through the means, a point for each seed."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for arm, colour in COLOURS.items():
        found = [curves.psnr(arm, minutes) for minutes in curves.minutes]
        means = [fmean(values.values()) for values in found]
        axes.plot(curves.minutes, means, color=colour, label=arm, linewidth=1.5)
        for minutes, values in zip(curves.minutes, found, strict=True):
            axes.plot([minutes] * len(values), list(values.values()), "o", color=colour, ms=4)
    axes.set_xticks(curves.minutes)
    axes.set_xlabel("minutes of two cores")
    axes.set_ylabel(f"PSNR, dB (noisy: {curves.noisy:.2f})")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)


def write_report() -> None:
    """The tables and the curve of what is kept."""
    targets = Curves("targets")
    draw(CURVE, targets)
    for name, text in {
        "unet-targets": targets_table(targets),
        "unet-pairs": pairs_table(Curves("pairs")),
    }.items():
        print(text)
        tables.fill(name, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["targets", "pairs", "report"])
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("evaluation", type=Path, nargs="?", help="a folder, for targets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", help="names of what is compared; all if omitted")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 30])
    arguments = parser.parse_args()
    folders = [folder for folder in (arguments.photographs, arguments.evaluation) if folder]
    if len(folders) != {"targets": 2, "pairs": 1, "report": 0}[arguments.task]:
        parser.error(
            "targets takes a folder of photographs and one to evaluate on, pairs takes one, report "
            "takes none"
        )
    if arguments.task == "report":
        return write_report()
    if arguments.task == "targets":
        arms, measure = target_arms(arguments.photographs), measure_on(arguments.evaluation)
    else:
        pictures = recipe.cached(arguments.photographs)
        noisy, clean = pictures.validation
        before = {"psnr_noisy": metrics.psnr_per_image(noisy, clean)}
        arms = pair_arms(pictures)

        def measure(model: nn.Module) -> dict[str, float]:
            return {**before, **inference.evaluate(model.eval(), noisy, clean)}

    arms = [arm for arm in arms if arguments.arms is None or arm.name in arguments.arms]
    compare(arguments.task, arms, measure, arguments.seeds, arguments.minutes)


if __name__ == "__main__":
    main()
