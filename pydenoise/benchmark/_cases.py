"""The list of what is measured, in the order of the tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from pydenoise.benchmark import _networks
from pydenoise.benchmark._case import Case
from pydenoise.benchmark._convolutions import (
    LAYERS,
    PICTURE,
    QUANTITIES,
    col2im,
    convolution,
    im2col,
)
from pydenoise.benchmark._networks import Competitor


def _plan(competitors: Mapping[str, Competitor], full: bool) -> dict[str, Callable[[], Case]]:
    """Name -> what makes the case."""
    plan: dict[str, Callable[[], Case]] = {}
    for layer in (*LAYERS, PICTURE):
        for quantity in QUANTITIES:
            plan[f"{layer.name} {quantity}"] = partial(convolution, layer, quantity, full=full)
    for layer in (*LAYERS[:2], PICTURE):
        plan[f"{layer.name} im2col"] = partial(im2col, layer)
        plan[f"{layer.name} col2im"] = partial(col2im, layer)
    for batch, side in ((16, 32), (128, 32), (16, 128)) if full else ((16, 32),):
        plan[f"step {batch}x3x{side}x{side}"] = partial(
            _networks.training_step, batch, side, competitors, full=full
        )
    plan[_networks.LITTLE] = partial(_networks.step_of_little, competitors, full=full)
    plan["zero-shot 256x256"] = partial(_networks.zero_shot_iteration, competitors, full=full)
    plan["inference 1024x1024"] = partial(_networks.inference, competitors, full=full)
    plan["training run"] = partial(_networks.training_run, competitors, full=full)
    return plan


def cases(
    competitors: Mapping[str, Competitor] | None = None,
    *,
    full: bool = False,
    only: Collection[str] = (),
) -> Iterator[Case]:
    """All cases, one at a time, so that only one holds its tensors.

    Parameters
    ----------
    competitors : mapping of str to callable, optional
        Other ways to do what a network does, by name: each gets a `Task` and returns a `Way`, or
        None where it has none. Names of torch's ways begin with ``torch``.
    full : bool
        Whether the large cases and the slow ways come along.
    only : collection of str
        Nothing but the cases with one of these at the beginning of a word of their names; all
        where it is empty.

    Raises
    ------
    ValueError
        Where `only` names nothing that there is.
    """
    plan = _plan(competitors or {}, full)
    for word in only:
        if not any(_is_called(name, word) for name in plan):
            raise ValueError(f"no case is called {word!r}; there are {', '.join(plan)}")
    for name, make in plan.items():
        if not only or any(_is_called(name, word) for word in only):
            yield make()


def _is_called(name: str, word: str) -> bool:
    return f" {word}" in f" {name}"
