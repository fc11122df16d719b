"""The reference backend's pointwise half: activations, losses, optimizer updates.

Destination first, overwritten; torch's rules to the letter, NaN included. Part of `_reference`,
which holds everything with a neighbourhood.
"""

from __future__ import annotations

import math

from torch import Tensor

# Activations


def relu(out: Tensor, input: Tensor) -> None:
    """max(x, 0); a NaN stays NaN."""
    out.copy_(input.clamp(min=0))


def relu_backward(out: Tensor, grad_output: Tensor, output: Tensor) -> None:
    """gz where the output was positive, else 0: a selection, so an infinite gz gives no NaN."""
    out.copy_(grad_output.masked_fill(output <= 0, 0))


def leaky_relu(out: Tensor, input: Tensor, negative_slope: float) -> None:
    """x if x > 0 else negative_slope * x."""
    out.copy_(input.where(input > 0, input * negative_slope))


def leaky_relu_backward(
    out: Tensor, grad_output: Tensor, input: Tensor, negative_slope: float
) -> None:
    """gz * (1 if x > 0 else negative_slope)."""
    out.copy_(grad_output.where(input > 0, grad_output * negative_slope))


def sigmoid(out: Tensor, input: Tensor) -> None:
    """s = 1 / (1 + e^-x), with e^-|x| so that nothing overflows: s(-x) = e^-x s(x)."""
    decay = (-input.abs()).exp()
    positive = 1 / (1 + decay)
    out.copy_(positive.where(input >= 0, decay * positive))


def sigmoid_backward(out: Tensor, grad_output: Tensor, output: Tensor) -> None:
    """gz s (1 - s)."""
    out.copy_(grad_output * (output * (1 - output)))


# Losses: summed in float64 whatever the dtype, so that their error does not grow with the picture


def mse_loss(input: Tensor, target: Tensor) -> float:
    """mean((y - t)^2)."""
    return float((input.double() - target.double()).square().mean())


def mse_loss_backward(out: Tensor, input: Tensor, target: Tensor, grad_output: float) -> None:
    """2 (y - t) / count: the gradient with respect to y; its negative is that of t."""
    out.copy_((input - target) * (2 / max(input.numel(), 1) * grad_output))


def l1_loss(input: Tensor, target: Tensor) -> float:
    """mean |y - t|."""
    return float((input.double() - target.double()).abs().mean())


def l1_loss_backward(out: Tensor, input: Tensor, target: Tensor, grad_output: float) -> None:
    """sign(y - t) / count."""
    out.copy_((input - target).sign() * (grad_output / max(input.numel(), 1)))


L0_FLOOR = 1e-8
"""What keeps the power of a distance of zero, and its slope, finite."""


def l0_loss(input: Tensor, target: Tensor, gamma: float) -> float:
    """mean (|y - t| + 1e-8)^gamma."""
    distance = (input.double() - target.double()).abs()
    return float((distance + L0_FLOOR).pow(gamma).mean())


def l0_loss_backward(
    out: Tensor, input: Tensor, target: Tensor, gamma: float, grad_output: float
) -> None:
    """gamma (|y - t| + 1e-8)^(gamma - 1) sign(y - t) / count."""
    difference = input - target
    slope = (difference.abs() + L0_FLOOR).pow(gamma - 1) * difference.sign()
    out.copy_(slope * (gamma * grad_output / max(input.numel(), 1)))


# Optimizer updates, in place


def sgd_step(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    """d = g + wd w;  v = d at first, later mu v + (1 - damp) d;  w -= lr v, or lr (d + mu v)."""
    step = grad + weight_decay * param if weight_decay else grad
    if momentum_buffer is not None:
        if first:
            momentum_buffer.copy_(step)
        else:
            momentum_buffer.mul_(momentum).add_(step, alpha=1 - dampening)
        step = step + momentum * momentum_buffer if nesterov else momentum_buffer
    param.sub_(step, alpha=lr)


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  w -= lr m' / (sqrt(v') + eps).

    m' = m / (1 - b1^step) and v' = v / (1 - b2^step) undo the start at zero. Weight decay pulls
    the weights directly when `decoupled` (AdamW), else it is a part of g.
    """
    if decoupled:
        param.mul_(1 - lr * weight_decay)
    elif weight_decay:
        grad = grad + weight_decay * param
    exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = exp_avg_sq.sqrt().div_(math.sqrt(1 - beta2**step))
    param.addcdiv_(exp_avg, root.add_(eps), value=-lr / (1 - beta1**step))
