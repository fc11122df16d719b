"""What a training run leaves in its folder, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydenoise.cli.console import say

if TYPE_CHECKING:
    from torch import Tensor

    from pydenoise.checkpoint import Checkpoints
    from pydenoise.data import PairSource
    from pydenoise.nn import Module
    from pydenoise.training import TrainingResult

WEIGHTS, LOG, CURVE, CHECKPOINTS = "model.safetensors", "log.jsonl", "curve.png", "checkpoints"


def refuse_filled(out: Path, overwrite: bool, resume: bool) -> None:
    """Refuse a folder that holds anything, unless that is to be replaced or a run gone on with.

    Raises
    ------
    FileExistsError, NotADirectoryError
    """
    from pydenoise.checkpoint import Checkpoints

    is_run = resume and not Checkpoints(out / CHECKPOINTS).is_empty()
    is_begun = resume and not ((out / LOG).is_file() and (out / LOG).stat().st_size)
    begun = {LOG, CHECKPOINTS} if is_begun else set()  # by a run that came to no checkpoint
    names = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if names - begun and not (overwrite or is_run):
        raise FileExistsError(f"{out}: holds files; name another folder or pass --overwrite")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out}: is a file; name a folder for the result")


def write(
    out: Path,
    model: Module,
    result: TrainingResult,
    *,
    pairs: PairSource,
    validation: tuple[Tensor, Tensor] | None,
    checkpoints: Checkpoints,
    overwrite: bool,
) -> dict[str, Any]:
    """Weights and curve of a run that is through, into its folder; returns its summary."""
    from pydenoise import metrics, report
    from pydenoise.checkpoint import save_weights

    about = pairs.describe() | ({"origin": model.origin} if model.origin else {})
    save_weights(out / WEIGHTS, model, trained_on=json.dumps(about), overwrite=overwrite)
    best = checkpoints.best()
    if best is not None and best[0] < result.history[-1]["step"]:
        say(f"best on the pictures held out: {best[1]:.2f} dB, {checkpoints.path(best[0])}")
    noisy = metrics.psnr_per_image(*validation) if validation else None
    report.learning_curve(out / CURVE, result.history, noisy_psnr=noisy, overwrite=overwrite)
    return {
        "psnr_noisy": noisy,
        "psnr_denoised": result.final.get("psnr_per_image"),
        "psnr_noisy_global": metrics.psnr_global(*validation) if validation else None,
        "psnr_denoised_global": result.final.get("psnr_global"),
        "loss": result.history[-1]["loss"],
        "train_pairs": result.pictures,
        "train_seconds": result.seconds,
        "pictures_per_second": result.pictures_per_second,
        "weights": str(out / WEIGHTS),
        "log": str(out / LOG),
        "curve": str(out / CURVE),
    }
