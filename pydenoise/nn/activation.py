"""Activations: one function of each element, and its derivative."""

from __future__ import annotations

from torch import Tensor

from pydenoise import memory, ops

from .module import Module
from .window import Window

_RELU = ops.Finish("relu")


class Rectifier(Module):
    """What the rectifiers have in common: a convolution before them can apply them itself.

    The sign of their output is the sign of their input, so that either tells backward all.

    Attributes
    ----------
    keeps_output : bool
        Whether backward needs the output itself, which nobody may then write into.
    """

    keeps_output = False

    def reads(self, window: Window, axis: int) -> Window:
        return window

    def finish(self) -> ops.Finish | None:
        """How a convolution would apply it; None if it cannot."""
        raise TypeError(f"{type(self).__name__} defines no finish")

    def keep(self, output: Tensor) -> None:
        """Leave what backward needs, where a convolution computed the output."""
        self._keep(output, output)

    def newest(self) -> Tensor | None:
        """What the newest open forward pass left."""
        return self._entries[-1][2][0] if self._entries else None

    def drop_newest(self) -> None:
        """The convolution behind has gone back through the newest forward pass."""
        self._entries.pop()


class ReLU(Rectifier):
    """Rectifier, elementwise.

    ::

        forward    z  = max(x, 0)
        backward   gx = gz where z > 0, else 0

    The derivative at 0 is torch's 0; the backward is a selection, not a product. NaN passes, as in
    torch. Any shape; output and gradient have the shape of the input.

    Examples
    --------
    >>> import torch
    >>> layer = ReLU()
    >>> layer(torch.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    >>> layer.backward(torch.ones(3))
    tensor([0., 0., 1.])
    """

    keeps_output = True

    def forward(self, input: Tensor) -> Tensor:
        output = ops.relu(input)
        self._keep(output, output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (output,) = self._recall(grad_output)
        return ops.relu_backward(grad_output, output)

    def finish(self) -> ops.Finish:
        return _RELU


class LeakyReLU(Rectifier):
    """Rectifier with a slope `a` left of zero, elementwise.

    ::

        forward    z  = x if x > 0 else a x
        backward   gx = gz * (1 if x > 0 else a)

    Parameters
    ----------
    negative_slope : float
        The slope `a`.

    Notes
    -----
    A. Maas, A. Hannun, A. Ng, "Rectifier nonlinearities improve neural network acoustic models",
    ICML workshop 2013.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)

    def forward(self, input: Tensor) -> Tensor:
        output = ops.leaky_relu(input, self.negative_slope)
        self._keep(output, input)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (input,) = self._recall(grad_output)
        return ops.leaky_relu_backward(grad_output, input, self.negative_slope)

    def finish(self) -> ops.Finish | None:
        if not self.negative_slope >= 0:
            return None
        return ops.Finish("leaky_relu", self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope:g}"


class Sigmoid(Module):
    """Logistic function, elementwise, safe from overflow.

    ::

        forward    s  = 1 / (1 + exp(-x))
        backward   gx = gz * s * (1 - s)

    Any shape; output and gradient have the shape of the input.
    """

    def forward(self, input: Tensor) -> Tensor:
        output = ops.sigmoid(input)
        self._keep(output, output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (output,) = self._recall(grad_output)
        return ops.sigmoid_backward(grad_output, output)

    def reads(self, window: Window, axis: int) -> Window:
        return window


class Shift(Module):
    """A number added to every element.

    ::

        forward    z  = x + v
        backward   gx = gz

    Parameters
    ----------
    value : float
        The number `v`.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = float(value)

    def forward(self, input: Tensor) -> Tensor:
        output = memory.copy(input, memory.format_of(input)).add_(self.value)
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        self._recall(grad_output)
        return memory.copy(grad_output, memory.format_of(grad_output))

    def extra_repr(self) -> str:
        return f"{self.value:g}"

    def reads(self, window: Window, axis: int) -> Window:
        return window
