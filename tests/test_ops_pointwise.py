"""Activations and losses against torch, at every length a vector loop can end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import Place, Room
from oracle import UNIT_ROUNDOFF, Expected, assert_same_bits, assert_within
from torch import Tensor

from pydenoise import ops

# Every rest of a loop over vectors of 4, 8 or 16, four at a time, and more than one thread's share
LENGTHS = [*range(1, 70), 127, 128, 129, 1000, 70_001]
SPECIALS = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-40, 3e38, -3e38, 88.8, -88.8]


class Pointwise(NamedTuple):
    """An operation on each element, torch's word for it, and how many roundings it may differ."""

    name: str
    run: Callable[..., Tensor]
    right: Callable[..., Tensor]
    arguments: int
    roundings: int
    last: Callable[[Tensor], Tensor] = lambda x: x
    """What makes any numbers a possible last argument."""

    def __str__(self) -> str:
        return self.name


POINTWISE = [
    Pointwise("relu", ops.relu, torch.relu, 1, 0),
    Pointwise(
        "relu_backward",
        ops.relu_backward,
        lambda g, z: torch.where(z <= 0, torch.zeros_like(g), g),
        2,
        0,
    ),
    Pointwise(
        "leaky_relu",
        lambda x, **rest: ops.leaky_relu(x, 0.25, **rest),
        lambda x: F.leaky_relu(x, 0.25),
        1,
        1,
    ),
    Pointwise(
        "leaky_relu_backward",
        lambda g, x, **rest: ops.leaky_relu_backward(g, x, 0.25, **rest),
        lambda g, x: torch.where(x > 0, g, g * 0.25),
        2,
        1,
    ),
    Pointwise("sigmoid", ops.sigmoid, torch.sigmoid, 1, 8),
    Pointwise(
        "sigmoid_backward",
        ops.sigmoid_backward,
        lambda g, z: g * z * (1 - z),
        2,
        4,
        torch.sigmoid,
    ),
]
LOSSES = {
    "mse": (ops.mse_loss, ops.mse_loss_backward, F.mse_loss),
    "l1": (ops.l1_loss, ops.l1_loss_backward, F.l1_loss),
}
each_pointwise = pytest.mark.parametrize("op", POINTWISE, ids=str)
each_loss = pytest.mark.parametrize("name", LOSSES)


def draw(*size: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(size))
    return torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)


def operands(count: int, *size: int, dtype: torch.dtype, place: Place) -> list[Tensor]:
    """Draw tensors that stand between guards of NaN."""
    rooms = [Room(size, dtype, torch.contiguous_format, place.device) for _ in range(count)]
    return [room.tensor.copy_(draw(*size, dtype=dtype, seed=n)) for n, room in enumerate(rooms)]


def inputs_of(op: Pointwise, *size: int, dtype: torch.dtype, place: Place) -> list[Tensor]:
    inputs = operands(op.arguments, *size, dtype=dtype, place=place)
    inputs[-1].copy_(op.last(inputs[-1]))
    return inputs


def assert_near(actual: Tensor, wanted: Tensor, roundings: int, what: object) -> None:
    """Compare with a result in float64, up to so many roundings and the smallest normal number."""
    info = torch.finfo(actual.dtype)
    finite = wanted.abs().nan_to_num(posinf=0.0)
    bound = roundings * UNIT_ROUNDOFF[actual.dtype] * finite
    bound += info.smallest_normal if roundings else 0.0
    same = (actual.cpu().double() == wanted) | (actual.cpu().isnan() & wanted.isnan())
    values = torch.where(same, torch.zeros_like(wanted), actual.cpu().double() - wanted)
    assert_within(values, Expected(torch.zeros_like(wanted), bound), what)


def thread_counts() -> Iterator[int]:
    """Let torch use one, two and three threads in turn."""
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            yield count
    finally:
        torch.set_num_threads(before)


# Activations


@each_pointwise
def test_every_length(op: Pointwise, place: Place, dtype: torch.dtype) -> None:
    for length in LENGTHS:
        inputs = inputs_of(op, length, dtype=dtype, place=place)
        room = Room((length,), dtype, torch.contiguous_format, place.device)
        assert op.run(*inputs, out=room.tensor) is room.tensor
        wanted = op.right(*(x.cpu().double() for x in inputs))
        assert_near(room.tensor, wanted, op.roundings, f"{op}, {length} elements")
        room.assert_untouched_around()


