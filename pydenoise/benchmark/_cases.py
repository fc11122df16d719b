"""What is measured: each operation on fixed numbers, its right result, and the ways to compute it.

Three groups: the convolutions of the report's layers and of a whole picture, im2col and col2im into
a reused buffer, and a whole training step. torch's own ways call its kernels directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import pydenoise
from pydenoise import models, objectives, ops, optim

Step = Callable[[], Tensor]
Competitor = Callable[[Mapping[str, Tensor], Tensor, Tensor], Step]

BATCH = 16
CHECKED_STEPS = 3
LEARNING_RATE = 0.5
MOMENTUM = 0.9


class WrongResult(RuntimeError):
    """A way of computing a case is outside the rounding bound, so its time means nothing."""


class Layer(NamedTuple):
    """A convolution of the benchmark, as its layer in a network would be declared."""

    name: str
    reason: str
    input: tuple[int, int, int, int]
    weight: tuple[int, int, int, int]
    stride: int = 2
    transposed: bool = False


LAYERS = (
    Layer("conv1", "Table I: few input channels, K = 27", (16, 3, 32, 32), (48, 3, 3, 3)),
    Layer("conv2", "Table I: the widest product, K = 432", (16, 48, 16, 16), (96, 48, 3, 3)),
    Layer("deconv1", "Table I: back up from 8x8", (16, 96, 8, 8), (96, 48, 3, 3), 2, True),
    Layer("deconv2", "Table I: three output channels", (16, 48, 16, 16), (48, 3, 3, 3), 2, True),
    Layer(
        "picture",
        "a whole picture through a 48-channel layer",
        (1, 48, 256, 256),
        (48, 48, 3, 3),
        1,
    ),
)


@dataclass(frozen=True)
class Way:
    """One way to compute a case.

    Attributes
    ----------
    call : callable
        Without arguments; this is timed.
    context : callable
        Makes the context manager around the calls, itself untimed.
    checked : callable, optional
        What is compared instead of the call's own result.
    """

    call: Step
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    checked: Step | None = None


@dataclass(frozen=True)
class Case:
    """An operation on fixed numbers, what it must give, and the ways to compute it.

    Attributes
    ----------
    group : {"convolution", "columns", "training"}
        The table it belongs to.
    expected, tolerance : Tensor
        A way is right where ``|result - expected| <= tolerance``, elementwise.
    flop, moved_bytes : int
        Arithmetic, and the least memory traffic, of one call; 0 where it says nothing.
    """

    name: str
    group: str
    reason: str
    expected: Tensor
    tolerance: Tensor
    ways: Mapping[str, Way]
    flop: int = 0
    moved_bytes: int = 0

    def check(self) -> None:
        """Compute the case every way.

        Raises
        ------
        WrongResult
            If one of them is outside the tolerance; names the case, the way and the excess.
        """
        for name, way in self.ways.items():
            with way.context():
                result = (way.checked or way.call)()
            error = (result.double() - self.expected).abs()
            if not bool((error <= self.tolerance).all()):
                worst = float((error - self.tolerance).max())
                raise WrongResult(
                    f"{self.name}, {name}: {worst:.3g} outside the tolerance; largest error "
                    f"{float(error.max()):.3g} where {float(self.tolerance.max()):.3g} is allowed"
                )


def _our_ways(**algorithms: str) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Our ways by name: the compiled kernels with each algorithm, where they run; the reference."""

    def within(backend: str, algorithm: str) -> Callable[[], AbstractContextManager[Any]]:
        def enter() -> AbstractContextManager[Any]:
            stack = ExitStack()
            stack.enter_context(pydenoise.use_backend(backend))
            stack.enter_context(pydenoise.use_algorithm(algorithm))
            return stack

        return enter

    compiled = algorithms if ops.backends()["cpu"] is None else {}
    ways = {name: within("cpu", algorithm) for name, algorithm in compiled.items()}
    return {**ways, "reference": within("reference", "implicit")}


