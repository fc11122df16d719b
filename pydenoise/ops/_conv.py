"""The convolution family: three kernels serve a convolution, its mirror and all their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _check
from ._backend import convolver, select
from ._check import Pair
from ._finish import Finish, apply
from ._geometry import forward_shape, mirrored_shape, sizes_of


def _bias(op: str, bias: Any, channels: int, input: Tensor) -> Tensor | None:
    if bias is None:
        return None
    _, plain = _check.tensors(op, ("input", "bias"), (input, bias))
    if plain.shape != (channels,):
        plain = _check.tensor(op, "bias", plain, 1)
        raise ValueError(
            f"{op}: bias must have one value for each of {channels} output channels, "
            f"got {plain.shape[0]}"
        )
    return plain


def checked_finish(
    op: str, finish: Finish | None, size: tuple[int, ...], input: Tensor
) -> tuple[Finish | None, Tensor | None]:
    """The finish once it is known to fit, and the tensor that it reads, made ready."""
    if finish is None:
        return None, None
    if not (isinstance(finish, Finish) and isinstance(finish.negative_slope, (int, float))):
        raise TypeError(f"{op}: finish must be a Finish with a number as slope, got {finish!r}")
    if finish.activation not in ("relu", "leaky_relu") or not finish.negative_slope >= 0:
        raise ValueError(f"{op}: finish must be relu or leaky_relu with a slope of 0 or more")
    if finish.output is None:
        return finish, None
    _, output = _check.tensors(op, ("input", "finish.output"), (input, finish.output))
    if output.shape != size:
        raise ValueError(
            f"{op}: finish.output must have the shape of the result, {size}, "
            f"got {tuple(output.shape)}"
        )
    return finish if output is finish.output else finish._replace(output=output), output


def finished(
    convolve: Callable[..., None],
    chosen: Any,
    finish: Finish | None,
    out: Tensor,
    *operands: Any,
) -> None:
    """The product, finished while it is written or afterwards."""
    if finish is None:
        convolve(out, *operands)
    elif chosen.FINISHES:
        convolve(out, *operands, finish)
    else:
        convolve(out, *operands)
        apply(select(out), finish, out)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    out: Tensor | None = None,
    finish: Finish | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """2-d convolution (cross-correlation): ``z = W u(x) + b``.

    Parameters
    ----------
    input : Tensor (N, C_in, H, W), float32 or float64
    weight : Tensor (C_out, C_in/groups, kh, kw)
    bias : Tensor (C_out,), optional
    stride, padding, dilation : int or (int, int)
    groups : int
    out : Tensor (N, C_out, H_out, W_out), optional
        Overwritten and returned.
    finish : Finish, optional
        An activation to apply, or to take the gradient through, before the result is written.
    memory_format : torch.memory_format, optional
        Of the result, without `out`; that of `input` if omitted.

    Returns
    -------
    Tensor (N, C_out, H_out, W_out)
        ``H_out = floor((H + 2 padding - dilation (kh - 1) - 1) / stride) + 1``; in the memory
        format of `input`. Equivalent to ``torch.nn.functional.conv2d``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv2d"
    input, weight = _check.tensors(op, ("input", "weight"), (input, weight), 4)
    shape = forward_shape(op, (input.shape, weight.shape), stride, padding, dilation, groups)
    bias = _bias(op, bias, shape.out_channels, input)
    finish, activated = checked_finish(op, finish, shape.output_size, input)
    inputs = [input, weight, bias, activated]
    out = _check.output(op, out, shape.output_size, input, inputs, memory_format=memory_format)
    chosen = convolver("conv2d", input, shape)
    finished(chosen.conv2d, chosen, finish, out, input, weight, bias, shape)
    return out


def conv2d_grad_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    out: Tensor | None = None,
    finish: Finish | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """Gradient of `conv2d` with respect to its input: ``gx = f(W^T gz)``.

    Parameters
    ----------
    input_size : sequence of 4 ints
        (N, C_in, H, W) of the input.
    weight : Tensor (C_out, C_in/groups, kh, kw)
    grad_output : Tensor (N, C_out, H_out, W_out)
    stride, padding, dilation, groups
        Those of the forward convolution.
    out : Tensor (N, C_in, H, W), optional
        Overwritten (not added to) and returned.
    finish : Finish, optional
        An activation to apply, or to take the gradient through, before the result is written.
    memory_format : torch.memory_format, optional
        Of the result, without `out`; that of `grad_output` if omitted.

    Returns
    -------
    Tensor (N, C_in, H, W)
        In the memory format of `grad_output`. Equivalent to ``torch.nn.grad.conv2d_input``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv2d_grad_input"
    weight, grad_output = _check.tensors(op, ("weight", "grad_output"), (weight, grad_output), 4)
    shape = forward_shape(
        op,
        (sizes_of(op, "input_size", input_size), weight.shape, grad_output.shape),
        stride,
        padding,
        dilation,
        groups,
    )
    finish, activated = checked_finish(op, finish, shape.input_size, grad_output)
    inputs = [weight, grad_output, activated]
    out = _check.output(op, out, shape.input_size, grad_output, inputs, memory_format=memory_format)
    chosen = convolver("conv2d_grad_input", weight, shape)
    finished(chosen.conv2d_grad_input, chosen, finish, out, grad_output, weight, None, shape)
    return out


def conv2d_grad_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    out: Tensor | None = None,
    accumulate: bool = False,
) -> Tensor:
    """Gradient of `conv2d` with respect to its weight: ``gW = gz u(x)^T``.

    Parameters
    ----------
    input : Tensor (N, C_in, H, W), float32 or float64
    weight_size : sequence of 4 ints
        (C_out, C_in/groups, kh, kw).
    grad_output : Tensor (N, C_out, H_out, W_out)
    stride, padding, dilation, groups
        Those of the forward convolution.
    out : Tensor (C_out, C_in/groups, kh, kw), optional
        Overwritten and returned; added to when `accumulate`.
    accumulate : bool
        ``out += gW`` instead of ``out = gW``; needs `out`.

    Returns
    -------
    Tensor (C_out, C_in/groups, kh, kw)
        Equivalent to ``torch.nn.grad.conv2d_weight``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv2d_grad_weight"
    input, grad_output = _check.tensors(op, ("input", "grad_output"), (input, grad_output), 4)
    shape = forward_shape(
        op,
        (input.shape, sizes_of(op, "weight_size", weight_size), grad_output.shape),
        stride,
        padding,
        dilation,
        groups,
    )
    out = _accumulated(op, out, shape.weight_size, input, [input, grad_output], accumulate)
    convolver("conv2d_grad_weight", input, shape).conv2d_grad_weight(
        out, grad_output, input, shape, accumulate
    )
    return out


