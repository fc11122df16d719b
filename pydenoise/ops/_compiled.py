"""The backends of compiled kernels: tensors become memory of a dtype and an order here.

Function names and argument order are those of `_reference`. The binding asks each tensor for its
address and byte count and checks them against the shape again; what it cannot know (dtype, layout,
device) is settled here. Pooling and upsampling have kernels for main memory alone, average pooling
none, and are the reference's elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from . import _reference
from ._compiled_pointwise import Pointwise
from ._compiled_pooling import Pooling
from ._finish import Finish, apply
from ._library import dense
from ._shape import ConvShape

_DOUBLE = torch.float64

_ACTIVATIONS = {"relu": 1, "leaky_relu": 2}
_NO_FINISH = 0, 0.0, None


def _finish_while_writing(
    finish: Finish | None, image: Tensor, last: bool
) -> tuple[int, float, Tensor | None] | None:
    """The finish as the kernels take it; None where they cannot: they read `output` beside the
    result, channels together."""
    if finish is None:
        return _NO_FINISH
    output = finish.output
    if output is not None and not (last and output.stride() == image.stride()):
        return None
    return _ACTIVATIONS[finish.activation], finish.negative_slope, output


class Compiled(Pointwise):
    """One library of kernels as a backend.

    Parameters
    ----------
    library : module
        `_C`, or what has its entries.
    """

    FINISHES = True
    TILE = 1

    avg_pool2d = staticmethod(_reference.avg_pool2d)
    avg_pool2d_backward = staticmethod(_reference.avg_pool2d_backward)
    max_pool2d = staticmethod(_reference.max_pool2d)
    max_pool2d_backward = staticmethod(_reference.max_pool2d_backward)
    upsample_nearest2d = staticmethod(_reference.upsample_nearest2d)
    upsample_nearest2d_backward = staticmethod(_reference.upsample_nearest2d_backward)

    def __init__(self, library: Any) -> None:
        super().__init__(library)
        self._checked = lru_cache(maxsize=4096)(self._check)

    def _check(self, shape: ConvShape) -> Any:
        """The shape as the kernels take it, found valid once."""
        return self._library.Shape(astuple(shape))

    def fastest(self, product: str, shape: ConvShape) -> str:
        """The algorithm that `auto` takes, by channels, kernel, stride and padding; for gradients
        of weights by the picture's size, too."""
        return "implicit"

    def by_winograd(self, algorithm: str, product: str, shape: ConvShape) -> Any:
        """What computes a 3 x 3 convolution by Winograd's products, or this where it has none."""
        return self

    def im2col(self, columns: Tensor, input: Tensor, shape: ConvShape) -> None:
        input, last = dense(input)
        self._library.im2col(input.dtype is _DOUBLE, columns, input, last, self._checked(shape))

    def col2im(self, output: Tensor, columns: Tensor, shape: ConvShape) -> None:
        columns = columns.contiguous()
        _, last = dense(output)
        self._library.col2im(columns.dtype is _DOUBLE, output, last, columns, self._checked(shape))

    def matmul(self, out: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
        sizes = (*out.shape, a.shape[2])
        views = [each for tensor in (out, a, b) for each in (tensor, tensor.stride())]
        self._library.matmul(out.dtype is _DOUBLE, *views, sizes, accumulate)

    def conv2d(
        self,
        output: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: ConvShape,
        finish: Finish | None = None,
        winograd: int = 0,
    ) -> None:
        kernel = self._library.conv2d
        self._convolve(kernel, output, input, weight, bias, shape, finish, winograd)

    def conv2d_grad_input(
        self,
        grad_input: Tensor,
        grad_output: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: ConvShape,
        finish: Finish | None = None,
        winograd: int = 0,
    ) -> None:
        kernel = self._library.conv2d_grad_input
        self._convolve(kernel, grad_input, grad_output, weight, bias, shape, finish, winograd)

    def _convolve(
        self,
        kernel: Callable[..., None],
        dest: Tensor,
        source: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: ConvShape,
        finish: Finish | None,
        winograd: int,
    ) -> None:
        source, source_last = dense(source)
        _, dest_last = dense(dest)
        if bias is not None:
            bias = bias.contiguous()
        finishing = _finish_while_writing(finish, dest, dest_last)
        kernel(
            weight.dtype is _DOUBLE,
            dest,
            dest_last,
            source,
            source_last,
            weight.contiguous(),
            bias,
            self._checked(shape),
            winograd,
            *(finishing or _NO_FINISH),
        )
        if finishing is None and finish is not None:
            apply(self, finish, dest)

    def conv2d_grad_weight(
        self,
        grad_weight: Tensor,
        grad_output: Tensor,
        input: Tensor,
        shape: ConvShape,
        accumulate: bool,
        winograd: int = 0,
    ) -> None:
        grad_output, grad_output_last = dense(grad_output)
        input, input_last = dense(input)
        self._library.conv2d_grad_weight(
            input.dtype is _DOUBLE,
            grad_weight,
            grad_output,
            grad_output_last,
            input,
            input_last,
            self._checked(shape),
            accumulate,
            winograd,
        )

    def conv2d_grad_bias(self, grad_bias: Tensor, grad_output: Tensor, accumulate: bool) -> None:
        grad_output, last = dense(grad_output)
        self._library.conv2d_grad_bias(
            grad_output.dtype is _DOUBLE,
            grad_bias,
            grad_output,
            last,
            grad_output.shape,
            accumulate,
        )

    def add_bias(self, image: Tensor, bias: Tensor) -> None:
        _, last = dense(image)
        bias = bias.contiguous()
        self._library.add_bias(image.dtype is _DOUBLE, image, last, bias, image.shape)


class OnProcessor(Pooling, Compiled):
    """The kernels for main memory, which have Winograd's products and pooling as well."""

    def __init__(self, library: Any) -> None:
        super().__init__(library)
        self._winograd = _Winograd(self, 2, 2)
        self._winograd_wide = _Winograd(self, 4, 4)
        self._winograd_scattered = _Winograd(self, 2, 4)

    def fastest(self, product: str, shape: ConvShape) -> str:
        """The algorithm that `auto` takes.

        Winograd's products for 3 x 3 kernels between many channels; for weights, whose bits are of
        no tile, not where pixels are few. The im2col chain for gradients of large strides over few
        channels: each of many phases is too small a product, where one over all taps fills its
        tiles.
        """
        channels = min(shape.in_channels, shape.out_channels) // shape.groups
        is_weight = product == "conv2d_grad_weight"
        is_worth = not is_weight or shape.out_h * shape.out_w >= _WINOGRAD_PIXELS
        if shape.has_winograd and channels >= _WINOGRAD_CHANNELS and is_worth:
            return "winograd2"
        phases = shape.stride_h * shape.stride_w
        if product == "conv2d_grad_input" and shape.groups == 1 and phases > 16:
            return "im2col" if shape.in_channels < 64 else "implicit"
        return "implicit"

    def by_winograd(self, algorithm: str, product: str, shape: ConvShape) -> Any:
        """Winograd's products; with stride 2, few channels or for weights in the smaller tile.

        What the transforms of F(4 x 4) round away does not shrink with the channels that are
        summed: of fewer than 8 it would miss the bound of `tests/test_winograd.py`.
        """
        if product == "conv2d_grad_weight":
            return self._winograd
        if shape.stride_h == 2:
            return self._winograd if product == "conv2d" else self._winograd_scattered
        summed = shape.in_channels if product == "conv2d" else shape.out_channels
        is_wide = algorithm == "winograd4" and summed // shape.groups >= _WIDE_TILE_CHANNELS
        return self._winograd_wide if is_wide else self._winograd


_WINOGRAD_CHANNELS = 32
"""Channels on both sides from which F(2 x 2) is faster; below, its transforms cost too much."""
_WINOGRAD_PIXELS = 64
"""Of a picture of grad_output, from which the gradients of weights are worth their transforms; not
of a batch, so that processes that share one round alike."""
_WIDE_TILE_CHANNELS = 8


class _Winograd:
    """The convolutions by Winograd's algorithms, in tiles of `side` positions and `tile` pixels."""

    FINISHES = True

    def __init__(self, backend: Compiled, side: int, tile: int) -> None:
        self.TILE = tile
        self.conv2d = partial(backend.conv2d, winograd=side)
        self.conv2d_grad_input = partial(backend.conv2d_grad_input, winograd=side)
        self.conv2d_grad_weight = partial(backend.conv2d_grad_weight, winograd=2)