CONVOLVERS = {"implicit": "implicit", "im2col": "im2col"}


def _rounding(terms: int) -> float:
    """The bound on a float32 sum of so many terms, relative to the sum of their magnitudes."""
    return min(terms, 4 * math.sqrt(terms)) * torch.finfo(torch.float32).eps / 2


def _convolution_cases(layer: Layer, generator: torch.Generator) -> Iterator[Case]:
    """Forward and both gradients of a layer.

    A convolution and its transpose consist of the same three products between a ``large`` and a
    ``small`` picture: ``down = W u(large)``, ``up = f(W^T small)``, ``weight = small u(large)^T``.
    """
    stride, transposed = layer.stride, layer.transposed
    extra = stride - 1 if transposed else 0
    geometry = [stride] * 2, [1] * 2, [1] * 2, transposed, [extra] * 2, 1
    window = [3, 3], [1, 1], [1, 1], [stride, stride]

    def forward(grad_output: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(input, weight, None, *geometry)

    def gradient(index: int, grad_output: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        wanted = [index == 0, index == 1, False]
        operands = grad_output, input, weight
        both = torch.ops.aten.convolution_backward(*operands, None, *geometry, wanted)
        return both[index]

    input = torch.randn(layer.input, generator=generator)
    weight = torch.randn(layer.weight, generator=generator) / math.sqrt(layer.weight[1] * 9)
    grad_output = torch.randn(forward(input, input, weight).shape, generator=generator)
    large, small = (grad_output, input) if transposed else (input, grad_output)
    pixels = small.numel() // layer.weight[0]
    matrix = weight.flatten(1)

    def columns() -> Tensor:
        return torch.ops.aten.im2col(large, *window)

    ours: dict[str, Step] = {
        "down": lambda: ops.conv2d(large, weight, None, stride, 1),
        "up": lambda: (
            ops.conv_transpose2d(small, weight, None, stride, 1, extra)
            if transposed
            else ops.conv2d_grad_input(large.shape, weight, small, stride, 1)
        ),
        "weight": lambda: ops.conv2d_grad_weight(large, weight.shape, small, stride, 1),
    }
    unfolded: dict[str, Step] = {
        "down": lambda: (matrix @ columns()).view(small.shape),
        "up": lambda: torch.ops.aten.col2im(
            matrix.t() @ small.flatten(2), large.shape[2:], *window
        ),
        "weight": lambda: (small.flatten(2) @ columns().transpose(1, 2)).sum(0).view(weight.shape),
    }
    terms = {"down": layer.weight[1] * 9, "up": layer.weight[0] * 9, "weight": pixels}
    theirs: dict[str, Callable[..., Tensor]] = {
        "forward": forward,
        "grad_input": partial(gradient, 0),
        "grad_weight": partial(gradient, 1),
    }
    roles = {
        "forward": "up" if transposed else "down",
        "grad_input": "down" if transposed else "up",
        "grad_weight": "weight",
    }
    tensors = grad_output, input, weight
    channels_last = [t.contiguous(memory_format=torch.channels_last) for t in tensors]
    for quantity, role in roles.items():
        reference = theirs[quantity]
        yield Case(
            name=f"{layer.name} {quantity}",
            group="convolution",
            reason=layer.reason,
            expected=reference(*(t.double() for t in tensors)),
            tolerance=_rounding(terms[role]) * reference(*(t.double().abs() for t in tensors)),
            flop=2 * weight.numel() * pixels,
            ways={
                **{
                    name: Way(ours[role], context)
                    for name, context in _our_ways(**CONVOLVERS).items()
                },
                "torch": Way(partial(reference, *tensors)),
                "torch channels_last": Way(partial(reference, *channels_last)),
                "torch unfold": Way(unfolded[role]),
            },
        )


def _column_cases(layer: Layer, generator: torch.Generator) -> Iterator[Case]:
    """im2col and col2im into a reused buffer, against torch's unfold and fold."""
    window = [3, 3], [1, 1], [1, 1], [layer.stride, layer.stride]
    im2col, col2im = torch.ops.aten.im2col, torch.ops.aten.col2im
    input = torch.randn(layer.input, generator=generator)
    columns = im2col(input, *window)
    size = input.shape[2:]
    moved_bytes = 4 * (input.numel() + columns.numel())
    columns_out, image_out = torch.empty_like(columns), torch.empty_like(input)
    ours = _our_ways(cpu="auto")

    def unfold() -> Tensor:
        return ops.im2col(input, 3, 1, 1, layer.stride, out=columns_out)

    def fold() -> Tensor:
        return ops.col2im(columns, size, 3, 1, 1, layer.stride, out=image_out)

    yield Case(
        name=f"{layer.name} im2col",
        group="columns",
        reason=layer.reason,
        expected=columns.double(),
        tolerance=torch.zeros(()),
        moved_bytes=moved_bytes,
        ways={
            **{name: Way(unfold, context) for name, context in ours.items()},
            "torch": Way(lambda: im2col(input, *window)),
            "torch out=": Way(lambda: im2col.out(input, *window, out=columns_out)),
        },
    )
    yield Case(
        name=f"{layer.name} col2im",
        group="columns",
        reason=layer.reason,
        expected=col2im(columns.double(), size, *window),
        tolerance=_rounding(9) * col2im(columns.double().abs(), size, *window),
        moved_bytes=moved_bytes,
        ways={
            **{name: Way(fold, context) for name, context in ours.items()},
            "torch": Way(lambda: col2im(columns, size, *window)),
            "torch out=": Way(lambda: col2im.out(columns, size, *window, out=image_out)),
        },
    )


def _training_case(generator: torch.Generator, competitors: Mapping[str, Competitor]) -> Case:
    """One step of Noise2Noise training: forward, loss, backward, momentum update.

    Each way starts from the same weights; what is compared are the losses of its first steps, which
    after the first depend on every gradient.
    """
    source, target = torch.rand((2, BATCH, 3, 32, 32), generator=generator)

    def ours() -> Step:
        model = models.autoencoder(seed=0)
        objective = objectives.Noise2Noise()
        optimizer = optim.SGD(model, lr=LEARNING_RATE, momentum=MOMENTUM)

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = objective.step(model, source, target)
            optimizer.step()
            return torch.tensor(loss)

        return step

    def first_losses(step: Step) -> Tensor:
        return torch.stack([step() for _ in range(CHECKED_STEPS)])

    ways = {}
    for name, context in _our_ways(**CONVOLVERS).items():
        step = ours()
        ways[name] = Way(step, context, partial(first_losses, step))
    for name, competitor in competitors.items():
        step = competitor(models.autoencoder(seed=0).state_dict(), source, target)
        ways[name] = Way(step, checked=partial(first_losses, step))
    with pydenoise.use_backend("reference"):
        expected = first_losses(ours()).double()
    return Case(
        name=f"training step, batch {BATCH}",
        group="training",
        reason="Table I: forward, loss, backward and update of 16 pictures of 3x32x32",
        expected=expected,
        tolerance=1e-5 * expected,
        ways=ways,
    )


def cases(competitors: Mapping[str, Competitor] | None = None) -> Iterator[Case]:
    """All cases, one at a time, so that only one holds its tensors.

    Parameters
    ----------
    competitors : mapping of str to callable, optional
        Other ways to train: each gets the start weights (torch's names and layout), the source and
        the target batch, and returns a function that makes one step and returns its loss.
    """
    generator = torch.Generator().manual_seed(0)
    for layer in LAYERS:
        yield from _convolution_cases(layer, generator)
    for layer in (LAYERS[1], LAYERS[-1]):
        yield from _column_cases(layer, generator)
    yield _training_case(generator, competitors or {})
