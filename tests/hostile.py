"""Call the entries of `_C` with arguments of every kind: each call returns or raises.

    python tests/hostile.py [COUNT] [--seed SEED] [--sabotage]

Most calls are right ones with one to three arguments replaced, the others are made up. The call
that is about to run is written to stderr, so that the last line names the one that crashed.
Sabotaged is the check whose word on memory is taken; that has to crash.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from pydenoise.ops import _library

RAISED = (TypeError, ValueError, OverflowError, MemoryError, RuntimeError, AttributeError)
SHAPE = (1, 1, 1, 4, 4, 1, 4, 4, 1, 1, 1, 1, 0, 0, 1, 1)


class Liar(Tensor):
    """A tensor that says that it lies elsewhere, and is larger."""

    def data_ptr(self) -> int:
        return 64

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        return 2**20


def right_calls(c: Any) -> dict[str, tuple[Any, ...]]:
    """Arguments that each entry takes."""
    shape = c.Shape(SHAPE)
    winograd = c.Shape((1, 1, 8, 6, 6, 8, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1))
    x, y, weight, bias = torch.rand(16), torch.rand(16), torch.rand(1), torch.rand(1)
    a, b, kernel = torch.rand(288), torch.rand(288), torch.rand(576)
    small, large, where = torch.rand(4), torch.rand(16), torch.zeros(4, dtype=torch.int64)
    sizes, strides, quarter, whole = (1, 1, 4, 4), (16, 4, 1), (1, 1, 2, 2), (4, 4)
    rule = (0.1, 0.9, 0.0, 0.0)
    return {
        "im2col": (False, x, y, False, shape),
        "col2im": (False, x, False, y, shape),
        "matmul": (False, x, strides, y, strides, large, strides, sizes, False),
        "conv2d": (False, x, False, y, False, weight, bias, shape, 0, 0, 0.0, None),
        "conv2d_grad_input": (False, x, False, y, False, weight, bias, shape, 0, 0, 0.0, None),
        "conv2d ": (False, a, False, b, True, kernel, None, winograd, 2, 1, 0.0, None),
        "conv2d_grad_weight": (False, weight, x, False, y, False, shape, False, 0),
        "conv2d_grad_bias": (False, bias, x, False, sizes, False),
        "add_bias": (False, x, False, bias, sizes),
        "max_pool2d": (False, small, where, large, False, quarter, whole, (2, 2, 2, 2, 0, 0)),
        "max_pool2d_backward": (False, large, small, where, False, quarter, whole),
        "upsample_nearest2d": (False, large, small, False, quarter, (2, 2)),
        "upsample_nearest2d_backward": (False, small, large, False, quarter, (2, 2)),
        "relu": (False, x, y),
        "relu_backward": (False, x, y, y),
        "leaky_relu": (False, x, y, 0.1),
        "leaky_relu_backward": (False, x, y, y, 0.1),
        "sigmoid": (False, x, y),
        "sigmoid_backward": (False, x, y, y),
        "mse_loss": (False, x, y),
        "l1_loss": (False, x, y),
        "mse_loss_backward": (False, x, y, y, 1.0),
        "l1_loss_backward": (False, x, y, y, 1.0),
        "sgd_step": (False, x, y, large, rule, False, False),
        "adam_step": (False, x, y, large, torch.rand(16), (*rule, 0.0), False, 1),
        "Shape": (SHAPE,),
        "set_isa": (c.isa(),),
        "set_thread_pool": (None, None),
    }


def strange_values(c: Any) -> list[Any]:
    """What nobody should hand over; but for tensors whose memory is gone, which not even Python's
    message on a wrong argument can print."""
    tensors = [
        torch.rand(16).double(),
        torch.zeros(4, dtype=torch.int64).fill_(2**62),
        torch.zeros(4, dtype=torch.int64).fill_(-1),
        torch.rand(1).expand(16),
        torch.rand(1).expand(2**40),
        torch.rand(64)[::4],
        torch.rand(17)[1:],
        torch.rand(0),
        torch.rand(16, device="meta"),
        torch.rand(16).to(torch.complex64),
        torch.rand(16).half(),
        torch.rand(4, 4).to_sparse(),
        torch.zeros(67, dtype=torch.uint8)[3:].view(torch.uint8),
        torch.rand(16).as_subclass(Liar),
        torch.nn.Parameter(torch.rand(16)),
    ]
    fakes = [
        SimpleNamespace(data_ptr=lambda: 64, nbytes=64),
        SimpleNamespace(data_ptr=lambda: 1 / 0, nbytes=64),
        object(),
        torch,
        Tensor,
    ]
    numbers = [0, 1, -1, 3, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30, True, 0.5]
    numbers += [1e308, float("nan"), float("-inf")]
    tuples = [n * (value,) for n in (2, 3, 4, 6, 16) for value in (0, 1, -1, 2**31, 2**62)]
    other = [None, "", "scalar", "no such set", b"x" * 100, [], {}, (), (None,) * 4, ..., range(4)]
    shapes = [c.Shape(SHAPE), c.Tape(watched=[])]
    return [*tensors, *fakes, *numbers, *tuples, *other, *shapes]


def misuse_tapes(c: Any, strange: list[Any], choose: random.Random) -> None:
    """Start, stop, replay and drop tapes in any order."""
    try:
        pictures = choose.choices(strange, k=choose.randrange(3)) if choose.random() < 0.3 else []
        pictures += [torch.rand(16) for _ in range(choose.randrange(2))]
        tape = c.Tape(*pictures, watched=choose.choices([torch.rand(16)], k=choose.randrange(3)))
        for _ in range(choose.randrange(6)):
            what = choose.choice(["start", "stop", "replay", "others", "relu"])
            if what == "relu":
                c.relu(False, torch.rand(16), pictures[0] if pictures else torch.rand(16))
            elif what == "replay":
                tape.replay(*pictures)
            else:
                getattr(tape, what)()
    except RAISED:
        pass


def call_all(count: int, seed: int) -> Counter[str]:
    """So many calls; how each of them ended."""
    c = _library.kernels()
    choose = random.Random(seed)
    right, strange = right_calls(c), strange_values(c)
    for name, arguments in right.items():
        if name != "set_thread_pool":
            getattr(c, name.strip())(*arguments)
    ends: Counter[str] = Counter()
    for number in range(count):
        name, given = choose.choice(list(right.items()))
        arguments = list(given)
        if choose.random() < 0.8:
            for place in choose.sample(range(len(arguments)), min(len(arguments), 1 + number % 3)):
                arguments[place] = choose.choice(strange)
        else:
            arguments = choose.choices(strange, k=choose.randrange(14))
        words = ", ".join(repr(type(each).__name__) for each in arguments)
        os.write(2, f"call {number}: {name}({words})\n".encode())
        try:
            getattr(c, name.strip())(*arguments)
        except RAISED as error:
            ends[type(error).__name__] += 1
        else:
            ends["returned"] += 1
        if number % 10 == 0:
            misuse_tapes(c, strange, choose)
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", action="store_true")
    options = parser.parse_args()
    if options.sabotage:

        class Trusted:
            """Says whatever it likes of its memory."""

            is_cpu = True
            nbytes = 64

            def data_ptr(self) -> int:
                return 64

            def untyped_storage(self) -> SimpleNamespace:
                return SimpleNamespace(data_ptr=lambda: 64, nbytes=lambda: 64)

        _library.kernels().set_tensors(Trusted, "is_cpu")
        _library.kernels().relu(False, Trusted(), Trusted())
    ends = call_all(options.count, options.seed)
    said = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    print(f"{options.count} calls: {said}\n0 crashes")


if __name__ == "__main__":
    sys.exit(main())
