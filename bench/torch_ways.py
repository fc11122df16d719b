"""How torch does what the benchmark's networks do: layers, autograd, its fastest optimizer.

Eager and compiled, each with contiguous and with channels_last pictures and weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch_twin
from torch import Tensor

from pydenoise import benchmark, data

FORMATS = {"": torch.contiguous_format, " channels_last": torch.channels_last}
OPTIMIZERS = {"foreach": {"foreach": True}, "fused": {"fused": True}}
WARMUP_TURNS, TRIAL_TURNS = 5, 15

Model = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class TorchWay:
    """A competitor: one memory format, eager or compiled."""

    _compiled_for: benchmark.Task | None = None

    def __init__(self, memory_format: torch.memory_format, compiled: bool) -> None:
        self.memory_format = memory_format
        self.compiled = compiled

    def __call__(self, task: benchmark.Task) -> benchmark.Way:
        make: dict[str, Callable[[benchmark.Task], benchmark.Way]] = {
            "training": self._training,
            "gradients": self._gradients,
            "inference": self._inference,
            "run": self._run,
        }
        if self.compiled and TorchWay._compiled_for is not task:
            torch._dynamo.reset()  # or each case would search the code of all before it
            TorchWay._compiled_for = task
        return make[task.kind](task)

    def _network(self, task: benchmark.Task) -> Any:
        twin = torch_twin.NETWORKS[task.network]()
        twin.load_state_dict(task.state)
        return twin.to(memory_format=self.memory_format)

    def _loss(self, network: Any) -> Loss:
        """Network and loss in one, so that a compiler sees both."""

        def loss_of(source: Tensor, target: Tensor) -> Tensor:
            return torch.nn.functional.mse_loss(network(source), target)

        return torch.compile(loss_of, dynamic=False) if self.compiled else loss_of

    def _put(self, *tensors: Tensor) -> list[Tensor]:
        return [tensor.contiguous(memory_format=self.memory_format) for tensor in tensors]

    def _training(self, task: benchmark.Task) -> benchmark.Way:
        network = self._network(task)
        loss_of = self._loss(network)
        batch = self._put(task.source, task.target)
        fastest = fastest_optimizer(network, loss_of, *batch)
        network.load_state_dict(task.state)
        step = partial(stepper(network, loss_of, fastest), *batch)
        return benchmark.Way(
            step, checked=partial(benchmark.first_losses, step), note=f"SGD({fastest}=True)"
        )

    def _gradients(self, task: benchmark.Task) -> benchmark.Way:
        network = self._network(task)
        loss_of = self._loss(network)
        source, target = self._put(task.source, task.target)

        def step() -> Tensor:
            network.zero_grad(set_to_none=True)
            loss = loss_of(source, target)
            loss.backward()
            return loss.detach()

        def checked() -> Tensor:
            loss = step().double()
            gradients = [parameter.grad.double() for parameter in network.parameters()]
            return benchmark.loss_and_gradients(loss, gradients)

        return benchmark.Way(step, checked=checked)

    def _inference(self, task: benchmark.Task) -> benchmark.Way:
        network: Model = self._network(task).eval()
        if self.compiled:
            network = torch.compile(network, dynamic=False)
        (source,) = self._put(task.source)
        return benchmark.Way(partial(network, source), context=torch.inference_mode)

    def _run(self, task: benchmark.Task) -> benchmark.Way:
        """An epoch as torch users write it, over the batches that `train` would take."""
        network = self._network(task)
        loss_of = self._loss(network)
        pairs = data.TensorPairs(task.source, task.target)
        order = task.order()
        fastest = fastest_optimizer(network, loss_of, *self._put(*pairs.batch(order[0], 0)))

        def call() -> Tensor:
            network.load_state_dict(task.state)
            step = stepper(network, loss_of, fastest)
            losses = [step(*self._put(*pairs.batch(batch, 0))).item() for batch in order]
            return torch.tensor(sum(losses) / len(losses), dtype=torch.float64)

        return benchmark.Way(call, note=f"SGD({fastest}=True)")


def stepper(network: Any, loss_of: Loss, optimizer: str) -> Loss:
    """What makes one training step on a batch and returns its loss."""
    rule = torch.optim.SGD(
        network.parameters(),
        lr=benchmark.LEARNING_RATE,
        momentum=benchmark.MOMENTUM,
        **OPTIMIZERS[optimizer],
    )

    def step(source: Tensor, target: Tensor) -> Tensor:
        rule.zero_grad(set_to_none=True)
        loss = loss_of(source, target)
        loss.backward()
        rule.step()
        return loss.detach()

    return step


def fastest_optimizer(network: Any, loss_of: Loss, source: Tensor, target: Tensor) -> str:
    """Which of torch's ways to update makes the shorter step, taking turns after a warm-up."""
    steps = {name: stepper(network, loss_of, name) for name in OPTIMIZERS}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARMUP_TURNS + TRIAL_TURNS):
        for name, step in steps.items():
            start = time.perf_counter()
            step(source, target)
            if turn >= WARMUP_TURNS:
                times[name].append(time.perf_counter() - start)
    return min(times, key=lambda name: statistics.median(times[name]))


def competitors(compiled: bool) -> dict[str, benchmark.Competitor]:
    """torch's ways by name."""
    ways: dict[str, benchmark.Competitor] = {
        f"torch{suffix}": TorchWay(memory_format, False)
        for suffix, memory_format in FORMATS.items()
    }
    if compiled:
        ways |= {
            f"torch.compile{suffix}": TorchWay(memory_format, True)
            for suffix, memory_format in FORMATS.items()
        }
    return ways
