"""A case: an operation on fixed numbers, what it must give, and the ways to compute it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import pydenoise
from pydenoise import ops

Step = Callable[[], Tensor]
Context = Callable[[], AbstractContextManager[Any]]

CHANNELS_LAST = " channels_last"
"""Ends the name of a way whose pictures come in that memory format."""


class WrongResult(RuntimeError):
    """A way of computing a case is outside the rounding bound, so its time means nothing."""


@dataclass(frozen=True)
class Way:
    """One way to compute a case.

    Attributes
    ----------
    call : callable
        Without arguments; this is timed.
    context : callable
        Makes the context manager around the calls, itself untimed.
    checked : callable, optional
        What is compared instead of the call's own result.
    note : str
        What a reader of the figures should know about it.
    """

    call: Step
    context: Context = nullcontext
    checked: Step | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """An operation on fixed numbers, what it must give, and the ways to compute it.

    Attributes
    ----------
    group : {"convolution", "columns", "network"}
        The table it belongs to.
    expected, tolerance : Tensor
        A way is right where ``|result - expected| <= tolerance``, elementwise.
    flop, moved_bytes : int
        Arithmetic of the direct method, and the least memory traffic, of one call; 0 where it says
        nothing.
    pictures : int
        Pictures that go through a network in one call.
    warmup : int
        Calls before the first that counts.
    saves_multiplications : bool
        Whether an algorithm exists that needs fewer products than `flop` says (Winograd's, for 3x3
        kernels between many channels), so that the rate may pass the multiply-add limit.
    """

    name: str
    group: str
    reason: str
    expected: Tensor
    tolerance: Tensor
    ways: Mapping[str, Way]
    flop: int = 0
    moved_bytes: int = 0
    pictures: int = 0
    warmup: int = 1
    saves_multiplications: bool = False

    def check(self) -> None:
        """Compute the case every way.

        Raises
        ------
        WrongResult
            If one of them is outside the tolerance; names the case, the way and the excess.
        """
        for name, way in self.ways.items():
            with way.context():
                result = (way.checked or way.call)()
            error = (result.double() - self.expected).abs()
            if not bool((error <= self.tolerance).all()):
                worst = float((error - self.tolerance).max())
                raise WrongResult(
                    f"{self.name}, {name}: {worst:.3g} outside the tolerance; largest error "
                    f"{float(error.max()):.3g} where {float(self.tolerance.max()):.3g} is allowed"
                )


def within(backend: str, algorithm: str) -> Context:
    """Maker of contexts in which one backend and algorithm run."""

    def enter() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(pydenoise.use_backend(backend))
        stack.enter_context(pydenoise.use_algorithm(algorithm))
        return stack

    return enter


REFERENCE = within("reference", "implicit")


def our_ways(algorithms: Iterable[str], reference: bool = True) -> dict[str, Context]:
    """Our ways by name: the compiled kernels with each algorithm, where they run; the reference."""
    runs = ops.backends()["cpu"] is None
    ways = {algorithm: within("cpu", algorithm) for algorithm in algorithms} if runs else {}
    return {**ways, "reference": REFERENCE} if reference or not runs else ways


def channels_last(*tensors: Tensor) -> list[Tensor]:
    """Copies in that memory format."""
    return [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]


def rounding(terms: int) -> float:
    """The bound on a float32 sum of so many terms, relative to the sum of their magnitudes."""
    return min(terms, 4 * math.sqrt(terms)) * torch.finfo(torch.float32).eps / 2
