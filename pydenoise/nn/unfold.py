"""The patch matrix as a pair of layers, each the adjoint of the other."""

from __future__ import annotations

from torch import Tensor

from pydenoise import ops

from .module import Module
from .sizes import Pair, pair


class Unfold(Module):
    """Patches of a picture as the columns of a matrix: im2col, u(x).

    ::

        forward    z  = u(x)
        backward   gx = f(gz)

    Parameters
    ----------
    kernel_size, dilation, padding, stride : int or (int, int)
        In torch's order.

    Notes
    -----
    ``(N, C, H, W) -> (N, C kh kw, L)`` with L patch positions, as `pydenoise.ops.im2col`.
    """

    def __init__(
        self, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
    ) -> None:
        super().__init__()
        self.kernel_size = pair("Unfold", "kernel_size", kernel_size, 1)
        self.dilation = pair("Unfold", "dilation", dilation, 1)
        self.padding = pair("Unfold", "padding", padding, 0)
        self.stride = pair("Unfold", "stride", stride, 1)

    def forward(self, input: Tensor) -> Tensor:
        output = ops.im2col(input, self.kernel_size, self.dilation, self.padding, self.stride)
        self._keep(output, input.shape[2:])
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (picture,) = self._recall(grad_output)
        return ops.col2im(
            grad_output, picture, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, stride={self.stride}"
        )


class Fold(Unfold):
    """Patches summed back into a picture where they overlap: col2im, f(x), the adjoint of u.

    ::

        forward    z  = f(x)
        backward   gx = u(gz)

    Parameters
    ----------
    output_size : int or (int, int)
        Height and width of the picture.
    kernel_size, dilation, padding, stride : int or (int, int)
        In torch's order.

    Notes
    -----
    ``(N, C kh kw, L) -> (N, C, H, W)``, as `pydenoise.ops.col2im`.
    """

    def __init__(
        self,
        output_size: Pair,
        kernel_size: Pair,
        dilation: Pair = 1,
        padding: Pair = 0,
        stride: Pair = 1,
    ) -> None:
        super().__init__(kernel_size, dilation, padding, stride)
        self.output_size = pair("Fold", "output_size", output_size, 1)

    def forward(self, input: Tensor) -> Tensor:
        output = ops.col2im(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        self._recall(grad_output)
        return ops.im2col(grad_output, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {super().extra_repr()}"
