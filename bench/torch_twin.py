"""The networks of the benchmark as a torch user writes them: what this package is measured against.

Their names in the state dict are those of our networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def table_one(outer: int = 48, inner: int = 96) -> Any:
    """The layers of `pydenoise.models.autoencoder((outer, inner))`."""
    return nn.Sequential(
        nn.Conv2d(3, outer, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(outer, inner, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(inner, outer, 3, 2, 1, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(outer, 3, 3, 2, 1, 1),
        nn.Sigmoid(),
    )


def zero_shot(channels: int = 3) -> Any:
    """The network that learns to denoise from one picture alone."""
    return nn.Sequential(
        nn.Conv2d(channels, 48, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(48, 48, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(48, channels, 1),
    )


NETWORKS: dict[str, Callable[[], Any]] = {
    "table_one": table_one,
    "table_one, 2 channels": partial(table_one, 2, 2),
    "zero_shot": zero_shot,
}
