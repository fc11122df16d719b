"""Convolution and its transpose.

Three kernels serve both convolutions: what is forward for one is the gradient of the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pydenoise import memory, ops

from . import init as first_values
from .module import Module
from .sizes import Pair, pair, whole
from .window import Window


class Convolution(Module):
    """What both convolutions have: geometry, weight, bias, and how they are first filled.

    Attributes
    ----------
    watcher : callable or None
        Told, with the layer, whenever a backward has added to its gradients; see
        `pydenoise.nn.hooks.gradients_seen`.
    """

    weight: Tensor
    bias: Tensor | None
    watcher: Callable[[Convolution], None] | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.in_channels = whole(layer, "in_channels", in_channels, 1)
        self.out_channels = whole(layer, "out_channels", out_channels, 1)
        self.kernel_size = pair(layer, "kernel_size", kernel_size, 1)
        self.stride = pair(layer, "stride", stride, 1)
        self.padding = pair(layer, "padding", padding, 0)
        self.dilation = pair(layer, "dilation", dilation, 1)
        self.groups = whole(layer, "groups", groups, 1)
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(
                    f"{layer}: {name} must be divisible by groups, "
                    f"got {getattr(self, name)} and {self.groups}"
                )

    def _make_parameters(
        self,
        channels: tuple[int, int],
        bias: bool,
        init: str,
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        size = (*channels, *self.kernel_size)
        self.register_parameter("weight", memory.empty(size, dtype=dtype, device=device))
        values = memory.empty((self.out_channels,), dtype=dtype, device=device) if bias else None
        self.register_parameter("bias", values)
        first_values.fill(self.weight, self.bias, init, generator)

    def _grad(self, name: str) -> Tensor:
        parameter = self._parameters[name]
        assert parameter is not None
        return parameter.grad

    def forward(self, input: Tensor) -> Tensor:
        return self.forward_finished(input)

    def backward(self, grad_output: Tensor) -> Tensor:
        return self.backward_finished(grad_output)

    def backward_parameters(self, grad_output: Tensor) -> None:
        self._back(grad_output, False)
        if self.watcher is not None:
            self.watcher(self)

    def forward_finished(
        self,
        input: Tensor,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor:
        """`forward` with an activation behind it and its result in a memory format."""
        raise TypeError(f"{type(self).__name__} defines no forward_finished")

    def backward_finished(
        self,
        grad_output: Tensor,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor:
        """`backward`, and on through the activation that made the input."""
        grad_input = self._back(grad_output, True, finish, memory_format)
        assert grad_input is not None
        if self.watcher is not None:
            self.watcher(self)
        return grad_input

    def _back(
        self,
        grad_output: Tensor,
        needs_grad_input: bool,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor | None:
        """Add the parameters' gradients; grad_input where it is needed."""
        raise TypeError(f"{type(self).__name__} defines no backward")

    def newest_input(self) -> Tensor | None:
        """The input of the newest open forward pass."""
        return self._entries[-1][2][0] if self._entries else None

    def extra_repr(self) -> str:
        unusual = {
            "padding": (self.padding, (0, 0)),
            "dilation": (self.dilation, (1, 1)),
            "output_padding": (getattr(self, "output_padding", (0, 0)), (0, 0)),
            "groups": (self.groups, 1),
            "bias": (self.bias is not None, True),
        }
        words = [f"{self.in_channels}, {self.out_channels}"]
        words += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        words += [f"{name}={value}" for name, (value, usual) in unusual.items() if value != usual]
        return ", ".join(words)


