"""Optimizer updates against torch's own optimizers, over steps that carry state."""

from __future__ import annotations

import pytest
import torch
from conftest import Place, Room
from torch import Tensor

from pydenoise import ops

STEPS = 6
LENGTHS = [1, 7, 16, 33, 70, 20_011]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14}

SGD = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "weight_decay": 0.1, "dampening": 0.5},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
]
ADAM = [
    {},
    {"betas": (0.5, 0.7)},
    {"eps": 0.1},
    {"weight_decay": 0.1},
]


def named(options: dict[str, object]) -> str:
    return ",".join(f"{key}={value}" for key, value in options.items()) or "plain"


def drawn(length: int, dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(length, dtype=torch.float64, generator=generator).to(dtype)


def in_room(x: Tensor, place: Place) -> Room:
    room = Room(x.shape, x.dtype, torch.contiguous_format, place.device)
    room.tensor.copy_(x)
    return room


def assert_follows(weights: Tensor, theirs: Tensor, what: object) -> None:
    tolerance = TOLERANCE[weights.dtype]
    torch.testing.assert_close(
        weights.cpu().double(), theirs, rtol=tolerance, atol=tolerance, msg=lambda m: f"{what}: {m}"
    )


@pytest.mark.parametrize("options", SGD, ids=named)
def test_sgd(options: dict[str, float], place: Place, dtype: torch.dtype) -> None:
    for length in LENGTHS:
        start = drawn(length, dtype, seed=length)
        theirs = start.double().requires_grad_()
        optimizer = torch.optim.SGD([theirs], lr=0.3, **options)
        ours = in_room(start, place)
        buffer = in_room(torch.full_like(start, torch.nan), place)
        rule = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False} | options
        for step in range(STEPS):
            grad = drawn(length, dtype, seed=1000 + step)
            theirs.grad = grad.double()
            optimizer.step()
            velocity = buffer.tensor if rule["momentum"] else None
            here = in_room(grad, place).tensor
            ops.sgd_step(ours.tensor, here, velocity, lr=0.3, first=step == 0, **rule)
            assert_follows(ours.tensor, theirs.detach(), f"{length} elements, step {step}")
            assert torch.equal(here.cpu(), grad)
        ours.assert_untouched_around()
        buffer.assert_untouched_around()


@pytest.mark.parametrize("decoupled", [False, True], ids=["adam", "adamw"])
@pytest.mark.parametrize("options", ADAM, ids=named)
def test_adam(options: dict[str, float], decoupled: bool, place: Place, dtype: torch.dtype) -> None:
    for length in LENGTHS:
        start = drawn(length, dtype, seed=length)
        theirs = start.double().requires_grad_()
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        options = {"weight_decay": 0.0, "eps": 1e-8, "betas": (0.9, 0.999)} | options
        optimizer = kind([theirs], lr=0.05, **options)
        rule = {k: v for k, v in options.items() if k != "betas"}
        rule["beta1"], rule["beta2"] = options["betas"]
        ours, mean, square = (in_room(x, place) for x in (start, start * 0, start * 0))
        for step in range(1, STEPS + 1):
            grad = drawn(length, dtype, seed=1000 + step)
            theirs.grad = grad.double()
            optimizer.step()
            here = in_room(grad, place).tensor
            state = ours.tensor, here, mean.tensor, square.tensor
            ops.adam_step(*state, lr=0.05, decoupled=decoupled, step=step, **rule)
            assert_follows(ours.tensor, theirs.detach(), f"{length} elements, step {step}")
            assert torch.equal(here.cpu(), grad)
        for room in (ours, mean, square):
            room.assert_untouched_around()
