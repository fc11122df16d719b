"""im2col and col2im, the explicit patch matrix."""

from __future__ import annotations

from torch import Tensor

from . import _check
from ._backend import select
from ._check import Pair
from ._geometry import forward_shape


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
    shape = forward_shape(
        "im2col", (input.shape, (1, channels, *kernel)), stride, padding, dilation, 1
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
    shape = forward_shape(
        op, ((n, channels, height, width), (1, channels, kh, kw)), stride, padding, dilation, 1
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
