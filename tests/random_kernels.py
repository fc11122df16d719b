"""Random convolutions in random settings: each within its bound of float64, and adjoint.

    python tests/random_kernels.py [COUNT] [--adjoints COUNT] [--seed SEED] [--sabotage]

A configuration is an operation, a shape, a dtype, a memory format, an algorithm, and a backend with
an instruction set. im2col has to be exact, every other result within the bound of oracle.py;
<conv(x, w), g> = <x, grad_input(g, w)> = <w, grad_weight(x, g)> to 1e-12 in float64. Sabotaged is
one element of each result, by a thousandth of the largest: that has to be found.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from itertools import product

import torch
from cases import ConvCase, draw_operands
from conftest import ALGORITHMS, DTYPES, FORMATS, Place, Setting, _places
from convolutions import CONVOLUTIONS, PATCHES, Op
from oracle import assert_same_bits, assert_within
from test_ops_laws import inner
from test_winograd import within_tiles

from pydenoise import ops

CLOSE = 1e-12


def settings() -> list[Setting]:
    """Every one of this machine but for the CUDA kernels on the host, which `make test` builds."""
    places = [place for place, reason in _places() if reason is None and place.isa != "on-host"]
    kinds = product(places, (*ALGORITHMS, "winograd2"), DTYPES, FORMATS.values())
    return [Setting(*kind) for kind in kinds]


def drawn_case(choose: random.Random) -> ConvCase:
    """A convolution whose output has at least one pixel."""
    groups = choose.choice([1, 1, 1, 2, 3])
    most = choose.choice([4, 20, 70])
    channels = groups * choose.randint(1, most), groups * choose.randint(1, most)
    is_usual = choose.random() < 0.4
    kernel, stride, padding, dilation = (
        (choose.randint(low, high), choose.randint(low, high))
        for low, high in (
            [(3, 3), (1, 2), (1, 1), (1, 1)] if is_usual else [(1, 5), (1, 4), (0, 5), (1, 4)]
        )
    )
    reach = [d * (k - 1) + 1 - 2 * p for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(max(choose.randint(1, 24), least) for least in reach)
    batch, bias = choose.randint(1, 3), choose.random() < 0.7
    return ConvCase(
        "drawn", "", batch, channels, (size[0], size[1]), kernel, stride, padding, dilation, groups,
        bias,
    )  # fmt: skip


def has_winograd(case: ConvCase) -> bool:
    """Whether the bound of test_winograd.py is for such a case."""
    (rows, cols), stride = case.padding, case.stride
    if (case.kernel, case.dilation) != ((3, 3), (1, 1)):
        return False
    return (stride == (1, 1) and rows == cols) or (stride == (2, 2) and rows % 2 == 1 == cols % 2)


def spoil(tensor: torch.Tensor) -> None:
    flat = tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    flat[tensor.numel() // 2] += 1e-3 * float(flat.abs().max()) + 1e-3


def check_bounds(op: Op, case: ConvCase, setting: Setting, sabotage: bool) -> None:
    """Raise AssertionError unless the right values come, and nothing else is written."""
    with ExitStack() as stack:
        setting.place.enter(stack)
        stack.enter_context(ops.use_algorithm(setting.algorithm))
        o, room = draw_operands(case, setting.dtype), op.room(case, setting)
        op.run(case, setting.put_all(o), out=room.tensor)
        if sabotage:
            spoil(room.tensor)
        if op.name == "im2col":
            assert_same_bits(room.tensor.double(), op.right(case, o).values)
        elif setting.algorithm == "winograd2" and op in CONVOLUTIONS:
            assert_within(room.tensor, within_tiles(op, case, o, 2))
        else:
            assert_within(room.tensor, op.right(case, o))
        room.assert_untouched_around()


def check_adjoints(case: ConvCase, place: Place, algorithm: str, sabotage: bool) -> None:
    """Raise AssertionError unless the gradients are the convolution's adjoints."""
    with ExitStack() as stack:
        place.enter(stack)
        stack.enter_context(ops.use_algorithm(algorithm))
        o = place.put_all(draw_operands(case, torch.double))
        z = ops.conv2d(o.input, o.weight, None, *case.arguments)
        gx = ops.conv2d_grad_input(case.input_size, o.weight, o.grad_output, *case.arguments)
        gw = ops.conv2d_grad_weight(o.input, case.weight_size, o.grad_output, *case.arguments)
        if sabotage:
            spoil(gw)
        products = inner(z, o.grad_output), inner(o.input, gx), inner(o.weight, gw)
        scale = max(1.0, float((z * o.grad_output).abs().sum()))
        assert max(products) - min(products) <= CLOSE * scale, products


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=20_000)
    parser.add_argument("--adjoints", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", action="store_true")
    options = parser.parse_args()
    choose = random.Random(options.seed)
    here = settings()
    faults: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(options.count + options.adjoints):
        case, setting = drawn_case(choose), choose.choice(here)
        if setting.algorithm == "winograd2" and not has_winograd(case):
            setting = replace(setting, algorithm="implicit")
        op = choose.choice([*CONVOLUTIONS, *PATCHES])
        try:
            if number < options.count:
                check_bounds(op, case, setting, options.sabotage)
                seen[str(setting.place)] += 1
            else:
                check_adjoints(case, setting.place, setting.algorithm, options.sabotage)
        except AssertionError as error:
            faults.append(f"{op} {case!r} {setting}: {error}")
    where = ", ".join(f"{place} {count}" for place, count in sorted(seen.items()))
    print(f"{options.count} configurations ({where}), {options.adjoints} adjoint identities")
    print(*faults[:20], f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
