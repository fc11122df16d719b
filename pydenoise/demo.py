"""The demonstration: learn from noisy photographs, show what that does to two never seen.

Photographs come with scikit-image. Training sees pairs of two independent noisy draws of crops,
never a clean picture; two photographs are held back whole to measure on and to look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from pydenoise import data, inference, metrics, models, nn, objectives, ops, optim, report
from pydenoise.atomic import new_folder
from pydenoise.checkpoint import save_weights
from pydenoise.training import Record, train

HELD_BACK = ("chelsea", "rocket")

# An epoch is short, so that the time limit finds a place to bend the schedule on a slow machine.
CROP = 32
CROPS_PER_EPOCH = 2_000
EPOCHS = 32
BATCH_SIZE = 16
LEARNING_RATE = 6e-3
AVERAGE = 0.999
VALIDATION_CROPS = 256
MARGIN_SECONDS = 3.0


def run(
    folder: str | PathLike[str],
    *,
    noise: str = "gauss:25",
    seconds: float = 60.0,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Record], None] | None = None,
) -> dict[str, Any]:
    """Train the report's network on noisy photographs, measure it, and write pictures.

    Parameters
    ----------
    folder : path
        Made for the pictures, the learning curve and the weights.
    noise : str
        As `pydenoise.data.parse` reads it; its own loss is minimised.
    seconds : float
        Training ends within this time, on slow machines by a shorter schedule. Where the time is
        not needed, equal seeds give equal results.
    seed : int
        Fixes weights, crops, noise and order.
    overwrite : bool
        Whether files of an earlier run in `folder` may be replaced.
    progress : callable, optional
        Watches the training; see `pydenoise.training.train`.

    Returns
    -------
    dict
        The measures of `pydenoise.metrics.compare` on the held-back photographs, whole;
        `pictures_per_second`, `train_seconds` and `train_pairs` of the training; `noise`, `seed`,
        `backend`, `isa` and the `files` written.

    Raises
    ------
    ValueError
        When the noise cannot be read.
    FileExistsError, NotADirectoryError
        When the folder exists and nothing may be replaced, or is a file.
    TrainingDiverged
        When training fails.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is a file; name a folder")
    if folder.exists() and not overwrite:
        raise FileExistsError(
            f"{folder}: exists; name another folder with --out, or pass --overwrite"
        )
    noise_model = data.parse(noise)
    photographs = data.sample_photographs()
    seen = [picture for name, picture in photographs.items() if name not in HELD_BACK]
    held_back = [photographs[name] for name in HELD_BACK]
    pairs = data.NoisyCrops(seen, noise_model, CROP, length=CROPS_PER_EPOCH, seed=seed)
    validation = data.validation_crops(held_back, noise_model, VALIDATION_CROPS, CROP, seed)
    model = models.autoencoder(seed=seed)
    with new_folder(folder):
        result = train(
            model,
            pairs,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            optimizer=optim.Adam(model, lr=LEARNING_RATE),
            schedule=optim.cosine(),
            objective=objectives.Noise2Noise(nn.LOSSES[noise_model.loss]()),
            validation=validation,
            average=AVERAGE,
            seed=seed,
            progress=progress,
            time_limit=max(seconds - MARGIN_SECONDS, seconds / 2),
        )
        scenes = [
            metrics.Scene(noisy, inference.denoise(model, noisy), clean)
            for noisy, clean in data.noisy_pictures(held_back, noise_model, seed)
        ]
        files = [folder / f"{name}.png" for name in HELD_BACK]
        for path, scene in zip(files, scenes, strict=True):
            _before_after(path, scene, overwrite)
        files += [folder / "learning_curve.png", folder / "model.safetensors"]
        report.learning_curve(
            files[-2],
            result.history,
            noisy_psnr=metrics.psnr_per_image(*validation),
            validated_on=f"{VALIDATION_CROPS} crops of {' and '.join(HELD_BACK)}",
            overwrite=overwrite,
        )
        trained_on = json.dumps(pairs.describe())
        save_weights(files[-1], model, trained_on=trained_on, overwrite=overwrite)
    return metrics.compare(scenes) | {
        "pictures_per_second": result.pictures_per_second,
        "train_seconds": result.seconds,
        "train_pairs": result.pictures,
        "noise": noise,
        "seed": seed,
        **ops.running(),
        "files": [str(path) for path in files],
    }


def _before_after(path: Path, scene: metrics.Scene, overwrite: bool) -> None:
    report.before_after(
        path,
        [(title, data.to_array(picture)) for title, picture in scene._asdict().items()],
        captions=[
            f"PSNR {metrics.psnr_per_image(scene.noisy, scene.clean):.2f} dB",
            f"PSNR {metrics.psnr_per_image(scene.denoised, scene.clean):.2f} dB",
            "never shown to the network",
        ],
        overwrite=overwrite,
    )