def conv2d_grad_bias(
    grad_output: Tensor, *, out: Tensor | None = None, accumulate: bool = False
) -> Tensor:
    """Gradient of a convolution with respect to its bias: ``gb = sum over n, h, w of gz``.

    Parameters
    ----------
    grad_output : Tensor (N, C, H, W), float32 or float64
    out : Tensor (C,), optional
        Overwritten and returned; added to when `accumulate`.
    accumulate : bool
        ``out += gb`` instead of ``out = gb``; needs `out`.

    Returns
    -------
    Tensor (C,)

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what came and what was expected.
    """
    op = "conv2d_grad_bias"
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    channels = (grad_output.shape[1],)
    out = _accumulated(op, out, channels, grad_output, [grad_output], accumulate)
    select(grad_output).conv2d_grad_bias(out, grad_output, accumulate)
    return out


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    *,
    out: Tensor | None = None,
    finish: Finish | None = None,
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """Transposed convolution: ``z = f(W^T x) + b``, `conv2d_grad_input` with the roles swapped.

    Parameters
    ----------
    input : Tensor (N, C_in, H, W), float32 or float64
    weight : Tensor (C_in, C_out/groups, kh, kw)
    bias : Tensor (C_out,), optional
    stride, padding, output_padding, dilation : int or (int, int)
        ``output_padding`` must be smaller than the stride or the dilation.
    groups : int
    out : Tensor (N, C_out, H_out, W_out), optional
        Overwritten and returned.
    finish : Finish, optional
        An activation to apply, or to take the gradient through, before the result is written.
    memory_format : torch.memory_format, optional
        Of the result, without `out`; that of `input` if omitted.

    Returns
    -------
    Tensor (N, C_out, H_out, W_out)
        ``H_out = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1``; in the
        memory format of `input`. Equivalent to ``torch.nn.functional.conv_transpose2d``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, the shapes that came and what was expected.
    """
    op = "conv_transpose2d"
    input, weight = _check.tensors(op, ("input", "weight"), (input, weight), 4)
    shape = mirrored_shape(
        op,
        (input.shape, weight.shape),
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )
    bias = _bias(op, bias, shape.in_channels, input)
    finish, activated = checked_finish(op, finish, shape.input_size, input)
    inputs = [input, weight, bias, activated]
    out = _check.output(op, out, shape.input_size, input, inputs, memory_format=memory_format)
    chosen = convolver("conv2d_grad_input", input, shape)
    finished(chosen.conv2d_grad_input, chosen, finish, out, input, weight, bias, shape)
    return out


def result_tile(
    product: str, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> int:
    """Side of the tiles in which a product's result is computed, from multiples of it on.

    Parameters
    ----------
    product : 'conv2d' or 'conv2d_grad_input'
    weight : Tensor (C_out, C_in/groups, kh, kw)
    stride, padding, dilation, groups
        Those of the forward convolution.

    Returns
    -------
    int
        1 where a pixel's bits are its own; a pixel of a Winograd tile rounds with its neighbours.
    """
    steps = _check.pair(product, "dilation", dilation, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(steps, weight.shape[2:], strict=True)]
    sizes = (1, weight.shape[1] * groups, *reach), tuple(weight.shape)
    shape = forward_shape(product, sizes, stride, padding, dilation, groups)
    tile: int = convolver(product, weight, shape).TILE
    return tile


def _accumulated(
    op: str,
    out: Tensor | None,
    size: tuple[int, ...],
    like: Tensor,
    inputs: list[Tensor],
    accumulate: bool,
) -> Tensor:
    if out is None and accumulate:
        raise ValueError(f"{op}: accumulate=True adds into out; pass out= as well")
    return _check.output(op, out, size, like, inputs, picture=False)
