"""`train --from`: a network that has learned before, by the name of its weights or the one that
ships."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pydenoise import builtin, tiles
from pydenoise.checkpoint import load_weights
from pydenoise.cli.console import say

if TYPE_CHECKING:
    from pydenoise.data import PairSource
    from pydenoise.nn import Module

BUILTIN = "builtin"
_LOOKED_AT = 8


def network(name: str, pairs: PairSource, out: Path) -> Module:
    """The network to learn on with from these pairs, for a run that fills the folder `out`."""
    if name == BUILTIN:
        _say_where_gray(pairs)
        return builtin.trainable(pairs.channels)
    path = Path(name)
    if not name or not path.exists():
        raise FileNotFoundError(
            f"--from {name!r}: no such file; name a model.safetensors, a checkpoint's JSON, or "
            f"{BUILTIN}, the network that ships"
        )
    if path.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"--from {path}: lies in {out}, which the run is to fill; move it, or name another "
            "folder for the result"
        )
    model, header = load_weights(path)
    if model.predicts_noise:
        raise ValueError(
            f"{path}: predicts noise, and pairs teach pictures; give weights that `train` made, or "
            f"{BUILTIN}, the network that ships"
        )
    taken = tiles.channels(model)
    if taken != pairs.channels:
        raise ValueError(
            f"{path}: takes pictures of {taken} channels, those to learn from have "
            f"{pairs.channels}; give other weights, or none"
        )
    if not model.flatten().data.isfinite().all():
        raise ValueError(f"{path}: holds weights that are not finite; give others")
    model.origin = header["sha256"]
    return model.to(dtype=torch.float32)


def _say_where_gray(pairs: PairSource) -> None:
    first, _ = pairs.batch(np.arange(min(len(pairs), _LOOKED_AT)), 0)
    if first.shape[1] == 3 and torch.equal(first, first[:, :1].expand_as(first)):
        say(
            "the pictures are gray, saved as RGB, and the network for RGB learns on; save them as "
            "gray to have the one for gray, which knows such noise better"
        )