class Conv2d(Convolution):
    """2-d convolution, in the sense of cross-correlation.

    ::

        forward    z  = W u(x) + b
        backward   gW += gz u(x)^T      gb += sum over n, h, w of gz      gx = f(W^T gz)

    with u the patches of a picture as columns (`Unfold`) and f its adjoint (`Fold`).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int, int)
        Of (height, width).
    groups : int
        Divides both channel counts; group i of the input makes group i of the output.
    bias : bool
    init : str
        First values by name, see `pydenoise.nn.init.fill`.
    generator : torch.Generator, optional
        Where they are drawn from; seeded by the system if omitted.
    dtype : torch.dtype, optional
        float32 or float64; torch's default dtype if omitted.
    device : torch.device or str, optional

    Attributes
    ----------
    weight : Tensor (out_channels, in_channels / groups, kh, kw)
    bias : Tensor (out_channels,) or None

    Raises
    ------
    ValueError, TypeError
        For a number out of its range; forward and backward raise as `pydenoise.ops.conv2d` does.

    Notes
    -----
    ``(N, C_in, H, W) -> (N, C_out, H_out, W_out)``,
    ``H_out = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1``.

    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for
    document processing", IWFHR 2006.

    Examples
    --------
    >>> import torch
    >>> layer = Conv2d(3, 48, kernel_size=3, stride=2, padding=1)
    >>> output = layer(torch.rand(16, 3, 32, 32))
    >>> output.shape
    torch.Size([16, 48, 16, 16])
    >>> layer.backward(torch.ones_like(output)).shape
    torch.Size([16, 3, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        init: str = "default",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        channels = (self.out_channels, self.in_channels // self.groups)
        self._make_parameters(channels, bias, init, generator, dtype, device)

    def forward_finished(
        self,
        input: Tensor,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor:
        output = ops.conv2d(
            input,
            self.weight,
            self.bias,
            *self._geometry(),
            finish=finish,
            memory_format=memory_format,
        )
        self._keep(output, input)
        return output

    def _back(
        self,
        grad_output: Tensor,
        needs_grad_input: bool,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor | None:
        (input,) = self._recall(grad_output)
        return ops.conv2d_backward(
            grad_output,
            input,
            self.weight,
            *self._geometry(),
            grad_weight=self._grad("weight"),
            grad_bias=None if self.bias is None else self._grad("bias"),
            needs_grad_input=needs_grad_input,
            finish=finish,
            memory_format=memory_format,
        )

    def reads(self, window: Window, axis: int) -> Window:
        tile = ops.result_tile("conv2d", self.weight, *self._geometry())
        return window.whole(tile).gathered(
            self.kernel_size[axis], self.stride[axis], self.padding[axis], self.dilation[axis]
        )

    def _geometry(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
        return self.stride, self.padding, self.dilation, self.groups


class ConvTranspose2d(Convolution):
    """Transposed convolution: `Conv2d` with forward and gradient in each other's place.

    ::

        forward    z  = f(W^T x) + b
        backward   gW += x u(gz)^T      gb += sum over n, h, w of gz      gx = W u(gz)

    Forward is `conv2d_grad_input`, gx is `conv2d`, and gW is `conv2d_grad_weight` with the input
    and grad_output swapped. Zero-insertion and a kernel rotated by 180 degrees give the same map.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int, int)
        Of the convolution that this one transposes.
    output_padding : int or (int, int)
        Rows and columns added at the bottom and the right of the output, smaller than the stride
        or the dilation: which of the sizes that the convolution maps to the input's is meant.
    groups : int
        Divides both channel counts.
    bias : bool
    init, generator, dtype, device
        As in `Conv2d`.

    Attributes
    ----------
    weight : Tensor (in_channels, out_channels / groups, kh, kw)
    bias : Tensor (out_channels,) or None

    Raises
    ------
    ValueError, TypeError
        As in `Conv2d`.

    Notes
    -----
    ``(N, C_in, H, W) -> (N, C_out, H_out, W_out)``,
    ``H_out = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
        *,
        init: str = "default",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        self.output_padding = pair("ConvTranspose2d", "output_padding", output_padding, 0)
        for extra, stride_, dilation_ in zip(
            self.output_padding, self.stride, self.dilation, strict=True
        ):
            if extra >= max(stride_, dilation_):
                raise ValueError(
                    "ConvTranspose2d: output_padding must be smaller than the stride or the "
                    f"dilation, got output_padding {self.output_padding}, stride {self.stride}, "
                    f"dilation {self.dilation}"
                )
        channels = (self.in_channels, self.out_channels // self.groups)
        self._make_parameters(channels, bias, init, generator, dtype, device)

    def forward_finished(
        self,
        input: Tensor,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor:
        output = ops.conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            finish=finish,
            memory_format=memory_format,
        )
        self._keep(output, input)
        return output

    def _back(
        self,
        grad_output: Tensor,
        needs_grad_input: bool,
        finish: ops.Finish | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Tensor | None:
        (input,) = self._recall(grad_output)
        return ops.conv_transpose2d_backward(
            grad_output,
            input,
            self.weight,
            self.stride,
            self.padding,
            self.groups,
            self.dilation,
            grad_weight=self._grad("weight"),
            grad_bias=None if self.bias is None else self._grad("bias"),
            needs_grad_input=needs_grad_input,
            finish=finish,
            memory_format=memory_format,
        )

    def reads(self, window: Window, axis: int) -> Window:
        geometry = self.stride, self.padding, self.dilation, self.groups
        tile = ops.result_tile("conv2d_grad_input", self.weight, *geometry)
        return window.whole(tile).scattered(
            self.kernel_size[axis],
            self.stride[axis],
            self.padding[axis],
            self.dilation[axis],
            self.output_padding[axis],
        )
