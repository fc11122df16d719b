"""The convolutions of the report's layers and of a whole picture, and their patch matrices.

torch's own ways call its kernels directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from pydenoise import ops
from pydenoise.benchmark._case import (
    CHANNELS_LAST,
    Case,
    Step,
    Way,
    channels_last,
    our_ways,
    rounding,
)

QUANTITIES = ("forward", "grad_input", "grad_weight")


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
)
PICTURE = Layer(
    "picture",
    "64 -> 64 channels at 256x256, stride 1: what networks without strides spend their time on",
    (1, 64, 256, 256),
    (64, 64, 3, 3),
    1,
)


class _Products:
    """Operands of a layer, and its three products as torch and we compute them.

    A convolution and its transpose consist of the same three products between a ``large`` and a
    ``small`` picture: ``down = W u(large)``, ``up = f(W^T small)``, ``weight = small u(large)^T``.
    """

    def __init__(self, layer: Layer) -> None:
        generator = torch.Generator().manual_seed(0)
        stride, self.transposed = layer.stride, layer.transposed
        self.stride, self.extra = stride, stride - 1 if layer.transposed else 0
        self.geometry = (
            [stride] * 2,
            [1] * 2,
            [1] * 2,
            layer.transposed,
            [self.extra] * 2,
            1,
        )
        self.window = [3, 3], [1, 1], [1, 1], [stride, stride]
        self.input = torch.randn(layer.input, generator=generator)
        self.weight = torch.randn(layer.weight, generator=generator)
        self.weight /= math.sqrt(layer.weight[1] * 9)
        output = self.torch_forward(self.input, self.input, self.weight)
        self.grad_output = torch.randn(output.shape, generator=generator)

    @property
    def operands(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.grad_output, self.input, self.weight

    @property
    def pixels(self) -> int:
        """Positions of the kernel in the whole batch."""
        small = self.input if self.transposed else self.grad_output
        return small.numel() // self.weight.shape[0]

    def role(self, quantity: str) -> str:
        """Which of the three products a quantity of this layer is."""
        if quantity == "grad_weight":
            return "weight"
        return "up" if self.transposed == (quantity == "forward") else "down"

    def terms(self, quantity: str) -> int:
        """Summands of one element of the result."""
        out, into = self.weight.shape[:2]
        return {"down": into * 9, "up": out * 9, "weight": self.pixels}[self.role(quantity)]

    def torch_forward(self, grad_output: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(input, weight, None, *self.geometry)

    def torch_gradient(
        self, index: int, grad_output: Tensor, input: Tensor, weight: Tensor
    ) -> Tensor:
        wanted = [index == 0, index == 1, False]
        operands = grad_output, input, weight
        both = torch.ops.aten.convolution_backward(*operands, None, *self.geometry, wanted)
        return both[index]

    def torch_product(self, quantity: str) -> Callable[..., Tensor]:
        """The quantity from (grad_output, input, weight), by torch's own kernels."""
        if quantity == "forward":
            return self.torch_forward
        return partial(self.torch_gradient, QUANTITIES.index(quantity) - 1)

    def ours(self, quantity: str, grad_output: Tensor, input: Tensor, weight: Tensor) -> Step:
        large, small = (grad_output, input) if self.transposed else (input, grad_output)
        stride, extra = self.stride, self.extra
        steps: dict[str, Step] = {
            "down": lambda: ops.conv2d(large, weight, None, stride, 1),
            "up": lambda: (
                ops.conv_transpose2d(small, weight, None, stride, 1, extra)
                if self.transposed
                else ops.conv2d_grad_input(large.shape, weight, small, stride, 1)
            ),
            "weight": lambda: ops.conv2d_grad_weight(large, weight.shape, small, stride, 1),
        }
        return steps[self.role(quantity)]

    @cached_property
    def unfolded(self) -> dict[str, Step]:
        """torch's unfold, matrix product and fold, by role."""
        grad_output, input, weight = self.operands
        large, small = (grad_output, input) if self.transposed else (input, grad_output)
        matrix = weight.flatten(1)

        def columns() -> Tensor:
            return torch.ops.aten.im2col(large, *self.window)

        return {
            "down": lambda: (matrix @ columns()).view(small.shape),
            "up": lambda: torch.ops.aten.col2im(
                matrix.t() @ small.flatten(2), large.shape[2:], *self.window
            ),
            "weight": lambda: (
                (small.flatten(2) @ columns().transpose(1, 2)).sum(0).view(weight.shape)
            ),
        }


