"""The convolution family: three kernels serve a convolution, its mirror and all their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from . import _check
from ._backend import convolver, select
from ._check import Pair
from ._shape import ConvShape, extent


@lru_cache(maxsize=4096)
def _geometry(
    op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[int, int, int, int, int, int, int, int]:
    return (
        *_check.pair(op, "kernel_size", kernel_size, 1),
        *_check.pair(op, "stride", stride, 1),
        *_check.pair(op, "padding", padding, 0),
        *_check.pair(op, "dilation", dilation, 1),
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _shape(
    op: str,
    input_size: tuple[int, ...],
    weight_size: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    out_size: tuple[int, int] | None = None,
) -> ConvShape:
    """The ConvShape of these sizes, or the sentence that says why there is none."""
    came = f"got input {input_size}, weight {weight_size}"
    groups = _check.integer(op, "groups", groups, 1)
    n, c, h, w = input_size
    m, group_c, *kernel = weight_size
    kh, kw, sh, sw, ph, pw, dh, dw = _geometry(op, tuple(kernel), stride, padding, dilation)
    if min(c, h, w, m) < 1:
        raise ValueError(f"{op}: only the batch may be empty; {came}")
    if c != group_c * groups:
        expected = f"{group_c * groups} input channels"
        if groups > 1:
            expected += f" ({group_c} in each of {groups} groups)"
        raise ValueError(f"{op}: weight expects {expected}, input has {c}; {came}")
    if m % groups:
        raise ValueError(
            f"{op}: {m} output channels cannot be divided into {groups} groups; {came}"
        )
    extents = []
    for side, size, k, s, p, d in (("height", h, kh, sh, ph, dh), ("width", w, kw, sw, pw, dw)):
        if size + 2 * p < d * (k - 1) + 1:
            raise ValueError(
                f"{op}: the kernel spans {d * (k - 1) + 1} pixels in {side}, the padded picture "
                f"has {size + 2 * p}; {came}, padding {(ph, pw)}, dilation {(dh, dw)}"
            )
        extents.append(extent(size, k, s, p, d))
    out_h, out_w = extents if out_size is None else out_size
    if not (1 <= out_h <= extents[0] and 1 <= out_w <= extents[1]):
        raise ValueError(
            f"{op}: grad_output of {out_h} x {out_w} pixels does not belong to this convolution, "
            f"whose output is {extents[0]} x {extents[1]}; {came}"
        )
    return ConvShape(n, groups, c, h, w, m, out_h, out_w, kh, kw, sh, sw, ph, pw, dh, dw)


def _bias(op: str, bias: Any, channels: int) -> Tensor | None:
    if bias is None:
        return None
    bias = _check.tensor(op, "bias", bias, 1)
    if bias.shape[0] != channels:
        raise ValueError(
            f"{op}: bias must have one value for each of {channels} output channels, "
            f"got {bias.shape[0]}"
        )
    return bias


def _sizes(op: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    sizes = tuple(value) if isinstance(value, Sequence) else ()
    if len(sizes) != count:
        raise ValueError(f"{op}: {name} must be {count} sizes, got {value!r}")
    return tuple(_check.integer(op, name, size, 0) for size in sizes)


def im2col(
    input: Tensor,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Patches of a picture as the columns of a matrix: the report's ``u(x)``.

    Parameters
    ----------
    input : Tensor (N, C, H, W), float32 or float64
    kernel_size, dilation, padding, stride : int or (int, int)
        In the order of ``torch.nn.functional.unfold``, to which this is equal bit by bit.
    out : Tensor (N, C*kh*kw, L), optional
        Overwritten and returned.

    Returns
    -------
    Tensor (N, C*kh*kw, L)
        ``L = H_out * W_out``; row ``(c*kh + i)*kw + j``, column ``y*W_out + x`` holds
        ``input[n, c, y*stride + i*dilation - padding, x*stride + j*dilation - padding]``, zero
        outside the picture.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what came and what was expected.

    Notes
    -----
    K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for
    document processing", IWFHR 2006.

    Examples
    --------
    >>> import torch
    >>> im2col(torch.arange(9.0).view(1, 1, 3, 3), kernel_size=2)[0]
    tensor([[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]])
    """
    input = _check.tensor("im2col", "input", input, 4)
    kernel = _check.pair("im2col", "kernel_size", kernel_size, 1)
    channels = input.shape[1]
    shape = _shape(
        "im2col",
        tuple(input.shape),
        (1, channels, *kernel),
        _hashable(stride),
        _hashable(padding),
        _hashable(dilation),
        1,
    )
    out = _check.output("im2col", out, shape.columns_size, input, [input])
    select(input).im2col(out, input, shape)
    return out


