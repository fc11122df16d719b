"""Noisy pairs that cost nothing to make, and an optimizer that is watched, for training tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pydenoise import memory, nn, optim
from pydenoise.data import PairSource
from pydenoise.data.pairs import Batch, Indices


class Scenes(PairSource):
    """Noisy pairs of random flat scenes, drawn from the index alone; keeps who was asked for."""

    def __init__(self, length: int = 40, noise: float = 0.1) -> None:
        self.shape = (3, 8, 8)
        self.noise = noise
        self.asked: list[tuple[int, list[int]]] = []
        self._length = length

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Indices, epoch: int) -> Batch:
        self.asked.append((epoch, indices.tolist()))
        pairs = [self._pair(index) for index in indices.tolist()]
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(index)
        clean = torch.rand(3, 1, 1, generator=draw).expand(self.shape)
        noise = self.noise * torch.randn(2, *self.shape, generator=draw)
        return clean + noise[0], clean + noise[1]

    def describe(self) -> dict[str, Any]:
        return {}


class Watched(optim.SGD):
    """SGD that keeps the rate and the weights of every step."""

    def __init__(self, model: nn.Module, lr: float, **options: Any) -> None:
        super().__init__(model, lr, **options)
        self.rates: list[float] = []
        self.weights: list[Tensor] = []
        self.allocations: list[int] = []
        self.model = model

    def step(self) -> None:
        super().step()
        self.rates.append(self.lr)
        self.weights.append(self.model.flatten().data.clone())
        self.allocations.append(memory.allocations())
