"""The report's "further improvements", one factor at a time from the best recipe.

    python bench/ablation.py PHOTOGRAPHS [--jobs 2]

Two epochs of the report's experiment (recipe.py), three seeds for each variant. Every run is one
line of bench/results/ablation.jsonl, written when it ends; runs that stand there are not repeated,
so the script goes on where it stopped. Each job trains with one thread. At the end the table of
RESULTS.md is written between its markers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import recipe
import tables
import torch
from recipe import BEST, Recipe

from pydenoise import metrics

RESULTS = tables.RESULTS / "ablation.jsonl"
EPOCHS, SEEDS = 2, (0, 1, 2)

VARIANTS: dict[str, Recipe] = {
    "the best recipe": BEST,
    "channels 24-48": replace(BEST, channels=(24, 48)),
    "channels 96-192": replace(BEST, channels=(96, 192)),
    "rate 1e-3": replace(BEST, lr=1e-3),
    "rate 1e-2": replace(BEST, lr=1e-2),
    "constant rate": replace(BEST, schedule="constant"),
    "no momentum (beta1 = 0)": replace(BEST, momentum=0.0),
    "SGD, rate 1, momentum 0.9": replace(BEST, optimizer="sgd", lr=1.0),
    "SGD, rate 1, no momentum": replace(BEST, optimizer="sgd", lr=1.0, momentum=0.0),
    "Kaiming init": replace(BEST, init="kaiming_normal"),
    "Xavier init": replace(BEST, init="xavier_uniform"),
    "no augmentation": replace(BEST, augment=False),
    "no source/target swap": replace(BEST, swap=False),
    "no weight averaging": replace(BEST, average=0.0),
}


def _finished() -> dict[tuple[str, int], dict[str, Any]]:
    if not RESULTS.exists():
        return {}
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    return {
        (line["variant"], line["seed"]): line
        for line in lines
        if VARIANTS.get(line["variant"]) is not None
        and line["recipe"] == json.loads(json.dumps(vars(VARIANTS[line["variant"]])))
    }


def _one(job: tuple[str, str, int]) -> dict[str, Any]:
    folder, variant, seed = job
    torch.set_num_threads(1)
    pictures = recipe.cached(Path(folder))
    _, result = recipe.run(pictures, VARIANTS[variant], epochs=EPOCHS, seed=seed)
    noisy = metrics.psnr_per_image(*pictures.validation)
    return {
        "variant": variant,
        "seed": seed,
        "recipe": vars(VARIANTS[variant]),
        "noisy_per_image": noisy,
        "gain_per_image": result.final["psnr_per_image"] - noisy,
        **result.final,
        "seconds": result.seconds,
    }


def table(runs: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Mean gain and spread (largest minus smallest) over the seeds, as Markdown."""
    rows = [
        "| variant | gain, dB per-image | spread | against the best |",
        "| --- | --- | --- | --- |",
    ]
    best = statistics.mean(runs["the best recipe", seed]["gain_per_image"] for seed in SEEDS)
    for variant in VARIANTS:
        gains = [runs[variant, seed]["gain_per_image"] for seed in SEEDS]
        mean = statistics.mean(gains)
        spread = max(gains) - min(gains)
        rows.append(f"| {variant} | {mean:.2f} | {spread:.2f} | {mean - best:+.2f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, one thread each")
    arguments = parser.parse_args()
    recipe.cached(arguments.photographs)
    runs = _finished()
    missing = [
        (str(arguments.photographs), variant, seed)
        for seed in SEEDS
        for variant in VARIANTS
        if (variant, seed) not in runs
    ]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with (
        multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool,
        RESULTS.open("a", encoding="utf-8") as file,
    ):
        for number, line in enumerate(pool.imap_unordered(_one, missing), 1):
            runs[line["variant"], line["seed"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(
                f"{number}/{len(missing)} {line['variant']}, seed {line['seed']}: "
                f"{line['gain_per_image']:+.2f} dB in {line['seconds']:.0f} s",
                flush=True,
            )
    text = table(runs)
    tables.fill("ablation", text)
    print(text)


if __name__ == "__main__":
    main()