def convolution(layer: Layer, quantity: str, *, full: bool) -> Case:
    """Forward or one of the gradients of a layer.

    Parameters
    ----------
    full : bool
        Whether the slow ways of a whole picture (the chains, the reference) come along.
    """
    products = _Products(layer)
    torchs = products.torch_product(quantity)
    operands = products.operands
    last = *channels_last(*operands[:2]), operands[2]
    ways = {}
    small = layer is not PICTURE
    algorithms = ("auto", "implicit", "im2col") if full or small else ("auto", "implicit")
    for name, context in our_ways(algorithms, reference=full or small).items():
        ways[name] = Way(products.ours(quantity, *operands), context)
        if name == "auto":
            ways[name + CHANNELS_LAST] = Way(products.ours(quantity, *last), context)
    ways["torch"] = Way(partial(torchs, *operands))
    ways["torch" + CHANNELS_LAST] = Way(partial(torchs, *channels_last(*operands)))
    if full or small:
        ways["torch unfold"] = Way(products.unfolded[products.role(quantity)])
    bound = rounding(products.terms(quantity))
    return Case(
        name=f"{layer.name} {quantity}",
        group="convolution",
        reason=layer.reason,
        expected=torchs(*(t.double() for t in operands)),
        tolerance=bound * torchs(*(t.double().abs() for t in operands)),
        flop=2 * products.weight.numel() * products.pixels,
        moved_bytes=4 * sum(t.numel() for t in operands),
        ways=ways,
        saves_multiplications=ops.result_tile("conv2d", products.weight, layer.stride, 1, 1, 1) > 1,
    )


def im2col(layer: Layer) -> Case:
    """Patches into a reused buffer, against torch's unfold."""
    input, columns, window = _columns(layer)
    out = torch.empty_like(columns)
    unfold = torch.ops.aten.im2col

    def ours() -> Tensor:
        return ops.im2col(input, 3, 1, 1, layer.stride, out=out)

    return Case(
        name=f"{layer.name} im2col",
        group="columns",
        reason=layer.reason,
        expected=columns.double(),
        tolerance=torch.zeros(()),
        moved_bytes=4 * (input.numel() + columns.numel()),
        ways={
            **{name: Way(ours, context) for name, context in our_ways(["auto"]).items()},
            "torch": Way(lambda: unfold(input, *window)),
            "torch out=": Way(lambda: unfold.out(input, *window, out=out)),
        },
    )


def col2im(layer: Layer) -> Case:
    """Columns summed back into a reused buffer, against torch's fold."""
    input, columns, window = _columns(layer)
    size, out = input.shape[2:], torch.empty_like(input)
    fold = torch.ops.aten.col2im

    def ours() -> Tensor:
        return ops.col2im(columns, size, 3, 1, 1, layer.stride, out=out)

    return Case(
        name=f"{layer.name} col2im",
        group="columns",
        reason=layer.reason,
        expected=fold(columns.double(), size, *window),
        tolerance=rounding(9) * fold(columns.double().abs(), size, *window),
        moved_bytes=4 * (input.numel() + columns.numel()),
        ways={
            **{
                name: Way(
                    lambda: ops.col2im(columns, size, 3, 1, 1, layer.stride, out=out), context
                )
                for name, context in our_ways(["auto"]).items()
            },
            "torch": Way(lambda: fold(columns, size, *window)),
            "torch out=": Way(lambda: fold.out(columns, size, *window, out=out)),
        },
    )


def _columns(layer: Layer) -> tuple[Tensor, Tensor, tuple[list[int], ...]]:
    """Picture of a layer, its patch matrix and the window for torch."""
    window = [3, 3], [1, 1], [1, 1], [layer.stride, layer.stride]
    input = torch.randn(layer.input, generator=torch.Generator().manual_seed(0))
    return input, torch.ops.aten.im2col(input, *window), window
