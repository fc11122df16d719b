"""What is right, and how near to it a result must be.

The oracle is torch in float64 on the same numbers. For an operation that sums products the bound
on one element is

    min(K, 4 sqrt(K)) * u * (|A| |B|)

with K the number of added terms (the bias and an accumulated-into value are terms) and u the unit
roundoff; twice that in float64, where the oracle rounds as well. Both factors need no formula of
their own: the operation on ones counts the terms of every element, the operation on absolute
values adds up their sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from cases import ConvCase, Operands
from torch import Tensor
from torch.nn import grad

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}


class Expected(NamedTuple):
    """The right values in float64 and how far each may be missed."""

    values: Tensor
    bound: Tensor


def growth(terms: Tensor) -> Tensor:
    """min(K, 4 sqrt(K)): rounding errors add up, but not all with one sign."""
    return torch.minimum(terms, 4 * terms.sqrt())


def expected(op: Callable[..., Tensor], *operands: Tensor | None) -> Expected:
    """Run a sum-of-products operation in float64 and bound what rounding may do to it."""
    dtype = next(x.dtype for x in operands if x is not None)
    wide = [None if x is None else x.detach().cpu().double() for x in operands]
    terms = op(*(None if x is None else torch.ones_like(x) for x in wide))
    sizes = op(*(None if x is None else x.abs() for x in wide))
    slack = 2 if dtype == torch.float64 else 1
    return Expected(op(*wide), slack * UNIT_ROUNDOFF[dtype] * growth(terms.round()) * sizes)


def assert_within(actual: Tensor, right: Expected, what: object = "") -> None:
    """Fail with the worst element unless every one is within its bound; NaN never is."""
    values, bound = right
    assert actual.shape == values.shape, f"{what}: {actual.shape} came, {values.shape} expected"
    error = (actual.detach().cpu().double() - values).abs()
    bad = ~(error <= bound)
    if not bad.any():
        return
    excess = torch.where(bad, error / bound, -1.0).nan_to_num(nan=torch.inf, posinf=torch.inf)
    at = tuple(int(i) for i in torch.unravel_index(excess.argmax(), excess.shape))
    raise AssertionError(
        f"{what}: {int(bad.sum())} of {bad.numel()} elements out of bound; the worst at {at}: "
        f"{actual[at].item()!r} came, {values[at].item()!r} expected, "
        f"error {error[at].item():.3g}, bound {bound[at].item():.3g}"
    )


def assert_same_bits(actual: Tensor, wanted: Tensor, what: object = "") -> None:
    """Fail unless both hold the same numbers, NaN equal to NaN, 0 equal to -0."""
    assert actual.shape == wanted.shape, f"{what}: {actual.shape} came, {wanted.shape} expected"
    same = (actual == wanted) | (actual.isnan() & wanted.isnan())
    if not same.all():
        at = tuple(int(i) for i in (~same).nonzero()[0])
        raise AssertionError(
            f"{what}: {int((~same).sum())} of {same.numel()} elements differ; the first at {at}: "
            f"{actual[at].item()!r} came, {wanted[at].item()!r} expected"
        )


def assert_identical(actual: Tensor, wanted: Tensor, what: object = "") -> None:
    """`assert_same_bits`, and the signs of zeros too."""
    assert_same_bits(actual, wanted, what)
    same = (actual.signbit() == wanted.signbit()) | actual.isnan()
    assert same.all(), f"{what}: {int((~same).sum())} zeros differ in their sign"


# Convolution, all of one case


def conv2d(case: ConvCase, o: Operands) -> Expected:
    return expected(lambda x, w, b: F.conv2d(x, w, b, *case.arguments), o.input, o.weight, o.bias)


def conv_transpose2d(case: ConvCase, o: Operands) -> Expected:
    def op(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.conv_transpose2d(x, w, b, *case.transposed_arguments)

    return expected(op, o.grad_output, o.weight, o.mirror_bias)


def _whole(case: ConvCase, grad_output: Tensor) -> Tensor:
    """Give a gradient the rows and columns that the case's output is missing, as zeros."""
    return F.pad(grad_output, (0, case.missing[1], 0, case.missing[0]))