@each_pointwise
def test_special_values(op: Pointwise, place: Place, dtype: torch.dtype) -> None:
    """Infinities, NaN, zeros of both signs, denormals and what overflows an exponential."""
    specials = torch.tensor(SPECIALS * 3, dtype=dtype, device=place.device)
    last = specials.repeat_interleave(len(SPECIALS))
    inputs = [specials.repeat(len(SPECIALS)), op.last(last)][2 - op.arguments :]
    wanted = op.right(*(x.cpu() for x in inputs)).double()
    assert_near(op.run(*inputs), wanted, max(op.roundings, 1), op)


@each_pointwise
def test_layouts(op: Pointwise, place: Place, dtype: torch.dtype) -> None:
    """Sliced, transposed, channels_last, in a mixture: elements meet by index, not by address."""
    plain = inputs_of(op, 2, 3, 5, 7, dtype=dtype, place=place)
    wanted = op.run(*plain).cpu().double()
    layouts: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.mT.contiguous().mT,
        lambda x: torch.stack([x, x * torch.nan], dim=-1)[..., 0],
    ]
    for layout in layouts:
        for n in range(op.arguments):
            inputs = [layout(x) if i == n else x for i, x in enumerate(plain)]
            assert_near(op.run(*inputs), wanted, op.roundings, op)
        result = op.run(*(layout(x) for x in plain))
        assert_near(result, wanted, op.roundings, op)
        assert result.is_contiguous() or result.is_contiguous(memory_format=torch.channels_last)
    last = [layouts[0](x) for x in plain]
    assert op.run(*last).is_contiguous(memory_format=torch.channels_last)
    out = torch.full_like(plain[0], torch.nan)
    assert_near(op.run(*last, out=out), wanted, op.roundings, op)


@each_pointwise
def test_any_shape(op: Pointwise, place: Place, dtype: torch.dtype) -> None:
    for size in [(), (0,), (1,), (3, 0, 2), (2, 3), (1, 2, 3, 4, 5)]:
        inputs = inputs_of(op, *size, dtype=dtype, place=place)
        wanted = op.right(*(x.cpu().double() for x in inputs))
        assert_near(op.run(*inputs), wanted, op.roundings, f"{op} {size}")


@each_pointwise
def test_threads_share_the_elements(op: Pointwise, place: Place, dtype: torch.dtype) -> None:
    inputs = inputs_of(op, 100_003, dtype=dtype, place=place)
    wanted = op.run(*inputs)
    for count in thread_counts():
        room = Room(wanted.shape, dtype, torch.contiguous_format, place.device)
        assert_same_bits(op.run(*inputs, out=room.tensor), wanted, f"{op}, {count} threads")
        room.assert_untouched_around()


def test_relu_backward_selects(place: Place, dtype: torch.dtype) -> None:
    """An infinite gradient behind a closed gate is gone: a selection, not a product."""
    gz = torch.full((33,), torch.inf, dtype=dtype, device=place.device)
    assert (ops.relu_backward(gz, torch.zeros_like(gz)) == 0).all()


@pytest.mark.parametrize("channels", [1, 3, 16, 17, 48])
def test_bias_of_the_chain(
    channels: int, place: Place, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    """Planes longer than a thread's piece; rows of channels shorter and longer than a vector."""
    x = torch.zeros(2, 1, 89, 97, dtype=dtype, device=place.device)
    weight = torch.zeros(channels, 1, 1, 1, dtype=dtype, device=place.device)
    bias = draw(channels, dtype=dtype).to(place.device)
    wanted = bias[:, None, None].expand(2, channels, 89, 97)
    for count in thread_counts():
        room = Room(wanted.shape, dtype, memory_format, place.device)
        with ops.use_algorithm("im2col"):
            ops.conv2d(x, weight, bias, out=room.tensor)
        assert_same_bits(room.tensor, wanted, f"{channels} channels, {count} threads")
        room.assert_untouched_around()


# Finite differences, in float64 and away from the kinks


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (lambda x: ops.relu(x), lambda g, x: ops.relu_backward(g, ops.relu(x))),
        (lambda x: ops.leaky_relu(x, 0.1), lambda g, x: ops.leaky_relu_backward(g, x, 0.1)),
        (lambda x: ops.sigmoid(x), lambda g, x: ops.sigmoid_backward(g, ops.sigmoid(x))),
    ],
    ids=["relu", "leaky_relu", "sigmoid"],
)
def test_activations_by_finite_differences(
    forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor, Tensor], Tensor], place: Place
) -> None:
    x = draw(53, dtype=torch.float64).to(place.device)
    x += 0.1 * x.sign()
    gz, step = draw(53, dtype=torch.float64, seed=1).to(place.device), 1e-6
    slope = (forward(x + step) - forward(x - step)) / (2 * step)
    torch.testing.assert_close(backward(gz, x), gz * slope, rtol=1e-8, atol=1e-9)


