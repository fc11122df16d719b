"""How a CUDA graph is captured, with a stand-in for torch: `tests/test_cuda.py` has a GPU."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
import torch

from pydenoise import memory, ops
from pydenoise.ops import _graph

GPU = torch.device("cuda", 3)


class Torch:
    """What `torch.cuda` does about devices, streams and captures."""

    def __init__(self) -> None:
        self.device, self.stream = torch.device("cuda", 0), "default"
        self.capturing: tuple[object, ...] = ()
        self.replays = 0
        self.breaks_off = False

    CUDAGraph = property(lambda self: lambda: _Graph(self))

    def Stream(self, device: torch.device) -> str:
        return f"side stream of {device}"

    @contextmanager
    def on(self, name: str, value: object) -> Iterator[None]:
        before = getattr(self, name)
        setattr(self, name, value)
        try:
            yield
        finally:
            setattr(self, name, before)

    def graph(
        self, graph: object, *, stream: str, capture_error_mode: str
    ) -> AbstractContextManager[None]:
        return _Capture(self, (self.device, stream, capture_error_mode))


class _Graph:
    def __init__(self, torch: Torch) -> None:
        self._torch = torch

    def replay(self) -> None:
        self._torch.replays += 1

    def reset(self) -> None:
        pass


class _Capture(AbstractContextManager):
    """Like torch's, it does not go back to the stream before where the capture has broken off."""

    def __init__(self, torch: Torch, given: tuple[object, ...]) -> None:
        self._torch, self._given = torch, given

    def __enter__(self) -> None:
        self._before = self._torch.stream
        self._torch.stream, self._torch.capturing = self._given[1], self._given

    def __exit__(self, *error: object) -> None:
        self._torch.capturing = ()
        if self._torch.breaks_off:
            raise RuntimeError("CUDA error: capture invalidated\nCompile with `TORCH_USE_...`")
        self._torch.stream = self._before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Torch:
    stand_in = Torch()
    for name in ("CUDAGraph", "Stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, getattr(stand_in, name))
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda value, name=name: stand_in.on(name, value))
    monkeypatch.setattr(_graph, "_broken_off", [])
    return stand_in


def test_the_function_runs_once_on_a_stream_of_its_device(cuda: Torch) -> None:
    seen = []
    replay = ops.captured(lambda: seen.append((cuda.capturing, cuda.device, cuda.stream)), GPU)
    stream = f"side stream of {GPU}"
    assert seen == [((GPU, stream, "thread_local"), GPU, stream)]
    assert (cuda.device.index, cuda.stream) == (0, "default")
    assert replay is not None
    replay()
    replay()
    assert cuda.replays == 2


def test_the_graph_keeps_its_memory_to_itself(cuda: Torch) -> None:
    made = []

    def work() -> None:
        with memory.recycling():
            made.append(weakref.ref(memory.empty((5, 7))))

    with memory.recycling():
        work()
        replay = ops.captured(work, GPU)
        work()
        memory.clear()
    ours, captured, later = (each() for each in made)
    assert ours is None and later is None, "the thread's pool let go of them"
    assert captured is not None
    del captured, replay
    gc.collect()
    assert made[1]() is None


@pytest.mark.parametrize("while_it_runs", [True, False])
def test_a_capture_that_breaks_off_leaves_nothing_behind(cuda: Torch, while_it_runs: bool) -> None:
    cuda.breaks_off = not while_it_runs
    pool = memory._pools.own

    def work() -> None:
        if while_it_runs:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")

    reason = "CUDA out of memory" if while_it_runs else r"\(CUDA error: capture invalidated\)"
    with pytest.warns(RuntimeWarning, match=f"no CUDA graph was made .*{reason}"):
        assert ops.captured(work, GPU) is None
    assert (cuda.device.index, cuda.stream) == (0, "default")
    assert memory._pools.own is pool


class _Queue:
    """A stream that writes down what it waits for."""

    def __init__(self, log: list[tuple[int, int]], number: int) -> None:
        self._log, self.cuda_stream, self.device = log, number, GPU

    def wait_stream(self, other: _Queue) -> None:
        self._log.append((self.cuda_stream, other.cuda_stream))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What waited for what while a graph is captured: (stream, of which stream), 0 the main one."""
    log: list[tuple[int, int]] = []
    main, numbers = _Queue(log, 0), iter(range(1, 9))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _Queue(log, next(numbers)))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    return log


def test_branches_start_after_what_they_read_and_end_before_it_is_used_again(
    waits: list[tuple[int, int]],
) -> None:
    with ops.Deferred() as deferred:
        read = torch.empty(1)
        alive = weakref.ref(read)
        assert deferred.branch("weight", GPU, read) == (3, 1)
        assert deferred.branch("bias", GPU) == (3, 2)
        assert deferred.branch("weight", GPU) == (3, 1)
        assert waits == [(1, 0), (2, 0), (1, 0)]
        del read
        assert alive() is not None
        deferred.join()
        assert waits[3:] == [(0, 1), (0, 2)]
        assert alive() is None
        assert deferred.branch("weight", GPU) == (3, 3)
    assert waits[5:] == [(3, 0), (0, 3)]


def test_branches_are_joined_when_a_capture_is_interrupted(waits: list[tuple[int, int]]) -> None:
    def interrupted() -> None:
        with ops.Deferred() as deferred:
            deferred.branch("bias", GPU)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert waits == [(1, 0), (0, 1)]
