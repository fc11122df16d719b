"""Elementwise ops, losses, pooling and update rules on any tensors: what torch's autograd says.

Convolutions have theirs in test_ops_conv.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Place
from hypothesis import assume, given, settings, strategies as st
from torch import Tensor

from pydenoise import ops

EXAMPLES = 10
SIZES = st.lists(st.integers(0, 9), max_size=4).map(tuple)
SEEDS = st.integers(0, 2**31)
SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3))


def drawn(size: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    """Numbers of both signs, zeros among them."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(size, generator=draw, dtype=torch.float64)
    return torch.where(torch.rand(size, generator=draw) < 0.1, 0.0, x).to(dtype)


def gradient(of: Callable[[Tensor], Tensor], x: Tensor, gz: Tensor) -> Tensor:
    """What autograd finds in float64."""
    wide = x.double().requires_grad_()
    (gx,) = torch.autograd.grad(of(wide), wide, gz.double())
    return gx


def assert_near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.cpu().double(), wanted.double(), rtol=2e-6, atol=2e-6)


ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], ...]] = {
    "relu": (ops.relu, F.relu, lambda gz, x, z: ops.relu_backward(gz, z)),
    "leaky_relu": (
        ops.leaky_relu,
        F.leaky_relu,
        lambda gz, x, z: ops.leaky_relu_backward(gz, x),
    ),
    "sigmoid": (ops.sigmoid, torch.sigmoid, lambda gz, x, z: ops.sigmoid_backward(gz, z)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=EXAMPLES)
@given(size=SIZES, seed=SEEDS)
def test_activations(
    name: str, place: Place, dtype: torch.dtype, size: tuple[int, ...], seed: int
) -> None:
    ours, theirs, backward = ACTIVATIONS[name]
    x, gz = drawn(size, seed, dtype), drawn(size, seed + 1, dtype)
    z = ours(place.put(x))
    assert_near(z, theirs(x.double()))
    assert_near(backward(place.put(gz), place.put(x), z), gradient(theirs, x, gz))


LOSSES: dict[str, tuple[Callable[..., Any], ...]] = {
    "mse": (ops.mse_loss, ops.mse_loss_backward, F.mse_loss),
    "l1": (ops.l1_loss, ops.l1_loss_backward, F.l1_loss),
}


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=EXAMPLES)
@given(size=SIZES, seed=SEEDS, scale=st.floats(-4, 4, width=32))
def test_losses(
    name: str, place: Place, dtype: torch.dtype, size: tuple[int, ...], seed: int, scale: float
) -> None:
    assume(0 not in size)
    ours, backward, theirs = LOSSES[name]
    x, y = drawn(size, seed, dtype), drawn(size, seed + 1, dtype)
    right = theirs(x.double(), y.double())
    assert ours(place.put(x), place.put(y)) == pytest.approx(float(right), rel=2e-6)
    wanted = gradient(lambda x: theirs(x, y.double()), x, torch.tensor(scale))
    assert_near(backward(place.put(x), place.put(y), scale), wanted)


@settings(max_examples=EXAMPLES)
@given(batch=st.integers(1, 2), channels=st.integers(1, 9), size=SMALL, window=SMALL, stride=SMALL,
       more=st.tuples(st.integers(0, 9), st.integers(0, 9)), seed=SEEDS)  # fmt: skip
def test_pooling(
    place: Place,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    batch: int,
    channels: int,
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    more: tuple[int, int],
    seed: int,
) -> None:
    height, width = (max(n, k) + m for n, k, m in zip(size, window, more, strict=True))
    x = drawn((batch, channels, height, width), seed, dtype).contiguous(memory_format=memory_format)
    for ours, theirs in (
        (lambda x: ops.max_pool2d(x, window, stride)[0], F.max_pool2d),
        (lambda x: ops.avg_pool2d(x, window, stride), F.avg_pool2d),
    ):
        assert_near(ours(place.put(x)), theirs(x.double(), window, stride))
    z, where = ops.max_pool2d(place.put(x), window, stride)
    gz = drawn(tuple(z.shape), seed + 1, dtype)
    found = ops.max_pool2d_backward(place.put(gz), where, x.shape)
    assert_near(found, gradient(lambda x: F.max_pool2d(x, window, stride), x, gz))
    found = ops.avg_pool2d_backward(place.put(gz), x.shape, window, stride)
    assert_near(found, gradient(lambda x: F.avg_pool2d(x, window, stride), x, gz))
    z = ops.upsample_nearest2d(place.put(x), window)
    assert_near(z, x.double().repeat_interleave(window[0], 2).repeat_interleave(window[1], 3))
    ones = torch.ones_like(z)
    assert_near(
        ops.upsample_nearest2d_backward(ones, window),
        torch.full(x.shape, window[0] * window[1], dtype=torch.double),
    )


RATES = st.floats(0, 0.5, width=32)


@settings(max_examples=EXAMPLES)
@given(size=SIZES, seed=SEEDS, momentum=RATES, decay=RATES, nesterov=st.booleans())
def test_sgd(
    place: Place,
    dtype: torch.dtype,
    size: tuple[int, ...],
    seed: int,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    weight = drawn(size, seed, dtype)
    theirs = weight.double().requires_grad_()
    is_nesterov = nesterov and momentum > 0
    terms: dict[str, Any] = {
        "lr": 0.25,
        "momentum": momentum,
        "weight_decay": decay,
        "nesterov": is_nesterov,
    }
    rule = torch.optim.SGD([theirs], **terms)
    ours = place.put(weight.clone())
    buffer = torch.zeros_like(ours) if momentum else None
    for step in range(3):
        gradient = drawn(size, seed + step, dtype)
        theirs.grad = gradient.double()
        rule.step()
        ops.sgd_step(ours, place.put(gradient), buffer, **terms, first=step == 0)
    assert_near(ours, theirs.detach())


@settings(max_examples=EXAMPLES)
@given(size=SIZES, seed=SEEDS, betas=st.tuples(RATES, RATES), decay=RATES, decoupled=st.booleans())
def test_adam(
    place: Place,
    dtype: torch.dtype,
    size: tuple[int, ...],
    seed: int,
    betas: tuple[float, float],
    decay: float,
    decoupled: bool,
) -> None:
    weight = drawn(size, seed, dtype)
    theirs = weight.double().requires_grad_()
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    rule = kind([theirs], lr=0.125, betas=betas, eps=1e-3, weight_decay=decay)
    ours = place.put(weight.clone())
    means = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 4):
        gradient = drawn(size, seed + step, dtype)
        theirs.grad = gradient.double()
        rule.step()
        ops.adam_step(
            ours,
            place.put(gradient),
            *means,
            lr=0.125,
            beta1=betas[0],
            beta2=betas[1],
            eps=1e-3,
            weight_decay=decay,
            decoupled=decoupled,
            step=step,
        )
    torch.testing.assert_close(ours.cpu().double(), theirs.detach(), rtol=1e-4, atol=1e-5)
