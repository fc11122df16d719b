"""The CUDA kernels of activations, losses and optimizers, run on the host, beside the reference."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from conftest import DTYPES, Room
from on_host import Kernels
from oracle import UNIT_ROUNDOFF

from pydenoise.ops import _reference as reference


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pointwise(kernels: Kernels, dtype: torch.dtype) -> None:
    """The reference's bits, but for the roundings of an exponential."""
    x = torch.randn(1000, dtype=dtype) * 3
    x[:5] = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf])
    gz, z = torch.randn(1000, dtype=dtype), torch.randn(1000, dtype=dtype).relu()
    arguments = {
        "relu": (x,),
        "relu_backward": (gz, x),
        "leaky_relu": (x, 0.2),
        "leaky_relu_backward": (gz, x, 0.2),
        "sigmoid": (x,),
        "sigmoid_backward": (gz, z),
        "mse_loss_backward": (x, gz, 0.75),
        "l1_loss_backward": (x[5:], gz[5:], 0.75),
    }
    for name, inputs in arguments.items():
        room = Room(inputs[0].shape, dtype, torch.contiguous_format, torch.device("cpu"))
        wanted = torch.empty_like(inputs[0])
        kernels.call(name, x, room.tensor, *inputs)
        getattr(reference, name)(wanted, *inputs)
        room.assert_untouched_around()
        slack = {"sigmoid": 4, "mse_loss_backward": 2, "l1_loss_backward": 2}.get(name, 0)
        torch.testing.assert_close(
            room.tensor, wanted, rtol=slack * UNIT_ROUNDOFF[dtype], atol=0, equal_nan=True, msg=name
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_losses(kernels: Kernels, dtype: torch.dtype) -> None:
    for count, name in product((1, 100, 5_000, 70_001), ("mse_loss", "l1_loss")):
        y, t = torch.randn(2, count, dtype=dtype)
        found = set()
        for order in (0, 1, 5):
            room = Room((1,), torch.float64, torch.contiguous_format, torch.device("cpu"))
            scratch = kernels.workspace(name, y, count)
            with kernels.order(order):
                kernels.call(name, y, room.tensor, y, t, scratch)
            room.assert_untouched_around()
            found.add(room.tensor.item())
        assert len(found) == 1
        assert found.pop() == pytest.approx(getattr(reference, name)(y, t), rel=1e-13)


RULES = product((0.0, 0.9), (0.0, 0.1), (0.0, 0.01), (False, True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_optimizers(kernels: Kernels, dtype: torch.dtype) -> None:
    """Three steps of every rule beside the reference; the rule's numbers lie in memory."""
    slack = {"rtol": 16 * UNIT_ROUNDOFF[dtype], "atol": 16 * UNIT_ROUNDOFF[dtype]}
    for momentum, dampening, weight_decay, flag in RULES:
        start = torch.randn(300, dtype=dtype)
        (ours, v), (theirs, w) = ((start.clone(), torch.zeros_like(start)) for _ in range(2))
        (adam, *state), (right, *kept) = (
            (start.clone(), torch.zeros_like(start), torch.zeros_like(start)) for _ in range(2)
        )
        for step in (1, 2, 3):
            grad = torch.randn(300, dtype=dtype)
            first, numbers = step == 1, (0.05, momentum, dampening, weight_decay)
            rule = torch.tensor([*numbers, 0, 0, 0, 0], dtype=torch.float64)
            buffers = (v, w) if momentum else (None, None)
            kernels.call("sgd_step", ours, ours, grad, buffers[0], rule, flag, first)
            reference.sgd_step(theirs, grad, buffers[1], *numbers, flag, first)
            torch.testing.assert_close((ours, v), (theirs, w), **slack)
            numbers = (0.01, momentum, 0.99, 1e-8, weight_decay)
            rule = torch.tensor([*numbers, step, 0, 0], dtype=torch.float64)
            with kernels.order(step - 1):
                kernels.call("adam_step", adam, adam, grad, *state, rule, flag)
            reference.adam_step(right, grad, *kept, *numbers, flag, step)
            torch.testing.assert_close((adam, *state), (right, *kept), **slack)
