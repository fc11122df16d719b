"""The door to the kernels: nothing that comes through it crashes the interpreter, any thread may,
and no memory is left behind."""

from __future__ import annotations

import copy
import gc
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import Scenes

from pydenoise import models, ops, optim
from pydenoise.objectives import Noise2Noise
from pydenoise.ops import _library

TESTS = Path(__file__).parent
CALLS = 500
MEGABYTE = 2**20

pytestmark = pytest.mark.skipif(_library.kernels() is None, reason="the kernels are not built")


def hostile(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "hostile.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_no_argument_crashes_the_interpreter() -> None:
    done = hostile("5000")
    assert done.returncode == 0, done.stderr[-500:]
    ends = {end: int(count) for count, end in re.findall(r"(\d+) (\w+)", done.stdout)}
    assert (ends.pop("calls"), ends.pop("crashes")) == (5000, 0)
    assert sum(ends.values()) == 5000
    assert min(ends[name] for name in ("TypeError", "ValueError", "returned")) > 100


def test_without_the_check_one_would() -> None:
    """The negative control of the test above."""
    done = hostile("0", "--sabotage")
    assert done.returncode < 0, (done.stdout, done.stderr[-500:])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.rand(1).expand(16), "not so many bytes are allocated"),
        (lambda: shrunk(torch.rand(16), 60), "not so many bytes are allocated"),
        (lambda: shrunk(torch.rand(16), 0), "not so many bytes are allocated"),
        (lambda: torch.rand(16, device="meta"), "not in the memory of these kernels"),
        (lambda: torch.rand(15), "60 bytes came, the shape needs 16 x 4"),
    ],
)
def test_memory_that_is_not_there_is_refused(
    tensor: Callable[[], torch.Tensor], message: str
) -> None:
    c = _library.kernels()
    with pytest.raises(ValueError, match=message):
        c.relu(False, torch.rand(16), tensor())


def shrunk(tensor: torch.Tensor, nbytes: int) -> torch.Tensor:
    """The tensor, after its memory was made smaller."""
    tensor.untyped_storage().resize_(nbytes)
    return tensor


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("strides", [(17, 4, 1), (16, 5, 1), (2**62, 2**62, 2**62), (16, 4, 2)])
def test_strides_beyond_the_memory_are_refused(place: int, strides: tuple[int, ...]) -> None:
    c = _library.kernels()
    views = [torch.rand(32), (16, 4, 1)] * 3
    c.matmul(False, *views, (2, 4, 4, 4), False)
    views[2 * place + 1] = strides
    with pytest.raises(ValueError, match=r"beyond what is allocated|too large"):
        c.matmul(False, *views, (2, 4, 4, 4), False)
    views[2 * place + 1] = (-16, 4, 1)
    with pytest.raises(ValueError, match="negative"):
        c.matmul(False, *views, (2, 4, 4, 4), False)


def test_no_object_is_made_past_its_constructor() -> None:
    c = _library.kernels()
    shape, tape = c.Shape((1, 1, 1, 4, 4, 1, 4, 4, 1, 1, 1, 1, 0, 0, 1, 1)), c.Tape(watched=[])
    for made in (shape, tape):
        kind = type(made)
        for make in (kind, partial(kind.__new__, kind), partial(object.__new__, kind)):
            with pytest.raises(TypeError):
                make()
        with pytest.raises(TypeError):
            copy.copy(made)
        with pytest.raises(TypeError):
            type("Mine", (kind,), {})()
    with pytest.raises(TypeError):
        shape.__class__ = type(tape)


def test_a_tape_that_is_dropped_while_it_records_records_no_more() -> None:
    c = _library.kernels()
    tape = c.Tape(watched=[])
    tape.start()
    del tape
    gc.collect()
    c.relu(False, torch.rand(16), torch.rand(16))
    other = c.Tape(watched=[])
    other.start()
    other.stop()


def test_a_tape_is_stopped_by_another_thread() -> None:
    c = _library.kernels()
    tape = c.Tape(watched=[])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(tape.start).result()
        pool.submit(c.relu, False, torch.rand(16), torch.rand(16)).result()
        tape.stop()
        assert len(tape.others()) == 2
        pool.submit(tape.replay).result()
    other = c.Tape(watched=[])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(other.start).result()  # and the thread is gone
    other.stop()
    other.replay()


def test_eight_threads_come_to_the_serial_results() -> None:
    """One model, 500 calls each; layers keep nothing where nobody goes backward."""
    model = models.autoencoder((8, 12), seed=0).eval()
    pictures = [torch.rand(1, 3, 16, 16) for _ in range(8)]
    weight = torch.rand(8, 3, 3, 3)
    serial = [(model(x), ops.conv2d(x, weight, padding=1)) for x in pictures]

    def work(index: int) -> int:
        x, (output, convolved) = pictures[index], serial[index]
        return sum(
            torch.equal(model(x), output)
            and torch.equal(ops.conv2d(x, weight, padding=1), convolved)
            for _ in range(CALLS)
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [CALLS] * 8


def resident() -> int:
    """Bytes of memory in use by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def growth(work: Callable[[], object], times: int) -> int:
    """Bytes that memory grows by, once warm."""
    for _ in range(times // 10 + 5):
        work()
    gc.collect()
    before = resident()
    for _ in range(times):
        work()
    gc.collect()
    return resident() - before


needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")


@needs_proc
def test_memory_does_not_grow_over_ten_thousand_calls() -> None:
    x, weight, bias = torch.rand(1, 3, 16, 16), torch.rand(8, 3, 3, 3), torch.rand(8)
    gradient = torch.rand(1, 8, 16, 16)

    def work() -> None:
        ops.relu(ops.conv2d(x, weight, bias, padding=1))
        ops.conv2d_grad_weight(x, weight.shape, gradient, padding=1)
        with pytest.raises(ValueError, match="conv2d"):
            ops.conv2d(x, weight[:, :2])

    assert growth(work, 10_000) < 5 * MEGABYTE


@needs_proc
def test_memory_does_not_grow_over_two_hundred_training_steps() -> None:
    model = models.autoencoder((8, 12), seed=0)
    optimizer, objective = optim.Adam(model, 1e-3), Noise2Noise()
    source, target = Scenes().batch(np.arange(16), 0)

    def work() -> None:
        objective.step(model, source, target)
        optimizer.step()
        optimizer.zero_grad()

    assert growth(work, 200) < 5 * MEGABYTE


@needs_proc
def test_a_leak_would_be_seen() -> None:
    """The negative control of the tests above."""
    kept: list[bytes] = []
    assert growth(lambda: kept.append(os.urandom(MEGABYTE)), 100) > 50 * MEGABYTE