def conv2d_grad_input(case: ConvCase, o: Operands) -> Expected:
    def op(w: Tensor, gz: Tensor) -> Tensor:
        return grad.conv2d_input(case.input_size, w, _whole(case, gz), *case.arguments)

    return expected(op, o.weight, o.grad_output)


def conv2d_grad_weight(case: ConvCase, o: Operands) -> Expected:
    def op(x: Tensor, gz: Tensor) -> Tensor:
        return grad.conv2d_weight(x, case.weight_size, _whole(case, gz), *case.arguments)

    return expected(op, o.input, o.grad_output)


def conv2d_grad_weight_added(case: ConvCase, o: Operands) -> Expected:
    """Bound a gradient that is added to what `out` held: the case's weight."""

    def op(x: Tensor, gz: Tensor, w: Tensor) -> Tensor:
        return w + grad.conv2d_weight(x, case.weight_size, _whole(case, gz), *case.arguments)

    return expected(op, o.input, o.grad_output, o.weight)


def conv2d_grad_bias(grad_output: Tensor, start: Tensor | None = None) -> Expected:
    def op(gz: Tensor, start: Tensor | None) -> Tensor:
        gb = gz.sum(dim=(0, 2, 3))
        return gb if start is None else gb + start

    return expected(op, grad_output, start)


def im2col(case: ConvCase, o: Operands) -> Expected:
    """Copies are exact. Without a picture torch refuses to unfold, and there is nothing to do."""
    x = o.input.double().cpu()
    if case.batch == 0:
        columns = x.new_empty(case.columns_size)
    else:
        columns = F.unfold(x, *case.patch_arguments)
    return Expected(columns, torch.zeros_like(columns))


def col2im(case: ConvCase, o: Operands) -> Expected:
    def op(columns: Tensor) -> Tensor:
        if case.batch == 0:
            return columns.new_empty(case.input_size)
        return F.fold(columns, case.size, *case.patch_arguments)

    return expected(op, o.columns)


# Pooling


def max_pool2d(input: Tensor, *window: object) -> tuple[Tensor, Tensor]:
    values, indices = F.max_pool2d(input, *window, return_indices=True)
    return values, indices


def max_pool2d_backward(grad_output: Tensor, input: Tensor, *window: object) -> Expected:
    def op(gz: Tensor) -> Tensor:
        x = input.detach().double().requires_grad_()
        (gx,) = torch.autograd.grad(F.max_pool2d(x, *window), x, gz)
        return gx

    return expected(op, grad_output)


def avg_pool2d(input: Tensor, kernel_size: tuple[int, int], *rest: object) -> Expected:
    """The mean rounds twice more than a sum: products with 1/area in the oracle are divisions."""
    return _scaled(lambda x: F.avg_pool2d(x, kernel_size, *rest), kernel_size, input)


def avg_pool2d_backward(
    grad_output: Tensor, input_size: tuple[int, ...], kernel_size: tuple[int, int], *rest: object
) -> Expected:
    def op(gz: Tensor) -> Tensor:
        x = gz.new_zeros(input_size).requires_grad_()
        (gx,) = torch.autograd.grad(F.avg_pool2d(x, kernel_size, *rest), x, gz)
        return gx

    return _scaled(op, kernel_size, grad_output)


def _scaled(op: Callable[[Tensor], Tensor], kernel_size: tuple[int, int], x: Tensor) -> Expected:
    """Bound a sum that is divided by the window's area: its terms and one division more."""
    area = kernel_size[0] * kernel_size[1]
    values, _ = expected(op, x)
    terms = (op(torch.ones_like(x, dtype=torch.float64)) * area).round() + 1
    sizes = op(x.double().abs())
    slack = 2 if x.dtype == torch.float64 else 1
    return Expected(values, slack * UNIT_ROUNDOFF[x.dtype] * growth(terms) * sizes)


def upsample_nearest2d_backward(grad_output: Tensor, factor: tuple[int, int]) -> Expected:
    def op(gz: Tensor) -> Tensor:
        n, c, height, width = gz.shape
        blocks = gz.reshape(n, c, height // factor[0], factor[0], width // factor[1], factor[1])
        return blocks.sum(dim=(3, 5))

    return expected(op, grad_output)
