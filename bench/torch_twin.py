"""Table I of the report as a torch user writes it: what this package is measured against."""

from __future__ import annotations

from typing import Any

from torch import nn


def table_one() -> Any:
    """The layers of `pydenoise.models.autoencoder()`, with its names in the state dict."""
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(48, 96, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(96, 48, 3, 2, 1, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(48, 3, 3, 2, 1, 1),
        nn.Sigmoid(),
    )
