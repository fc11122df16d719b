"""Whole networks: a training step, an iteration on one picture, inference, a training run.

What torch can do here only through its layers and autograd comes in as a competitor: a function
that gets the `Task` and returns a way to do it, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pydenoise import data, models, nn, objectives, optim
from pydenoise.benchmark._case import (
    CHANNELS_LAST,
    REFERENCE,
    Case,
    Context,
    Step,
    Way,
    channels_last,
    our_ways,
)
from pydenoise.training import train

CHECKED_STEPS = 3
WARMUP_STEPS = 30
LEARNING_RATE = 0.5
MOMENTUM = 0.9
BATCH = 16
LITTLE = "step 1x3x8x8, 2 channels"
SLOPE = 0.2

TRAINING, GRADIENTS, INFERENCE, RUN = "training", "gradients", "inference", "run"


@dataclass(frozen=True)
class Task:
    """What every way has to do, on the same numbers.

    Attributes
    ----------
    kind : {"training", "gradients", "inference", "run"}
        ``training``: one step on (source, target) with the mean squared error and SGD with
        momentum; the call returns the loss, what is checked are the losses of the first steps.
        ``gradients``: forward and backward, no update; checked are `loss_and_gradients`.
        ``inference``: the network's output for source, nothing kept.
        ``run``: one epoch over uint8 pairs in `order` from the start weights, which each call
        begins anew; returns the mean loss.
    network : {"table_one", "table_one, 2 channels", "zero_shot"}
    state : mapping of str to Tensor
        Start weights, by torch's names and in its layout.
    source, target : Tensor
    """

    kind: str
    network: str
    state: Mapping[str, Tensor]
    source: Tensor
    target: Tensor

    def order(self) -> list[Any]:
        """Numbers of the pairs of each batch, as `pydenoise.training.train` shuffles them."""
        shuffled = data.generator(0, 0, 0, "order").permutation(len(self.source))
        return [shuffled[start : start + BATCH] for start in range(0, len(shuffled), BATCH)]


Competitor = Callable[[Task], Way | None]


def zero_shot() -> nn.Sequential:
    """The network that learns to denoise from one picture alone; 22,275 weights."""
    generator = nn.init.seeded(0)
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1, generator=generator),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(48, 48, 3, padding=1, generator=generator),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(48, 3, 1, generator=generator),
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "table_one": partial(models.autoencoder, seed=0),
    "table_one, 2 channels": partial(models.autoencoder, (2, 2), seed=0),
    "zero_shot": zero_shot,
}

# Of each layer the weights, and the pixels of the picture per position of the kernel.
_LAYERS = {
    "table_one": ((1296, 4), (41472, 16), (41472, 16), (1296, 4)),
    "table_one, 2 channels": ((54, 4), (36, 16), (36, 16), (54, 4)),
    "zero_shot": ((1296, 1), (20736, 1), (144, 1)),
}


def flop(network: str, pixels: int, backward: bool = True) -> int:
    """Products and sums of one pass: forward, and with it the gradients of weights and inputs.

    The picture itself gets no gradient.
    """
    layers = [2 * weights * (pixels // every) for weights, every in _LAYERS[network]]
    return 3 * sum(layers) - layers[0] if backward else sum(layers)


def first_losses(step: Step) -> Tensor:
    """What is checked of a training step: after the first it depends on every gradient."""
    return torch.stack([step() for _ in range(CHECKED_STEPS)])


def loss_and_gradients(loss: Tensor, gradients: list[Tensor]) -> Tensor:
    """What is checked of an iteration: the loss, then all gradients in the layers' order."""
    return torch.cat([loss.reshape(1), *(gradient.flatten() for gradient in gradients)])


# --- our ways -----------------------------------------------------------------------------------


def _network(task: Task, dtype: torch.dtype) -> nn.Sequential:
    model = NETWORKS[task.network]().to(dtype)
    model.load_state_dict(task.state)
    return model


class _ByLayers(objectives.Noise2Noise):
    """The same step as whoever works with the layers writes it, none of it from tape."""

    def step(self, model: nn.Module, source: Tensor, target: Tensor, share: float = 1.0) -> float:
        loss: float = self.loss.forward(model.forward(source), target)
        model.backward_parameters(self.loss.backward(share))
        return share * loss


def _training(
    task: Task,
    source: Tensor,
    target: Tensor,
    kind: type[objectives.Noise2Noise] = objectives.Noise2Noise,
) -> Way:
    model = _network(task, source.dtype)
    objective = kind()
    optimizer = optim.SGD(model, lr=LEARNING_RATE, momentum=MOMENTUM)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = objective.step(model, source, target)
        optimizer.step()
        return torch.tensor(loss, dtype=torch.float64)

    return Way(step, checked=partial(first_losses, step))


def _gradients(task: Task, source: Tensor, target: Tensor) -> Way:
    model = _network(task, source.dtype)
    objective = objectives.Noise2Noise()

    def step() -> Tensor:
        model.zero_grad()
        return torch.tensor(objective.step(model, source, target), dtype=torch.float64)

    def checked() -> Tensor:
        loss = step()
        return loss_and_gradients(loss, [gradient.double() for _, gradient in model.param()])

    return Way(step, checked=checked)


def _inference(task: Task, source: Tensor, target: Tensor) -> Way:
    model = _network(task, source.dtype).eval()

    def step() -> Tensor:
        with nn.no_backward():
            output: Tensor = model.forward(source)
        return output

    return Way(step)


def _run(task: Task, source: Tensor, target: Tensor) -> Way:
    pairs = data.TensorPairs(source, target)

    def call() -> Tensor:
        model = _network(task, torch.float32)
        optimizer = optim.SGD(model, lr=LEARNING_RATE, momentum=MOMENTUM)
        result = train(model, pairs, epochs=1, batch_size=BATCH, optimizer=optimizer)
        return torch.tensor(result.history[0]["loss"], dtype=torch.float64)

    return Way(call)


