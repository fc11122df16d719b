"""The networks of the benchmark as a torch user writes them: what this package is measured against.

Their names in the state dict are those of our networks.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def table_one() -> Any:
    """The layers of `pydenoise.models.autoencoder()`."""
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


def zero_shot() -> Any:
    """The network that learns to denoise from one picture alone."""
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(48, 48, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(48, 3, 1),
    )


NETWORKS = {"table_one": table_one, "zero_shot": zero_shot}