def col2im(
    input: Tensor,
    output_size: Pair,
    kernel_size: Pair,
    dilation: Pair = 1,
    padding: Pair = 0,
    stride: Pair = 1,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Columns summed back into a picture: the report's ``f(.)``, the adjoint of `im2col`.

    Parameters
    ----------
    input : Tensor (N, C*kh*kw, L), float32 or float64
    output_size : int or (int, int)
        Height and width of the picture.
    kernel_size, dilation, padding, stride : int or (int, int)
        As in ``torch.nn.functional.fold``.
    out : Tensor (N, C, H, W), optional
        Overwritten (not added to) and returned.

    Returns
    -------
    Tensor (N, C, H, W)
        Where patches overlap their values are summed: ``<im2col(x), c> == <x, col2im(c)>``.

    Raises
    ------
    ValueError, TypeError
        Naming the argument, what came and what was expected.
    """
    op = "col2im"
    columns = _check.tensor(op, "input", input, 3)
    height, width = _check.pair(op, "output_size", output_size, 1)
    kh, kw = _check.pair(op, "kernel_size", kernel_size, 1)
    n, rows, positions = columns.shape
    if rows == 0 or rows % (kh * kw):
        raise ValueError(
            f"{op}: input must have C * {kh} * {kw} rows for a kernel of {kh} x {kw}, "
            f"got {tuple(columns.shape)}"
        )
    channels = rows // (kh * kw)
    shape = _shape(
        op,
        (n, channels, height, width),
        (1, channels, kh, kw),
        _hashable(stride),
        _hashable(padding),
        _hashable(dilation),
        1,
    )
    if positions != shape.out_h * shape.out_w:
        raise ValueError(
            f"{op}: a picture of {height} x {width} has {shape.out_h} x {shape.out_w} = "
            f"{shape.out_h * shape.out_w} patches, input has {positions} columns; "
            f"got {tuple(columns.shape)}"
        )
    out = _check.output(op, out, shape.input_size, columns, [columns])
    select(columns).col2im(out, columns, shape)
    return out


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
    input = _check.tensor(op, "input", input, 4)
    weight = _check.tensor(op, "weight", weight, 4)
    shape = _shape(
        op,
        tuple(input.shape),
        tuple(weight.shape),
        _hashable(stride),
        _hashable(padding),
        _hashable(dilation),
        groups,
    )
    bias = _bias(op, bias, shape.out_channels)
    _check.alike(op, input=input, weight=weight, bias=bias)
    out = _check.output(op, out, shape.output_size, input, [input, weight, bias])
    convolver(input).conv2d(out, input, weight, bias, shape)
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
    weight = _check.tensor(op, "weight", weight, 4)
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    sizes = _sizes(op, "input_size", input_size, 4)
    shape = _shape(
        op,
        sizes,
        tuple(weight.shape),
        _hashable(stride),
        _hashable(padding),
        _hashable(dilation),
        groups,
        tuple(grad_output.shape[2:]),
    )
    _expect_grad_output(op, grad_output, shape)
    _check.alike(op, weight=weight, grad_output=grad_output)
    out = _check.output(op, out, shape.input_size, grad_output, [weight, grad_output])
    convolver(weight).conv2d_grad_input(out, grad_output, weight, None, shape)
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
    input = _check.tensor(op, "input", input, 4)
    grad_output = _check.tensor(op, "grad_output", grad_output, 4)
    shape = _shape(
        op,
        tuple(input.shape),
        _sizes(op, "weight_size", weight_size, 4),
        _hashable(stride),
        _hashable(padding),
        _hashable(dilation),
        groups,
        tuple(grad_output.shape[2:]),
    )
    _expect_grad_output(op, grad_output, shape)
    _check.alike(op, input=input, grad_output=grad_output)
    out = _accumulated(op, out, shape.weight_size, input, [input, grad_output], accumulate)
    convolver(input).conv2d_grad_weight(out, grad_output, input, shape, accumulate)
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
    input = _check.tensor(op, "input", input, 4)
    weight = _check.tensor(op, "weight", weight, 4)
    shape = _mirrored_shape(
        op,
        tuple(input.shape),
        tuple(weight.shape),
        _hashable(stride),
        _hashable(padding),
        _hashable(output_padding),
        groups,
        _hashable(dilation),
    )
    bias = _bias(op, bias, shape.in_channels)
    _check.alike(op, input=input, weight=weight, bias=bias)
    out = _check.output(op, out, shape.input_size, input, [input, weight, bias])
    convolver(input).conv2d_grad_input(out, input, weight, bias, shape)
    return out


@lru_cache(maxsize=4096)
def _mirrored_shape(
    op: str,
    input_size: tuple[int, ...],
    weight_size: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> ConvShape:
    """The forward convolution whose mirror maps `input_size` to the picture wanted."""
    came = f"got input {input_size}, weight {weight_size}"
    groups = _check.integer(op, "groups", groups, 1)
    n, c, *sides = input_size
    if weight_size[0] != c:
        raise ValueError(
            f"{op}: weight expects {weight_size[0]} input channels, input has {c}; {came}"
        )
    if min(c, *sides, weight_size[1]) < 1:
        raise ValueError(f"{op}: only the batch may be empty; {came}")
    kh, kw, sh, sw, ph, pw, dh, dw = _geometry(op, weight_size[2:], stride, padding, dilation)
    extra = _check.pair(op, "output_padding", output_padding, 0)
    sizes = []
    for size, k, s, p, d, more in zip(
        sides, (kh, kw), (sh, sw), (ph, pw), (dh, dw), extra, strict=True
    ):
        if more >= max(s, d):
            raise ValueError(
                f"{op}: output_padding must be smaller than the stride or the dilation, got "
                f"output_padding {extra}, stride {(sh, sw)}, dilation {(dh, dw)}"
            )
        sizes.append((size - 1) * s - 2 * p + d * (k - 1) + more + 1)
    if min(sizes) < 1:
        raise ValueError(
            f"{op}: the output would have {sizes[0]} x {sizes[1]} pixels; {came}, "
            f"padding {(ph, pw)}"
        )
    picture = (n, weight_size[1] * groups, *sizes)
    return _shape(op, picture, weight_size, stride, padding, dilation, groups, tuple(sides))


def _expect_grad_output(op: str, grad_output: Tensor, shape: ConvShape) -> None:
    if tuple(grad_output.shape) != shape.output_size:
        raise ValueError(
            f"{op}: grad_output must have shape {shape.output_size}, got {tuple(grad_output.shape)}"
        )


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