@each_loss
def test_losses_by_finite_differences(name: str, place: Place) -> None:
    loss, backward, _ = LOSSES[name]
    x, t = operands(2, 13, dtype=torch.float64, place=place)
    gradient, step = backward(x, t), 1e-6
    for n in range(x.numel()):
        shift = torch.zeros_like(x)
        shift[n] = step
        slope = (loss(x + shift, t) - loss(x - shift, t)) / (2 * step)
        assert slope == pytest.approx(float(gradient[n]), rel=1e-7, abs=1e-9)


# Losses


@each_loss
def test_loss_of_every_length(name: str, place: Place, dtype: torch.dtype) -> None:
    loss, backward, right = LOSSES[name]
    for length in LENGTHS:
        x, t = operands(2, length, dtype=dtype, place=place)
        wide = [v.cpu().double() for v in (x, t)]
        value = loss(x, t)
        assert type(value) is float
        wanted = right(*wide)
        # Differences are rounded once in the input's precision, squares once more
        tolerance = 4 * UNIT_ROUNDOFF[dtype] + 1e-14
        assert value == pytest.approx(float(wanted), rel=tolerance), length

        y = wide[0].requires_grad_()
        (gradient,) = torch.autograd.grad(right(y, wide[1]), y)
        room = Room((length,), dtype, torch.contiguous_format, place.device)
        assert backward(x, t, out=room.tensor) is room.tensor
        assert_near(room.tensor, gradient, 4, f"{name}, {length} elements")
        room.assert_untouched_around()


@each_loss
def test_loss_meets_elements_by_index(name: str, place: Place, dtype: torch.dtype) -> None:
    loss, backward, _ = LOSSES[name]
    x, t = operands(2, 2, 3, 5, 7, dtype=dtype, place=place)
    last = t.contiguous(memory_format=torch.channels_last)
    assert loss(x, last) == pytest.approx(loss(x, t), rel=8 * UNIT_ROUNDOFF[dtype])
    assert_same_bits(backward(x, last), backward(x, t), name)
    assert_same_bits(backward(x.mT, last.mT), backward(x, t).mT, name)


@each_loss
def test_loss_at_zero_and_nan(name: str, place: Place, dtype: torch.dtype) -> None:
    loss, backward, _ = LOSSES[name]
    x = draw(37, dtype=dtype).to(place.device)
    assert loss(x, x.clone()) == 0.0
    assert (backward(x, x.clone()) == 0).all()
    broken = x.clone()
    broken[36] = torch.nan
    assert math.isnan(loss(broken, x))


@each_loss
def test_loss_of_many_small_differences(name: str, place: Place) -> None:
    """A float32 sum of a million equal terms would be off in the fourth digit."""
    loss, _, right = LOSSES[name]
    x = torch.full((1 << 20,), 0.1, device=place.device)
    t = torch.zeros_like(x)
    assert loss(x, t) == pytest.approx(float(right(x.double(), t.double())), rel=1e-6)


@each_loss
def test_loss_is_the_same_with_any_number_of_threads(name: str, place: Place) -> None:
    loss, _, _ = LOSSES[name]
    x, t = operands(2, 300_007, dtype=torch.float32, place=place)
    values = {loss(x, t) for _ in thread_counts()}
    if place.backend == "reference":
        pytest.skip("the reference leaves the order of its sums to torch")
    assert len(values) == 1
