"""The CUDA kernels as a library like that of the CPU: what they need beside it comes from torch.

Each call goes to the device of its tensors and to torch's current stream there. Scratch memory is
torch's, so that nothing waits for an allocation. Numbers are read back, which waits for the device;
inside `Deferred` they are not, and what decides over a step's size is read on the device, as a
captured CUDA graph needs it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pydenoise import memory

from ._compiled import Compiled

RULE_NUMBERS = 8
"""Numbers of an optimizer's rule as the kernels read them."""

tf32: ContextVar[bool] = ContextVar("pydenoise_tf32", default=False)


def rule_row(numbers: Sequence[float]) -> list[float]:
    """The numbers of an update rule, filled up to what the kernels read."""
    return [*numbers, *[0.0] * (RULE_NUMBERS - len(numbers))]


class _OfThread(threading.local):
    deferred: Deferred | None = None


_of_thread = _OfThread()


class Deferred:
    """Scope in which the calling thread waits for no number of the device.

    While a CUDA graph is captured inside, gradients of weights and of biases each get a branch of
    their own beside that of the inputs. They may be read from an optimizer's step, or the end of
    the scope, on.

    Attributes
    ----------
    numbers : list of Tensor (1,), float64
        What kernels returned inside, in order; the calls themselves return NaN.

    Parameters
    ----------
    rule : Tensor (8,), float64, optional
        Read by the optimizers' kernels inside, in place of what they are called with.
    """

    def __init__(self, rule: Tensor | None = None) -> None:
        self.numbers: list[Tensor] = []
        self.rule = rule
        self._branches: dict[tuple[str, torch.device], torch.cuda.Stream] = {}
        self._held: list[object] = []

    def __enter__(self) -> Deferred:
        self._outer = _of_thread.deferred
        _of_thread.deferred = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _of_thread.deferred = self._outer
        try:
            self.join()
        except RuntimeError:  # of a capture that has failed: what was raised inside says more
            if error is None:
                raise
        finally:
            self._forget()

    def branch(self, name: str, device: torch.device, *held: object) -> tuple[int, int]:
        """Where to work beside what comes next; keeps what is read there from being used again."""
        if device.type != "cuda" or not _is_capturing(device):
            return queue_of(device)
        stream = self._branches.get((name, device))
        if stream is None:
            stream = self._branches[name, device] = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        self._held += held
        return device.index or 0, stream.cuda_stream

    def join(self) -> None:
        """Let what comes next wait for all branches."""
        for stream in self._branches.values():
            torch.cuda.current_stream(stream.device).wait_stream(stream)
        self._forget()

    def _forget(self) -> None:
        self._branches.clear()
        self._held.clear()


def is_deferring() -> bool:
    """True inside a `Deferred` of the calling thread."""
    return _of_thread.deferred is not None


def _is_capturing(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def _branch(name: str, device: torch.device, *held: object) -> tuple[int, int]:
    deferred = _of_thread.deferred
    return queue_of(device) if deferred is None else deferred.branch(name, device, *held)


def queue_of(device: torch.device) -> tuple[int, int]:
    """Index of a device, and the address of torch's current stream on it."""
    return device.index or 0, torch.cuda.current_stream(device).cuda_stream


class Library:
    """The module `_cuda` with the entries of `_C`."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.Shape = module.Shape

    def __getattr__(self, name: str) -> Callable[..., None]:
        entry = getattr(self._module, name)

        def call(is_double: bool, dest: Tensor, *rest: Any) -> None:
            entry(is_double, dest, *rest, *queue_of(dest.device))

        setattr(self, name, call)
        return call

    def matmul(self, *operands: Any) -> None:
        """On the current device: the operands are addresses."""
        where = queue_of(torch.device("cuda", torch.cuda.current_device()))
        self._module.matmul(*operands, *where)

    def conv2d(self, *operands: Any) -> None:
        self._convolve("conv2d", *operands)

    def conv2d_grad_input(self, *operands: Any) -> None:
        self._convolve("conv2d_grad_input", *operands)

    def _convolve(self, name: str, is_double: bool, dest: Tensor, *rest: Any) -> None:
        *pictures, shape, _, activation, slope, output = rest
        count = getattr(self._module, f"{name}_workspace")(is_double, shape)
        scratch = _scratch(dest, count) if count else None
        finish = tf32.get(), activation, slope, output
        where = queue_of(dest.device)
        getattr(self._module, name)(is_double, dest, *pictures, shape, *finish, scratch, *where)

    def conv2d_grad_weight(self, is_double: bool, dest: Tensor, *operands: Any) -> None:
        *rest, _ = operands
        count = self._module.conv2d_grad_weight_workspace(is_double, rest[-2])
        scratch = _scratch(dest, count)
        where = _branch("weight", dest.device, scratch, dest, *rest)
        self._module.conv2d_grad_weight(is_double, dest, *rest, scratch, *where)

    def conv2d_grad_bias(self, is_double: bool, dest: Tensor, *rest: Any) -> None:
        count = self._module.conv2d_grad_bias_workspace(is_double, rest[-2])
        scratch = _scratch(dest, count)
        where = _branch("bias", dest.device, scratch, dest, *rest)
        self._module.conv2d_grad_bias(is_double, dest, *rest, scratch, *where)

    def mse_loss(self, is_double: bool, input: Tensor, target: Tensor) -> float:
        return self._mean("mse_loss", is_double, input, target)

    def l1_loss(self, is_double: bool, input: Tensor, target: Tensor) -> float:
        return self._mean("l1_loss", is_double, input, target)

    def _mean(self, name: str, is_double: bool, input: Tensor, target: Tensor) -> float:
        count = getattr(self._module, f"{name}_workspace")(is_double, input.numel())
        mean = memory.empty((1,), dtype=torch.float64, device=input.device)
        scratch, where = _scratch(input, count), queue_of(input.device)
        getattr(self._module, name)(is_double, mean, input, target, scratch, *where)
        deferred = _of_thread.deferred
        if deferred is None:
            return mean.item()
        deferred.numbers.append(mean)
        return math.nan

    def sgd_step(
        self,
        is_double: bool,
        param: Tensor,
        grad: Tensor,
        momentum_buffer: Tensor | None,
        rule: Sequence[float],
        *kind: bool,
    ) -> None:
        numbers, where = _rule(rule, param.device), queue_of(param.device)
        self._module.sgd_step(is_double, param, grad, momentum_buffer, numbers, *kind, *where)

    def adam_step(
        self,
        is_double: bool,
        param: Tensor,
        grad: Tensor,
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        rule: Sequence[float],
        decoupled: bool,
        step: int,
    ) -> None:
        numbers, where = _rule((*rule, step), param.device), queue_of(param.device)
        state = param, grad, exp_avg, exp_avg_sq
        self._module.adam_step(is_double, *state, numbers, decoupled, *where)


def _scratch(like: Tensor, nbytes: int) -> Tensor:
    return memory.empty((nbytes,), dtype=torch.uint8, device=like.device)


def _rule(numbers: Sequence[float], device: torch.device) -> Tensor:
    deferred = _of_thread.deferred
    if deferred is not None:
        deferred.join()
        if deferred.rule is not None:
            return deferred.rule
    return torch.tensor(rule_row(numbers), dtype=torch.float64).to(device)


class OnDevice(Compiled):
    """The CUDA kernels as a backend: one algorithm beside the report's chain."""

    def __init__(self, module: Any) -> None:
        super().__init__(Library(module))

    def matmul(self, out: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
        with torch.cuda.device(out.device):
            super().matmul(out, a, b, accumulate)
