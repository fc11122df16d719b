"""Every backward against differences of its forward, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from conftest import Place
from layers import CASES, LayerCase
from torch import Tensor

from pydenoise import models, nn
from pydenoise.objectives import Noise2Noise

STEP = 1e-5
ELEMENTS = 10


def directions(tensor: Tensor) -> Iterator[Tensor]:
    """All elements of a small tensor one by one, some of a larger one, and all at once."""
    generator = torch.Generator().manual_seed(tensor.numel())
    yield torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator).to(tensor.device)
    for i in torch.randperm(tensor.numel(), generator=generator)[:ELEMENTS]:
        direction = tensor.new_zeros(tensor.shape)
        direction.view(-1)[i] = 1
        yield direction


def assert_slopes(grad: Tensor, value: Callable[[], float], tensor: Tensor, what: str) -> None:
    """The gradient is the central difference of `value`, which reads the tensor."""
    here = tensor.clone()
    for direction in directions(tensor):
        sides = []
        for step in (STEP, -STEP):
            tensor.copy_(here + step * direction)
            sides.append(value())
        tensor.copy_(here)
        slope = (sides[0] - sides[1]) / (2 * STEP)
        assert float((grad * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9), what


@pytest.mark.parametrize("case", CASES, ids=str)
def test_layer(case: LayerCase, place: Place, algorithm: str) -> None:
    layer, _ = case.twins(torch.float64)
    layer.to(place.device)
    input = place.put(case.draw())
    output = layer(input)
    generator = torch.Generator().manual_seed(5)
    grad_output = place.put(torch.randn(output.shape, dtype=torch.float64, generator=generator))
    grad_input = layer.backward(grad_output)
    layer.eval()

    def value() -> float:
        return float((layer(input) * grad_output).sum())

    assert_slopes(grad_input, value, input, "grad_input")
    for name, parameter in layer.named_parameters():
        assert_slopes(parameter.grad, value, parameter.data, name)


@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.L1Loss(), nn.AnnealedL0Loss(1.5), nn.AnnealedL0Loss(0.25)],
    ids=["mse", "l1", "l0 early", "l0 late"],
)
def test_loss(loss: nn.Loss, place: Place) -> None:
    generator = torch.Generator().manual_seed(6)
    input, target = place.put(torch.rand(2, 2, 3, 4, 5, dtype=torch.float64, generator=generator))
    loss(input, target)
    grad = loss.backward()
    loss.eval()
    assert_slopes(grad, lambda: loss(input, target), input, "grad_input")
    assert_slopes(-grad, lambda: loss(input, target), target, "minus the gradient of the target")
    loss.train()


def test_whole_autoencoder(place: Place, algorithm: str) -> None:
    """Each weight of the network of Table I, narrower, through the objective."""
    generator = torch.Generator().manual_seed(7)
    model = models.autoencoder((3, 4), in_channels=2, seed=3).to(torch.float64)
    for parameter in model.parameters():
        # Wider than at the start of training, where the gradients of the first layer vanish.
        shape = parameter.data.shape
        parameter.data = 0.4 * torch.randn(shape, dtype=torch.float64, generator=generator)
    model.to(place.device)
    source, target = place.put(torch.rand(2, 2, 2, 8, 8, dtype=torch.float64, generator=generator))
    Noise2Noise().step(model, source, target)
    loss = nn.MSELoss().eval()
    model.eval()
    for name, parameter in model.named_parameters():
        assert_slopes(parameter.grad, lambda: loss(model(source), target), parameter.data, name)
