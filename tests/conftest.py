"""Where a test runs: every backend, instruction set, algorithm, dtype and memory format there is.

A test that asks for `setting` runs under each combination, one that asks for `place` under each
backend and instruction set. What this machine lacks is skipped with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from cases import Operands
from hypothesis import HealthCheck, settings
from on_host import Kernels, host_kernels, in_place_of_the_processor, why_not_on_host
from terminal import calls, course_file, folder, run, weights  # noqa: F401 (fixtures)
from torch import Tensor

from pydenoise import ops
from pydenoise.ops import _backend

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("ci")

INSTRUCTION_SETS = ("scalar", "avx2", "avx512")
ALGORITHMS = ("im2col", "implicit")
DTYPES = (torch.float32, torch.float64)
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}

GUARD = 37
"""Elements before and after a guarded tensor; odd, so that it starts at no round address."""


@dataclass(frozen=True)
class Place:
    """A backend, and for the compiled one the instruction set its kernels are held to.

    Without a GPU the CUDA backend works on tensors in main memory, by the kernels of csrc/cuda as
    `on_host` builds them: then `isa` is "on-host".
    """

    backend: str
    isa: str | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if str(self) == "cuda" else "cpu")

    def put(self, x: Tensor) -> Tensor:
        """x here: itself where it already is."""
        return x.to(self.device)

    def put_all(self, o: Operands) -> Operands:
        """A case's operands here."""
        return Operands(*(None if x is None else self.put(x) for x in o))

    def __str__(self) -> str:
        return self.backend if self.isa is None else f"{self.backend}-{self.isa}"

    def enter(self, stack: ExitStack) -> None:
        """Run what follows here, until the stack is closed, and on one thread: the cases are too
        small for more, and a busy machine makes threads wait. The laws of threads have a test."""
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        if self.isa == "on-host":
            stack.enter_context(in_place_of_the_processor())
            return
        stack.enter_context(ops.use_backend(self.backend))
        if self.isa is not None:
            stack.enter_context(_backend.use_isa(self.isa))


@dataclass(frozen=True)
class Setting:
    """A place, an algorithm, a dtype and a memory format; makes the tensors for a test there."""

    place: Place
    algorithm: str
    dtype: torch.dtype
    memory_format: torch.memory_format

    def __str__(self) -> str:
        memory = next(name for name, value in FORMATS.items() if value == self.memory_format)
        return f"{self.place}-{self.algorithm}-{str(self.dtype).removeprefix('torch.')}-{memory}"

    def put(self, x: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
        """Copy x here between guards of NaN, a picture in the setting's memory format."""
        return self.room(x.shape, memory_format).tensor.copy_(x)

    def put_all(self, o: Operands) -> Operands:
        """Copy a case's operands here; weights stay contiguous."""
        plain = torch.contiguous_format
        return Operands(
            self.put(o.input),
            self.put(o.weight, plain),
            None if o.bias is None else self.put(o.bias),
            self.put(o.grad_output),
            None if o.mirror_bias is None else self.put(o.mirror_bias),
            self.put(o.columns),
        )

    def room(self, size: tuple[int, ...], memory_format: torch.memory_format | None = None) -> Room:
        """Make room for a result, full of NaN, to be given as `out=`."""
        if len(size) != 4:
            memory_format = torch.contiguous_format
        return Room(size, self.dtype, memory_format or self.memory_format, self.place.device)


class Room:
    """A tensor of NaN between guards of NaN: what is not written, or written beyond, shows."""

    def __init__(
        self,
        size: tuple[int, ...],
        dtype: torch.dtype,
        memory_format: torch.memory_format,
        device: torch.device,
    ) -> None:
        like = torch.empty(size, device="meta").to(memory_format=memory_format)
        self._memory = torch.full(
            (like.numel() + 2 * GUARD,), torch.nan, dtype=dtype, device=device
        )
        self.tensor = self._memory.as_strided(size, like.stride(), GUARD)

    def assert_untouched_around(self) -> None:
        guards = torch.cat([self._memory[:GUARD], self._memory[-GUARD:]])
        assert guards.isnan().all(), "memory around the result was written"


def _places() -> list[tuple[Place, str | None]]:
    """Every place with None, or the reason why it is not here."""
    found: list[tuple[Place, str | None]] = []
    for backend, reason in ops.backends().items():
        if backend == "cuda" and reason is not None:
            found.append((Place("cuda", "on-host"), why_not_on_host()))
            continue
        if backend != "cpu" or reason is not None:
            found.append((Place(backend), reason))
            continue
        here = _backend.available_isas()
        for isa in INSTRUCTION_SETS:
            why = None if isa in here else f"this processor has no {isa}"
            found.append((Place(backend, isa), why))
    return found


def _parameters(expand: bool) -> list[object]:
    """List every place as a test parameter, times every combination when `expand`."""
    parameters = []
    for place, reason in _places():
        if reason is not None:
            skip = pytest.mark.skip(reason=f"{place}: {reason}")
            parameters.append(pytest.param(None, id=str(place), marks=skip))
        elif not expand:
            parameters.append(pytest.param(place, id=str(place)))
        else:
            for algorithm, dtype, memory in product(ALGORITHMS, DTYPES, FORMATS.values()):
                setting = Setting(place, algorithm, dtype, memory)
                parameters.append(pytest.param(setting, id=str(setting)))
    return parameters


@pytest.fixture(params=_parameters(expand=False))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Run the test under every backend and instruction set."""
    with ExitStack() as stack:
        request.param.enter(stack)
        yield request.param


@pytest.fixture(params=_parameters(expand=True))
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    """Run the test under every combination of place, algorithm, dtype and memory format."""
    with ExitStack() as stack:
        request.param.place.enter(stack)
        stack.enter_context(ops.use_algorithm(request.param.algorithm))
        yield request.param


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with either algorithm."""
    with ops.use_algorithm(request.param):
        yield request.param


@pytest.fixture(params=DTYPES, ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Run the test in either precision."""
    return request.param


@pytest.fixture(params=FORMATS.values(), ids=FORMATS.keys())
def memory_format(request: pytest.FixtureRequest) -> torch.memory_format:
    """Run the test in either memory format."""
    return request.param


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    """The CUDA kernels, built to run on this machine's processor."""
    reason = why_not_on_host()
    if reason is not None:
        pytest.skip(reason)
    return host_kernels()
