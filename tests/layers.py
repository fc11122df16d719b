"""The named layers: each of ours beside torch's, with an input; one list for every test of `nn`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from pydenoise import nn


class TorchSkip(torch.nn.Module):
    """`nn.Skip`, by autograd."""

    def __init__(self, branch: torch.nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([self.branch(input), input], dim=1)


class TorchResidual(TorchSkip):
    """`nn.Residual`, by autograd."""

    def forward(self, input: Tensor) -> Tensor:
        return input + self.branch(input)


class TorchShift(torch.nn.Module):
    """`nn.Shift`, by autograd."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return input + self.value


class LayerCase(NamedTuple):
    """A layer of ours and of torch's, made from the two name spaces, and the size of an input."""

    name: str
    make: Callable[[], nn.Module]
    make_torch: Callable[[], torch.nn.Module]
    size: tuple[int, ...]

    def __str__(self) -> str:
        return self.name

    def draw(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        """An input whose elements keep their distance from each other and from zero, so that a
        small step crosses no kink; the same for a case of this name wherever it runs."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        count = torch.Size(self.size).numel()
        order = torch.randperm(count, generator=generator).double()
        return ((order + 0.25) / max(count, 1) * 4 - 2).view(self.size).to(dtype)

    def twins(self, dtype: torch.dtype) -> tuple[nn.Module, torch.nn.Module]:
        """Ours and torch's with the same weights, in one dtype."""
        ours, theirs = self.make().to(dtype), self.make_torch().to(dtype)
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        for parameter in ours.parameters():
            shape = parameter.data.shape
            values = torch.randn(shape, dtype=torch.float64, generator=generator)
            parameter.data = values / max(1, values[0].numel()) ** 0.5
        theirs.load_state_dict(ours.state_dict())
        return ours, theirs


def _both(
    name: str, size: tuple[int, ...], layer: str, *arguments: object, **keywords: object
) -> LayerCase:
    def make() -> nn.Module:
        return getattr(nn, layer)(*arguments, **keywords)

    def make_torch() -> torch.nn.Module:
        return getattr(torch.nn, layer)(*arguments, **keywords)

    return LayerCase(name, make, make_torch, size)


def _network(space: object, skip: Callable[..., object]) -> object:
    """A U-shaped network with a skip inside a skip, out of either name space."""
    s: object = space
    deep = s.Sequential(s.Conv2d(4, 5, 3, padding=1), s.LeakyReLU(0.1))
    inner = s.Sequential(
        s.AvgPool2d(2), skip(deep), s.Conv2d(9, 4, 1), s.Upsample(scale_factor=2), s.ReLU()
    )
    middle = s.Sequential(s.Conv2d(3, 4, 3, padding=1), s.Sigmoid(), inner)
    return s.Sequential(skip(middle), s.ConvTranspose2d(7, 3, 3, padding=1))


# fmt: off
CASES = [
    _both("conv", (2, 3, 7, 6), "Conv2d", 3, 4, 3, padding=1),
    _both("conv-strided", (2, 3, 8, 7), "Conv2d", 3, 4, 3, 2, 1),
    _both("conv-asymmetric", (2, 4, 9, 8), "Conv2d", 4, 6, (3, 2), (1, 2), (2, 1), (2, 3), 2),
    _both("conv-no-bias", (2, 3, 5, 5), "Conv2d", 3, 2, 3, bias=False),
    _both("conv-depthwise", (1, 4, 6, 5), "Conv2d", 4, 4, 3, padding=1, groups=4),
    _both("transposed", (2, 4, 4, 5), "ConvTranspose2d", 4, 3, 3, 2, 1, 1),
    _both("transposed-plain", (2, 3, 4, 5), "ConvTranspose2d", 3, 2, 3, bias=False),
    _both("transposed-asymmetric", (2, 4, 4, 3),
          "ConvTranspose2d", 4, 6, (3, 2), (3, 2), (1, 0), (2, 1), 2, True, (1, 2)),
    _both("transposed-padded-over-stride", (2, 3, 4, 5),
          "ConvTranspose2d", 3, 4, 2, (1, 2), 0, (2, 3), 1, True, (3, 4)),
    _both("relu", (2, 3, 4, 5), "ReLU"),
    _both("relu-of-a-vector", (7,), "ReLU"),
    _both("leaky-relu", (2, 3, 4, 5), "LeakyReLU", 0.2),
    _both("sigmoid", (2, 3, 4, 5), "Sigmoid"),
    _both("max-pool", (2, 3, 6, 8), "MaxPool2d", 2),
    _both("max-pool-overlapping", (2, 3, 7, 6), "MaxPool2d", 3, 2, 1),
    _both("avg-pool", (2, 3, 6, 8), "AvgPool2d", 2),
    _both("avg-pool-overlapping", (2, 3, 7, 6), "AvgPool2d", (3, 2), (2, 1), (1, 0)),
    _both("upsample", (2, 3, 3, 4), "Upsample", scale_factor=2),
    LayerCase("upsample-asymmetric", lambda: nn.Upsample((2, 3)),
              lambda: torch.nn.Upsample(scale_factor=(2, 3)), (2, 3, 3, 4)),
    _both("unfold", (2, 3, 6, 7), "Unfold", (3, 2), 1, 1, 2),
    _both("fold", (2, 12, 20), "Fold", (5, 6), 2),
    LayerCase("skip", lambda: nn.Skip(nn.Conv2d(3, 2, 3, padding=1)),
              lambda: TorchSkip(torch.nn.Conv2d(3, 2, 3, padding=1)), (2, 3, 5, 4)),
    LayerCase("skip-around-nothing", lambda: nn.Skip(nn.Sequential()),
              lambda: TorchSkip(torch.nn.Sequential()), (2, 3, 5, 4)),
    LayerCase("residual", lambda: nn.Residual(nn.Conv2d(3, 3, 3, padding=1)),
              lambda: TorchResidual(torch.nn.Conv2d(3, 3, 3, padding=1)), (2, 3, 5, 4)),
    LayerCase("shift", lambda: nn.Shift(-0.5), lambda: TorchShift(-0.5), (2, 3, 5, 4)),
    LayerCase("network", lambda: _network(nn, nn.Skip),
              lambda: _network(torch.nn, TorchSkip), (2, 3, 4, 6)),
]
# fmt: on

BY_NAME = {case.name: case for case in CASES}
WITH_PARAMETERS = [case for case in CASES if any(True for _ in case.make().parameters())]
CONVOLUTIONS = [case for case in CASES if case.name.startswith(("conv", "transposed"))]


def autoencoder_of_torch(channels: tuple[int, ...] = (48, 96), in_channels: int = 3) -> object:
    """Table I of the report in torch's layers, of any width and depth."""
    down = [in_channels, *channels]
    layers: list[torch.nn.Module] = []
    for i in range(len(channels)):
        layers += [torch.nn.Conv2d(down[i], down[i + 1], 3, 2, 1), torch.nn.ReLU()]
    for i in range(len(channels), 0, -1):
        layers += [torch.nn.ConvTranspose2d(down[i], down[i - 1], 3, 2, 1, 1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Sigmoid())


def unet_of_torch(channels: int, width: int, depth: int, residual: bool) -> torch.nn.Module:
    """`models.unet` in torch's layers."""
    t = torch.nn

    def convolved(*widths: int) -> list[torch.nn.Module]:
        layers: list[torch.nn.Module] = []
        for i in range(len(widths) - 1):
            layers += [t.Conv2d(widths[i], widths[i + 1], 3, padding=1), t.LeakyReLU(0.1)]
        return layers

    def below(level: int, given: int) -> torch.nn.Module:
        layers = convolved(*((given, width) if level else (given, width, width)))
        layers.append(t.MaxPool2d(2))
        if level + 1 < depth:
            layers.append(TorchSkip(below(level + 1, width)))
            layers += convolved(given_back(level + 1) + width, 2 * width, 2 * width)
        else:
            layers += convolved(width, width)
        return t.Sequential(*layers, t.Upsample(scale_factor=2))

    def given_back(level: int) -> int:
        return 2 * width if level + 1 < depth else width

    head = convolved(given_back(0) + channels, 4 * width // 3, 2 * width // 3)
    last = t.Conv2d(2 * width // 3, channels, 3, padding=1)
    body = [TorchShift(-0.5), TorchSkip(below(0, channels)), *head, last]
    if residual:
        return TorchResidual(t.Sequential(*body))
    return t.Sequential(*body, TorchShift(0.5))


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """torch's global random state is at the end what it was before."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state()), "torch's global random state has changed"


def assert_near(ours: Tensor, theirs: Tensor, what: str, factor: float = 1) -> None:
    """Equal up to rounding, measured against the largest element."""
    tolerance = {torch.float32: 2e-6, torch.float64: 4e-15}[ours.dtype] * factor
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), what
    if ours.numel():
        ours, theirs = ours.cpu(), theirs.cpu()
        error = (ours - theirs).abs().max() / theirs.abs().max().clamp_min(1)
        assert error <= tolerance, f"{what}: {error:.2e} over {tolerance:.0e}"
