"""The operations of the convolution family as one table: how to call each and what is right."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import oracle
import pytest
import torch
from cases import CASES, ConvCase, Operands, operands
from conftest import Room, Setting
from oracle import Expected, assert_within
from torch import Tensor

from pydenoise import ops


class Op(NamedTuple):
    """One operation on a case: how to call it, what is right, the size of its result."""

    name: str
    run: Callable[..., Tensor]  # (case, operands, out=...)
    right: Callable[[ConvCase, Operands], Expected]
    size: Callable[[ConvCase], tuple[int, ...]]
    read: tuple[str, ...]  # its operands; the first one's memory format is the result's

    def __str__(self) -> str:
        return self.name

    @property
    def is_weight(self) -> bool:
        return self.name.startswith("grad_weight")

    def room(self, case: ConvCase, setting: Setting) -> Room:
        """Make room for the result; a weight's gradient is contiguous in every setting."""
        memory_format = torch.contiguous_format if self.is_weight else setting.memory_format
        return setting.room(self.size(case), memory_format)


def conv2d(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    return ops.conv2d(o.input, o.weight, o.bias, *case.arguments, **rest)


def grad_input(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    size, gz = case.input_size, o.grad_output
    return ops.conv2d_grad_input(size, o.weight, gz, *case.arguments, **rest)


def grad_weight(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    size, gz = case.weight_size, o.grad_output
    return ops.conv2d_grad_weight(o.input, size, gz, *case.arguments, **rest)


def grad_weight_added(case: ConvCase, o: Operands, out: Tensor | None = None) -> Tensor:
    start = o.weight.detach()
    start = start.clone() if out is None else out.copy_(start)
    return grad_weight(case, o, out=start, accumulate=True)


def conv_transpose2d(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    x, w, b = o.grad_output, o.weight, o.mirror_bias
    return ops.conv_transpose2d(x, w, b, *case.transposed_arguments, **rest)


def im2col(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    return ops.im2col(o.input, *case.patch_arguments, **rest)


def col2im(case: ConvCase, o: Operands, **rest: object) -> Tensor:
    return ops.col2im(o.columns, case.size, *case.patch_arguments, **rest)


INPUT, OUTPUT, WEIGHT, COLUMNS = (
    lambda case: case.input_size,
    lambda case: case.output_size,
    lambda case: case.weight_size,
    lambda case: case.columns_size,
)
CONVOLUTIONS = [
    Op("conv2d", conv2d, oracle.conv2d, OUTPUT, ("input", "weight")),
    Op("grad_input", grad_input, oracle.conv2d_grad_input, INPUT, ("grad_output", "weight")),
    Op("grad_weight", grad_weight, oracle.conv2d_grad_weight, WEIGHT, ("input", "grad_output")),
    Op(
        "grad_weight_added",
        grad_weight_added,
        oracle.conv2d_grad_weight_added,
        WEIGHT,
        ("input", "grad_output"),
    ),
    Op("transpose", conv_transpose2d, oracle.conv_transpose2d, INPUT, ("grad_output", "weight")),
]
PATCHES = [
    Op("im2col", im2col, oracle.im2col, COLUMNS, ("input",)),
    Op("col2im", col2im, oracle.col2im, INPUT, ("columns",)),
]

BY_OP = {op.name: op for op in CONVOLUTIONS + PATCHES}

each_convolution = pytest.mark.parametrize("op", CONVOLUTIONS, ids=str)
each_op = pytest.mark.parametrize("op", CONVOLUTIONS + PATCHES, ids=str)


def cases_of(op: Op) -> list[ConvCase]:
    """Every case that an operation can run: only the gradients, and the transposed convolution,
    can do with less of the output than there could be."""
    needs_all = op.name in ("conv2d", "im2col", "col2im")
    return [case for case in CASES if case.missing == (0, 0) or not needs_all]


def pairs(ops_: list[Op]) -> pytest.MarkDecorator:
    """Pair every operation with every case it can run."""
    found = [pytest.param(op, case, id=f"{op}-{case}") for op in ops_ for case in cases_of(op)]
    return pytest.mark.parametrize(("op", "case"), found)


@cache
def right(op: Op, case: ConvCase, dtype: torch.dtype) -> Expected:
    return op.right(case, operands(case, dtype))


def check(op: Op, case: ConvCase, setting: Setting) -> None:
    room = op.room(case, setting)
    op.run(case, setting.put_all(operands(case, setting.dtype)), out=room.tensor)
    assert_within(room.tensor, right(op, case, setting.dtype), f"{op} {case}")
    room.assert_untouched_around()
