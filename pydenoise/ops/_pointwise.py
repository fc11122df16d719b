"""Activations, losses and optimizer updates: one pass over memory each."""

from __future__ import annotations

from torch import Tensor

from . import _check
from ._backend import select


def relu(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``max(x, 0)``, elementwise; NaN stays NaN. Equivalent to ``torch.relu``.

    Parameters
    ----------
    input : Tensor of any shape, float32 or float64
    out : Tensor of the same shape, optional
        Overwritten and returned; must not overlap the input. The same holds for every function
        of this file.
    """
    input = _check.tensor("relu", "input", input)
    out = _check.output("relu", out, input.shape, input, [input])
    select(input).relu(out, input)
    return out


def relu_backward(grad_output: Tensor, output: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``gz where output > 0, else 0``: a selection, so an infinite gradient makes no NaN.

    Parameters
    ----------
    grad_output, output : Tensor of one shape
        dL/dz and the ``z = relu(x)`` that the forward pass returned (its input does as well).
    """
    op = "relu_backward"
    grad_output, output = _check.of_one_shape(op, ("grad_output", "output"), (grad_output, output))
    out = _check.output(op, out, grad_output.shape, grad_output, [grad_output, output])
    select(grad_output).relu_backward(out, grad_output, output)
    return out


def leaky_relu(input: Tensor, negative_slope: float = 0.01, *, out: Tensor | None = None) -> Tensor:
    """``x if x > 0 else negative_slope * x``, elementwise."""
    op = "leaky_relu"
    input = _check.tensor(op, "input", input)
    out = _check.output(op, out, input.shape, input, [input])
    select(input).leaky_relu(out, input, float(negative_slope))
    return out


def leaky_relu_backward(
    grad_output: Tensor, input: Tensor, negative_slope: float = 0.01, *, out: Tensor | None = None
) -> Tensor:
    """``gz * (1 if x > 0 else negative_slope)``, elementwise."""
    op = "leaky_relu_backward"
    grad_output, input = _check.of_one_shape(op, ("grad_output", "input"), (grad_output, input))
    out = _check.output(op, out, grad_output.shape, grad_output, [grad_output, input])
    select(grad_output).leaky_relu_backward(out, grad_output, input, float(negative_slope))
    return out


def sigmoid(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``s = 1 / (1 + e^-x)``, elementwise, safe against overflow."""
    input = _check.tensor("sigmoid", "input", input)
    out = _check.output("sigmoid", out, input.shape, input, [input])
    select(input).sigmoid(out, input)
    return out


def sigmoid_backward(grad_output: Tensor, output: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``gz * s * (1 - s)`` with ``s = output`` of the forward pass."""
    op = "sigmoid_backward"
    grad_output, output = _check.of_one_shape(op, ("grad_output", "output"), (grad_output, output))
    out = _check.output(op, out, grad_output.shape, grad_output, [grad_output, output])
    select(grad_output).sigmoid_backward(out, grad_output, output)
    return out


def _pair(op: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    input, target = _check.of_one_shape(op, ("input", "target"), (input, target))
    if input.numel() == 0:
        raise ValueError(f"{op}: the mean of nothing; got shape {tuple(input.shape)}")
    return input, target


def mse_loss(input: Tensor, target: Tensor) -> float:
    """``mean((y - t)^2)`` over all elements, summed in float64."""
    input, target = _pair("mse_loss", input, target)
    loss: float = select(input).mse_loss(input, target)
    return loss


def mse_loss_backward(
    input: Tensor, target: Tensor, grad_output: float = 1.0, *, out: Tensor | None = None
) -> Tensor:
    """``g 2 (y - t) / count``: the gradient of ``g mse_loss`` with respect to ``y = input``."""
    op = "mse_loss_backward"
    input, target = _pair(op, input, target)
    out = _check.output(op, out, input.shape, input, [input, target])
    select(input).mse_loss_backward(out, input, target, float(grad_output))
    return out


def l1_loss(input: Tensor, target: Tensor) -> float:
    """``mean |y - t|`` over all elements, summed in float64."""
    input, target = _pair("l1_loss", input, target)
    loss: float = select(input).l1_loss(input, target)
    return loss


def l1_loss_backward(
    input: Tensor, target: Tensor, grad_output: float = 1.0, *, out: Tensor | None = None
) -> Tensor:
    """``g sign(y - t) / count``: the gradient of ``g l1_loss`` with respect to ``y = input``."""
    op = "l1_loss_backward"
    input, target = _pair(op, input, target)
    out = _check.output(op, out, input.shape, input, [input, target])
    select(input).l1_loss_backward(out, input, target, float(grad_output))
    return out


def l0_loss(input: Tensor, target: Tensor, gamma: float) -> float:
    """``mean (|y - t| + 1e-8)^gamma`` over all elements, summed in float64."""
    input, target = _pair("l0_loss", input, target)
    loss: float = select(input).l0_loss(input, target, float(gamma))
    return loss


def l0_loss_backward(
    input: Tensor,
    target: Tensor,
    gamma: float,
    grad_output: float = 1.0,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """``g gamma (|y - t| + 1e-8)^(gamma - 1) sign(y - t) / count``, that of ``g l0_loss``."""
    op = "l0_loss_backward"
    input, target = _pair(op, input, target)
    out = _check.output(op, out, input.shape, input, [input, target])
    select(input).l0_loss_backward(out, input, target, float(gamma), float(grad_output))
    return out


def _state(op: str, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors that an optimizer updates together: contiguous, of one shape, dtype and device."""
    plain = _check.of_one_shape(op, names, tensors)
    for name, state in zip(names, plain, strict=True):
        if not state.is_contiguous():
            raise ValueError(f"{op}: {name} must be contiguous, got strides {state.stride()}")
    return plain


def sgd_step(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """One step of stochastic gradient descent, in place, by torch's rule.

    ``d = g + wd w``; with momentum ``v = d`` at the `first` step and ``v = mu v + (1 - damp) d``
    later; ``w -= lr d``, ``w -= lr v``, or ``w -= lr (d + mu v)`` with Nesterov's look ahead.

    Parameters
    ----------
    param, grad, momentum_buffer : Tensor of one shape, contiguous
        The weights w, their gradient g, and v (None without momentum). w and v are updated.
    """
    op = "sgd_step"
    v = None
    if momentum_buffer is not None:
        names = ("param", "grad", "momentum_buffer")
        w, g, v = _state(op, names, (param, grad, momentum_buffer))
    elif momentum != 0:
        raise ValueError(f"{op}: momentum needs a momentum_buffer")
    else:
        w, g = _state(op, ("param", "grad"), (param, grad))
    select(w).sgd_step(w, g, v, lr, momentum, dampening, weight_decay, nesterov, first)


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    step: int,
) -> None:
    """One step of Adam (or AdamW when `decoupled`), in place, by torch's rule.

    ``m = b1 m + (1 - b1) g``; ``v = b2 v + (1 - b2) g^2``;
    ``w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)``.

    Parameters
    ----------
    param, grad, exp_avg, exp_avg_sq : Tensor of one shape, contiguous
        w, g, m and v; w, m and v are updated.
    step : int
        t, counted from 1.

    Notes
    -----
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015; I. Loshchilov,
    F. Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """
    op = "adam_step"
    names = ("param", "grad", "exp_avg", "exp_avg_sq")
    w, g, m, v = _state(op, names, (param, grad, exp_avg, exp_avg_sq))
    step = _check.integer(op, "step", step, 1)
    select(w).adam_step(w, g, m, v, lr, beta1, beta2, eps, weight_decay, decoupled, step)
