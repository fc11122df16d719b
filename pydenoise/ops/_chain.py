"""The report's own chain, for every backend: u(x), matrix products, f(.).

    z  = W u(x) + b          gx = f(W^T gz)          gW = gz u(x)^T

The patch matrix is stored; the products run group by group. A backend gives im2col, col2im and
matmul; this file is all that is needed to convolve with them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pydenoise import memory

from ._shape import ConvShape


def _columns(like: Tensor, shape: ConvShape) -> Tensor:
    return memory.empty(shape.columns_size, dtype=like.dtype, device=like.device)


def _group(tensor: Tensor, dim: int, groups: int, g: int) -> Tensor:
    """What group g has of the channels or rows in a dimension, a view."""
    if groups == 1:
        return tensor
    size = tensor.shape[dim] // groups
    return tensor.narrow(dim, g * size, size)


class Chain:
    """conv2d and its gradients out of one backend's im2col, matmul and col2im."""

    FINISHES = False
    TILE = 1

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def conv2d(
        self, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape
    ) -> None:
        columns = _columns(input, shape)
        self._backend.im2col(columns, input, shape)
        matrix = weight.flatten(1).expand(shape.batch, -1, -1)
        z = output.flatten(2)
        for g in range(shape.groups):
            w, u, zg = (_group(each, 1, shape.groups, g) for each in (matrix, columns, z))
            self._backend.matmul(zg, w, u, False)
        if bias is not None:
            self._backend.add_bias(output, bias)

    def conv2d_grad_input(
        self,
        grad_input: Tensor,
        grad_output: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: ConvShape,
    ) -> None:
        columns = _columns(weight, shape)
        matrix = weight.flatten(1).expand(shape.batch, -1, -1)
        gz = grad_output.flatten(2)
        for g in range(shape.groups):
            w, u, gzg = (_group(each, 1, shape.groups, g) for each in (matrix, columns, gz))
            self._backend.matmul(u, w.mT, gzg, False)
        self._backend.col2im(grad_input, columns, shape)
        if bias is not None:
            self._backend.add_bias(grad_input, bias)

    def conv2d_grad_weight(
        self,
        grad_weight: Tensor,
        grad_output: Tensor,
        input: Tensor,
        shape: ConvShape,
        accumulate: bool,
    ) -> None:
        columns = _columns(input, shape)
        self._backend.im2col(columns, input, shape)
        patches = columns.unflatten(1, (shape.groups, -1))
        gz = grad_output.flatten(2).unflatten(1, (shape.groups, -1))
        matrices = grad_weight.view(shape.groups, shape.out_channels // shape.groups, -1)
        for n in range(shape.batch):
            self._backend.matmul(matrices, gz[n], patches[n].mT, accumulate or n > 0)
        if shape.batch == 0 and not accumulate:
            grad_weight.zero_()
