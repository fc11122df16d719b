"""One training step: what it does to large batches, and to what it cannot take."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pydenoise import models, nn
from pydenoise.objectives import Noise2Noise


class SumOfSquares(nn.Loss):
    """A loss of the user's that is no mean over the pictures."""

    def _value(self, input: Tensor, target: Tensor) -> float:
        return float((input - target).square().sum())

    def _gradient(self, input: Tensor, target: Tensor, grad_output: float) -> Tensor:
        return 2 * grad_output * (input - target)


class MeanOfBatch(nn.Module):
    """A layer of the user's that mixes the pictures of a batch."""

    def forward(self, input: Tensor) -> Tensor:
        self._keep(input)
        return input - input.mean(dim=0)

    def backward(self, grad_output: Tensor) -> Tensor:
        self._recall(grad_output)
        return grad_output - grad_output.mean(dim=0)


def step_and_whole(model: nn.Module, loss: nn.Loss, batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    source, target = torch.rand(2, batch, 3, 32, 32, generator=generator, dtype=torch.float64)
    model.to(torch.float64)
    value = Noise2Noise(loss).step(model, source, target)
    stepped = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    whole = loss.forward(model.forward(source), target)
    model.backward_parameters(loss.backward())
    assert value == pytest.approx(whole, rel=1e-12)
    for parameter, grad in zip(model.parameters(), stepped, strict=True):
        scale = parameter.grad.abs().max()
        assert (parameter.grad - grad).abs().max() <= 1e-12 * scale, parameter.name


@pytest.mark.parametrize("batch", [1, 32, 33, 64, 71, 100])
@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, SumOfSquares])
def test_parts_of_a_batch_add_up(batch: int, loss: type[nn.Loss]) -> None:
    step_and_whole(models.autoencoder((4, 6), seed=1), loss(), batch)


def test_a_layer_that_mixes_pictures_gets_them_all() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), MeanOfBatch(), nn.Conv2d(4, 3, 3, 1, 1))
    step_and_whole(model, nn.MSELoss(), 70)


@pytest.mark.parametrize("wrong", [None, [1.0], "picture"])
def test_what_is_no_tensor_is_refused_by_the_first_layer(wrong: object) -> None:
    model = models.autoencoder((4,), seed=0)
    with pytest.raises(TypeError, match="conv2d: input must be a torch tensor"):
        Noise2Noise().step(model, wrong, torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match="conv2d: input must be a torch tensor"):
        model(wrong)


def test_a_pickled_container_plans_anew() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU())
    model(torch.rand(1, 2, 4, 4))
    model.append(nn.Conv2d(3, 5, 1))
    loaded = pickle.loads(pickle.dumps(model))
    nn.Module.changes = model._planned[0]  # as in another process that has come as far
    assert loaded(torch.rand(1, 2, 4, 4)).shape[1] == 5


def test_threads_that_meet_in_a_fresh_container() -> None:
    x = torch.rand(1, 3, 4, 4)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(150):
                model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
                outputs = list(pool.map(model, [x] * 4))
                assert all(output.shape[1] == 4 for output in outputs)
    finally:
        sys.setswitchinterval(before)
