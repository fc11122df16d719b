"""The report's own experiment, beside torch: ten epochs over 50,000 point-sampled pairs.

    python bench/experiment.py PHOTOGRAPHS [--weights]

Three trainings of Table I (recipe.py): the report's settings with this package, the same with
torch's autograd from the same weights over the same batches, and the best recipe found. Each is
kept in bench/results/experiment.json when it ends and not repeated; at the end README.md gets the
table. With --weights the network of the best recipe becomes the one that
`ee559.Model.load_pretrained_model` loads, and draws the figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import recipe
import tables
import torch
import torch_twin
from recipe import BEST, REPORT, Pictures

from pydenoise import checkpoint, data, ee559, inference, metrics, models, nn, ops, report

RESULTS = tables.RESULTS / "experiment.json"
FIGURE = tables.RESULTS / "report.png"
MODEL = recipe.CACHE / "best.safetensors"
EPOCHS, SEED = 10, 0


def with_torch(pictures: Pictures) -> dict[str, Any]:
    """The report's settings by torch's layers, autograd and optimizer."""
    twin = torch_twin.table_one()
    twin.load_state_dict(models.autoencoder(seed=SEED).state_dict())
    optimizer = torch.optim.SGD(twin.parameters(), lr=REPORT.lr)
    pairs = recipe.source(pictures, REPORT, SEED)
    began = time.perf_counter()
    for epoch in range(EPOCHS):
        order = data.generator(SEED, epoch, 0, "order").permutation(len(pairs))
        for start in range(0, len(order), REPORT.batch_size):
            source, target = pairs.batch(order[start : start + REPORT.batch_size], epoch)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(twin(source), target).backward()
            optimizer.step()
    seconds = time.perf_counter() - began
    noisy, clean = pictures.validation
    with torch.no_grad():
        output = twin(noisy)
    return {
        "psnr_per_image": metrics.psnr_per_image(output, clean),
        "psnr_global": metrics.psnr_global(output, clean),
        "pictures_per_second": EPOCHS * len(pairs) / seconds,
        "seconds": seconds,
    }


def with_ours(pictures: Pictures, settings: recipe.Recipe, keep: Path | None) -> dict[str, Any]:
    """One of the recipes by this package."""
    model, result = recipe.run(pictures, settings, epochs=EPOCHS, seed=SEED)
    if keep is not None:
        checkpoint.save_weights(
            keep,
            model,
            trained_on=f"{recipe.PAIRS} point-sampled pairs (blocks of {recipe.BLOCK} pixels) of "
            f"{pictures.photographs} photographs, {EPOCHS} epochs: bench/experiment.py",
            overwrite=True,
        )
    return {
        **result.final,
        "pictures_per_second": result.pictures_per_second,
        "seconds": result.seconds,
    }


def table(results: dict[str, Any]) -> str:
    noisy = results["noisy input"]
    rows = [
        "| | per-image dB | gain | global dB | gain | pictures/s | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| noisy input | {noisy['psnr_per_image']:.2f} | | {noisy['psnr_global']:.2f} | | | |",
    ]
    for name, run in results.items():
        if name not in ("noisy input", "environment"):
            gains = [run[key] - noisy[key] for key in ("psnr_per_image", "psnr_global")]
            rows.append(
                f"| {name} | {run['psnr_per_image']:.2f} | {gains[0]:+.2f} | "
                f"{run['psnr_global']:.2f} | {gains[1]:+.2f} | "
                f"{run['pictures_per_second']:.0f} | {run['seconds']:.0f} |"
            )
    return "\n".join(rows)


def figure(model: nn.Module) -> None:
    """Fig. 1 of the report on scikit-image's photographs, none of which was trained on."""
    photographs = data.sample_photographs()
    names = ("astronaut", "coffee", "chelsea")
    scenes = data.noisy_pictures([photographs[n] for n in names], data.PointSample(recipe.BLOCK))
    rows = [(noisy, inference.denoise(model, noisy), clean) for noisy, clean in scenes]
    columns = zip(*rows, strict=True)
    captions = [
        [f"PSNR {metrics.psnr_per_image(row[i], row[2]):.2f} dB" for row in rows] for i in range(2)
    ]
    report.before_after(
        FIGURE,
        [
            (title, [data.to_array(picture) for picture in column])
            for title, column in zip(("noisy", "denoised", "clean"), columns, strict=True)
        ],
        captions=[*captions, [""] * len(rows)],
        overwrite=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--weights", action="store_true", help="ship the best network")
    arguments = parser.parse_args()
    pictures = recipe.cached(arguments.photographs)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["noisy input"] = {
        "psnr_per_image": metrics.psnr_per_image(*pictures.validation),
        "psnr_global": metrics.psnr_global(*pictures.validation),
    }
    results["environment"] = {"config": ops.show_config().splitlines(), "best": asdict(BEST)}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "(a) the report's settings": lambda: with_ours(pictures, REPORT, None),
        "(a) by torch's autograd": lambda: with_torch(pictures),
        "(b) the best recipe": lambda: with_ours(pictures, BEST, MODEL),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        if name not in results:
            results[name] = part()
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {results[name]}", flush=True)
    text = table(results)
    tables.fill("experiment", text)
    print(text)
    if arguments.weights:
        ee559.WEIGHTS.parent.mkdir(exist_ok=True)
        ee559.WEIGHTS.write_bytes(MODEL.read_bytes())
        figure(checkpoint.load_weights(ee559.WEIGHTS)[0])


if __name__ == "__main__":
    main()
