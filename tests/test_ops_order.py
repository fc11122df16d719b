"""One order of summation: neither threads, nor the memory format, nor another run changes a bit.

The shapes are large enough for several bands, chunks and pieces of every kernel; what small ones
can show is in test_ops_laws.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from cases import ConvCase, draw_operands
from conftest import FORMATS, Place, Setting
from convolutions import BY_OP
from oracle import assert_identical, assert_within, conv2d_grad_bias
from torch import Tensor

from pydenoise import models, nn, ops, optim
from pydenoise.objectives import Noise2Noise

THREADS = (1, 2, 3, 8)
THREE, ONE = (3, 3), (1, 1)

# fmt: off
CASES = [
    ConvCase("strided", "whole pictures to a chunk of grad_weight, every piece of another size",
             11, (3, 48), (32, 32), THREE, (2, 2), ONE),
    ConvCase("inner", "read in place, in as many shares as there are blocks",
             3, (48, 96), (16, 16), THREE, (2, 2), ONE),
    ConvCase("square", "Winograd by itself; rows of a picture to a chunk",
             1, (32, 40), (70, 61), THREE, padding=ONE),
    ConvCase("wide", "parts of a row to a chunk", 1, (5, 3), (6, 700), THREE, padding=ONE),
    ConvCase("wide-in-place", "the same without a copy", 1, (16, 48), (4, 300), THREE, padding=ONE),
    ConvCase("pixelwise", "one tap", 2, (24, 16), (70, 64), ONE),
    ConvCase("few", "vectors of pixels, phases on the way back",
             2, (3, 16), (65, 67), (4, 4), (2, 2), ONE),
    ConvCase("depthwise", "groups of one", 2, (24, 24), (41, 40), THREE, padding=ONE, groups=24),
    ConvCase("groups", "several groups and pieces",
             3, (10, 15), (40, 33), (3, 2), (1, 2), (1, 0), groups=5),
]
# fmt: on
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def compiled_only(place: Place) -> None:
    if place.backend == "reference":
        pytest.skip("the reference leaves the order of its sums to torch's matrix product")


def assert_always_the_same(run: Callable[[torch.memory_format], list[Tensor]]) -> None:
    """The same bits with every number of threads, in both formats, and twice in a row."""
    results = []
    for threads in (*THREADS, 1):
        torch.set_num_threads(threads)
        results += [(threads, name, run(format)) for name, format in FORMATS.items()]
    for threads, name, found in results:
        for result, wanted in zip(found, results[0][2], strict=True):
            assert_identical(result, wanted, f"{threads} threads, {name}")


@each_case
@pytest.mark.parametrize("algorithm", ["implicit", "auto"])
def test_convolutions(case: ConvCase, algorithm: str, place: Place) -> None:
    compiled_only(place)
    o = draw_operands(case, torch.float32)

    def run(memory_format: torch.memory_format) -> list[Tensor]:
        setting = Setting(place, algorithm, torch.float32, memory_format)
        put = setting.put_all(o)
        return [BY_OP[op].run(case, put) for op in ("conv2d", "transpose", "grad_weight_added")]

    with ops.use_algorithm(algorithm):
        assert_always_the_same(run)


def test_pieces_do_not_show_in_the_error(place: Place, dtype: torch.dtype) -> None:
    """Large sums of every kernel against the oracle."""
    for case in (CASES[0], CASES[3], CASES[4], CASES[8]):
        o = draw_operands(case, dtype)
        here = place.put_all(o)
        for op in ("conv2d", "transpose", "grad_weight", "grad_weight_added"):
            assert_within(BY_OP[op].run(case, here), BY_OP[op].right(case, o), f"{op} {case}")


@pytest.mark.parametrize("size", [(3, 33, 70, 61), (1, 1, 300, 300), (2, 300, 21, 23)], ids=str)
def test_grad_bias(size: tuple[int, ...], place: Place, dtype: torch.dtype) -> None:
    compiled_only(place)
    drawn = torch.randn(size, dtype=dtype, generator=torch.Generator().manual_seed(1))
    grad_output = place.put(drawn)

    def run(memory_format: torch.memory_format) -> list[Tensor]:
        gz = grad_output.contiguous(memory_format=memory_format)
        start = torch.ones(size[1], dtype=dtype, device=place.device)
        return [ops.conv2d_grad_bias(gz), ops.conv2d_grad_bias(gz, out=start, accumulate=True)]

    assert_always_the_same(run)
    assert_within(ops.conv2d_grad_bias(grad_output), conv2d_grad_bias(drawn), size)


@pytest.mark.parametrize("make", [
    lambda: models.autoencoder((20, 33), seed=1),
    lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(32, 33, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(33, 12, 1), nn.Upsample(scale_factor=2)),
], ids=["table1", "square"])  # fmt: skip
def test_training(make: Callable[[], nn.Sequential], place: Place) -> None:
    """Losses, weights and gradients after three steps; of a loss the order is that of memory, so
    that formats agree on it to its last digits only."""
    compiled_only(place)
    first = make().to(place.device)
    weights = {name: value.clone() for name, value in first.state_dict().items()}
    generator = torch.Generator().manual_seed(4)
    source = place.put(torch.rand((9, 3, 32, 36), generator=generator))
    target = place.put(torch.rand(first(source).shape, generator=generator))

    losses: dict[torch.memory_format, set[tuple[float, ...]]] = defaultdict(set)

    def run(memory_format: torch.memory_format) -> list[Tensor]:
        model = make().to(place.device)
        model.load_state_dict(weights)
        optimizer = optim.Adam(model, lr=1e-3)
        x, y = (t.contiguous(memory_format=memory_format) for t in (source, target))
        found = []
        for _ in range(3):
            model.zero_grad()
            found.append(Noise2Noise().step(model, x, y))
            optimizer.step()
        losses[memory_format].add(tuple(found))
        return [t for pair in model.param() for t in pair]

    assert_always_the_same(run)
    (one,), (other,) = losses.values()
    assert one == pytest.approx(other, rel=1e-14)