_OURS: dict[str, Callable[[Task, Tensor, Tensor], Way]] = {
    TRAINING: _training,
    GRADIENTS: _gradients,
    INFERENCE: _inference,
    RUN: _run,
}


def _expected(task: Task) -> Tensor:
    """The right result: the reference backend in float64, which the tests hold against torch.

    On one thread: threads that wait for each other through its many small operations take minutes
    where a machine has other work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with REFERENCE():
            if task.kind == RUN:
                return _run(task, task.source, task.target).call()
            way = _OURS[task.kind](task, task.source.double(), task.target.double())
            return (way.checked or way.call)()
    finally:
        torch.set_num_threads(threads)


def _tolerance(task: Task, expected: Tensor) -> Tensor:
    """Rounding as it adds up through the layers; relative to the largest number of a parameter."""
    if task.kind == GRADIENTS:
        sizes = [1, *(tensor.numel() for tensor in task.state.values())]
        parts = expected.split(sizes)
        return torch.cat([(1e-4 * part.abs().max()).expand(len(part)) for part in parts])
    if task.kind == INFERENCE:
        return torch.tensor(1e-5)
    return (1e-3 if task.kind == RUN else 1e-5) * expected


# --- cases --------------------------------------------------------------------------------------


def _case(
    name: str,
    reason: str,
    task: Task,
    competitors: Mapping[str, Competitor],
    *,
    full: bool,
    work: int,
    warmup: int,
) -> Case:
    algorithms = ["auto", "implicit", *(["im2col"] if full else [])]
    maker = _OURS[task.kind]
    ways = {}
    for way_name, context in our_ways(algorithms, reference=full).items():
        ways[way_name] = _within(context, maker(task, task.source, task.target))
        if way_name == "auto" and task.kind != RUN:
            last = maker(task, *channels_last(task.source, task.target))
            ways[way_name + CHANNELS_LAST] = _within(context, last)
        if way_name == "auto" and task.kind == TRAINING:
            layers = _training(task, task.source, task.target, _ByLayers)
            ways["layers"] = _within(context, layers)
    for way_name, competitor in competitors.items():
        way = competitor(task)
        if way is not None:
            ways[way_name] = way
    expected = _expected(task)
    return Case(
        name=name,
        group="network",
        reason=reason,
        expected=expected,
        tolerance=_tolerance(task, expected),
        ways=ways,
        flop=work,
        pictures=len(task.source),
        warmup=warmup,
        saves_multiplications=True,
    )


def _within(context: Context, way: Way) -> Way:
    """The way inside a context of ours as well."""

    def both() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(context())
        stack.enter_context(way.context())
        return stack

    return Way(way.call, both, way.checked, way.note)


def _task(kind: str, network: str, size: tuple[int, ...]) -> Task:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.rand((2, *size), generator=generator)
    if kind == RUN:
        source, target = ((255 * picture).to(torch.uint8) for picture in (source, target))
    return Task(kind, network, NETWORKS[network]().state_dict(), source, target)


def training_step(
    batch: int, side: int, competitors: Mapping[str, Competitor], *, full: bool
) -> Case:
    """One step of Noise2Noise training on Table I: forward, loss, backward, momentum update.

    Parameters
    ----------
    batch, side : int
        Pictures, and their height and width, a multiple of 4.
    competitors, full
        See `cases`.
    """
    return _case(
        f"step {batch}x3x{side}x{side}",
        "Table I: forward, loss, backward and update",
        _task(TRAINING, "table_one", (batch, 3, side, side)),
        competitors,
        full=full,
        work=batch * flop("table_one", side * side),
        warmup=WARMUP_STEPS,
    )


def step_of_little(competitors: Mapping[str, Competitor], *, full: bool) -> Case:
    """A step with next to no arithmetic: what one costs beside its kernels' work, and more than
    that."""
    return _case(
        LITTLE,
        "Table I with 2 channels on one picture: what a step costs beside arithmetic",
        _task(TRAINING, "table_one, 2 channels", (1, 3, 8, 8)),
        competitors,
        full=full,
        work=flop("table_one, 2 channels", 8 * 8),
        warmup=WARMUP_STEPS,
    )


def zero_shot_iteration(competitors: Mapping[str, Competitor], *, full: bool) -> Case:
    """Forward and backward of the network that learns from one picture alone."""
    return _case(
        "zero-shot 256x256",
        "3-48-48-3 channels without strides, forward and backward: denoising without training data",
        _task(GRADIENTS, "zero_shot", (1, 3, 256, 256)),
        competitors,
        full=full,
        work=flop("zero_shot", 256 * 256),
        warmup=2,
    )


def inference(competitors: Mapping[str, Competitor], *, full: bool) -> Case:
    """One large picture through Table I, nothing kept for a backward pass."""
    return _case(
        "inference 1024x1024",
        "Table I on one large picture, nothing kept",
        _task(INFERENCE, "table_one", (1, 3, 1024, 1024)),
        competitors,
        full=full,
        work=flop("table_one", 1024 * 1024, backward=False),
        warmup=2,
    )


def training_run(competitors: Mapping[str, Competitor], *, full: bool) -> Case:
    """`pydenoise.training.train` over pairs in memory: the step with all that surrounds it."""
    pairs = 1600 if full else 320
    return _case(
        "training run",
        f"Table I, {pairs} pairs of 3x32x32 in batches of {BATCH}: shuffling, batches, steps, log",
        _task(RUN, "table_one", (pairs, 3, 32, 32)),
        competitors,
        full=full,
        work=pairs * flop("table_one", 32 * 32),
        warmup=1,
    )
