"""Layers that change the resolution and learn nothing: pooling and nearest upsampling."""

from __future__ import annotations

from torch import Tensor

from pydenoise import ops

from .module import Module
from .sizes import Pair, pair
from .window import Window


class _Pool(Module):
    """A window that slides over the picture."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair(layer, "stride", stride, 1)
        self.padding = pair(layer, "padding", padding, 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"{layer}: padding must be at most half the kernel, "
                f"got padding {self.padding}, kernel_size {self.kernel_size}"
            )

    def reads(self, window: Window, axis: int) -> Window:
        return window.gathered(self.kernel_size[axis], self.stride[axis], self.padding[axis])

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(_Pool):
    """Largest value of each window.

    ::

        forward    z  = max of x over the window
        backward   gx = sum of gz over the windows whose maximum stands here, else 0

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if omitted.
    padding : int or (int, int)
        At most half the kernel; never the maximum.

    Notes
    -----
    ``(N, C, H, W) -> (N, C, H_out, W_out)``, ``H_out = floor((H + 2 padding - kh) / stride) + 1``.
    Of equal values the first in row order counts, as in torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        output, indices = ops.max_pool2d(input, self.kernel_size, self.stride, self.padding)
        self._keep(output, indices, input.shape)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        indices, input_size = self._recall(grad_output)
        return ops.max_pool2d_backward(grad_output, indices, input_size)


class AvgPool2d(_Pool):
    """Mean of each window, padded zeros counted.

    ::

        forward    z  = sum of x over the window / (kh kw)
        backward   gx = sum of gz / (kh kw) over the windows that cover this pixel

    Parameters
    ----------
    kernel_size : int or (int, int)
    stride : int or (int, int), optional
        `kernel_size` if omitted.
    padding : int or (int, int)
        At most half the kernel.

    Notes
    -----
    ``(N, C, H, W) -> (N, C, H_out, W_out)``, ``H_out = floor((H + 2 padding - kh) / stride) + 1``.
    """

    def forward(self, input: Tensor) -> Tensor:
        output = ops.avg_pool2d(input, self.kernel_size, self.stride, self.padding)
        self._keep(output, input.shape)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (input_size,) = self._recall(grad_output)
        return ops.avg_pool2d_backward(
            grad_output, input_size, self.kernel_size, self.stride, self.padding
        )


class Upsample(Module):
    """Each pixel repeated, by a whole factor.

    ::

        forward    z[y, x]  = x[y // k, x // k]
        backward   gx[y, x] = sum of gz over the k x k pixels that came from this one

    Parameters
    ----------
    scale_factor : int or (int, int)
        k, for height and width.
    mode : str
        `nearest` alone.

    Notes
    -----
    ``(N, C, H, W) -> (N, C, k H, k W)``.
    """

    def __init__(self, scale_factor: Pair, mode: str = "nearest") -> None:
        super().__init__()
        if mode != "nearest":
            raise ValueError(f"Upsample: mode must be 'nearest', got {mode!r}")
        self.scale_factor = pair("Upsample", "scale_factor", scale_factor, 1)

    def forward(self, input: Tensor) -> Tensor:
        output = ops.upsample_nearest2d(input, self.scale_factor)
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        self._recall(grad_output)
        return ops.upsample_nearest2d_backward(grad_output, self.scale_factor)

    def reads(self, window: Window, axis: int) -> Window:
        factor = self.scale_factor[axis]
        return window.scattered(factor, factor, 0)

    def extra_repr(self) -> str:
        return f"scale_factor={self.scale_factor}"
