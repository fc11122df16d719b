"""The ways to take noise out that `pydenoise denoise` knows, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import typer

from pydenoise.cli.console import refuse
from pydenoise.cli.machine import Device, place

if TYPE_CHECKING:
    import torch

    from pydenoise.data import Picture

Check: TypeAlias = "Callable[[Picture], None]"
Denoise: TypeAlias = "Callable[..., Picture]"
"""Takes a picture, and a Watcher as `progress`."""
Way: TypeAlias = "tuple[int, Check, Denoise]"


class MethodName(StrEnum):
    """Methods by name."""

    AUTO = "auto"
    BUILTIN = "builtin"
    ZERO_SHOT = "zero-shot"
    MODEL = "model"


class Recipe(StrEnum):
    """Recipes of zero-shot by name."""

    FAST = "fast"
    PAPER = "paper"


class Method(NamedTuple):
    """A method, why it is the one, how many turns of a picture it takes, what refuses a picture
    before any work, and what does it.

    Where there is one to do it `instead`, that takes the pictures that are neither gray nor RGB.
    """

    name: MethodName
    reason: str
    turns: int
    check: Check
    denoise: Denoise
    instead: Method | None = None

    def suited(self, picture: Picture) -> Method:
        """The method of this picture."""
        from pydenoise.builtin import NETWORKS

        return self if self.instead is None or picture.colours in NETWORKS else self.instead


@dataclass(frozen=True)
class Wishes:
    """What the command line says on how to denoise; None for what it leaves open."""

    method: MethodName
    model: Path | None
    recipe: Recipe | None
    per_page: bool
    seed: int | None
    value_range: tuple[float, float] | None
    strength: float
    turns: int | None
    max_mem: int | None
    workers: int
    device: Device

    @property
    def place(self) -> torch.device:
        """The device that computes; the CPU unless a GPU is asked for.

        Raises
        ------
        ValueError
            As `pydenoise.cli.machine.place`.
        """
        return place(Device.CPU if self.device is Device.AUTO else self.device)

    @property
    def max_bytes(self) -> int | None:
        """The share of one worker."""
        return None if self.max_mem is None else self.max_mem // self.workers

    def terms(self, turns: int) -> dict[str, Any]:
        """Of every method, one with so many turns of its own."""
        return {
            "value_range": self.value_range,
            "strength": self.strength,
            "turns": turns if self.turns is None else self.turns,
            "max_bytes": self.max_bytes,
        }

    def check_memory(self, check: Check, picture: Picture) -> None:
        """Check a picture, and say in the words of the options how much memory it needs."""
        from pydenoise.tiles import TooFewBytes

        try:
            check(picture)
        except TooFewBytes as error:
            share = f", for each of {self.workers} workers" if self.workers > 1 else ""
            raise ValueError(
                f"--max-mem {self.max_mem} does not hold the smallest tile that can be "
                f"denoised{share}; allow at least {self.workers * error.least}"
            ) from error

    @property
    def of_zero_shot(self) -> dict[str, object]:
        """The options that are zero-shot's alone, those that are given."""
        own = {"recipe": self.recipe, "per-page": self.per_page or None, "seed": self.seed}
        return {name: given for name, given in own.items() if given is not None}


def chosen(wishes: Wishes) -> Method:
    """The method wished for; if none, the model that is given, else a network that ships.

    Raises
    ------
    typer.BadParameter
        When a wish is not one of that method.
    ValueError
        When the weights are none.
    """
    name, reason, instead = wishes.method, "as asked for", None
    if name is MethodName.AUTO and wishes.model is not None:
        name, reason = MethodName.MODEL, f"since one is given: {wishes.model}"
    elif name is MethodName.AUTO and wishes.of_zero_shot:
        name, reason = MethodName.ZERO_SHOT, f"since --{next(iter(wishes.of_zero_shot))} is its own"
    elif name is MethodName.AUTO:
        name, reason = MethodName.BUILTIN, "since no model is given (-m)"
        other = "since the built-in networks are for gray and RGB"
        instead = _method(MethodName.ZERO_SHOT, other, wishes)
    return _method(name, reason, wishes, instead)


def _method(name: MethodName, reason: str, wishes: Wishes, instead: Method | None = None) -> Method:
    turns, check, denoise = _WAYS[name](wishes)
    return Method(name, reason, turns, partial(wishes.check_memory, check), denoise, instead)


def _by_model(wishes: Wishes) -> Way:
    if wishes.model is None:
        raise typer.BadParameter("--method model needs trained weights: add -m WEIGHTS")
    refuse(wishes.of_zero_shot, "is for another method: a model has learnt already")

    from pydenoise.checkpoint import load_weights
    from pydenoise.inference import check_pages, denoise_pages

    trained, terms = load_weights(wishes.model)[0].to(wishes.place), wishes.terms(turns=1)
    run = partial(denoise_pages, trained, **terms)
    return terms["turns"], partial(check_pages, trained, **terms), run


def _by_builtin(wishes: Wishes) -> Way:
    foreign = {"model": wishes.model, **wishes.of_zero_shot}
    refuse(foreign, "is for another method: the built-in network has learnt already")

    from pydenoise.builtin import TURNS, check_pages, denoise_pages

    terms = {**wishes.terms(TURNS), "device": wishes.place}
    return terms["turns"], partial(check_pages, **terms), partial(denoise_pages, **terms)


def _by_zero_shot(wishes: Wishes) -> Way:
    refuse(
        {"model": wishes.model}, "is for another method: zero-shot learns from the picture itself"
    )

    from pydenoise.zero_shot import RECIPES, check_pages, denoise_pages

    recipe = (wishes.recipe or Recipe.FAST).value
    terms = {**wishes.terms(RECIPES[recipe].turns), "recipe": recipe}
    run = partial(
        denoise_pages,
        **terms,
        per_page=wishes.per_page,
        seed=wishes.seed or 0,
        device=wishes.place,
    )
    return terms["turns"], partial(check_pages, **terms), run


_WAYS: dict[MethodName, Callable[[Wishes], Way]] = {
    MethodName.BUILTIN: _by_builtin,
    MethodName.ZERO_SHOT: _by_zero_shot,
    MethodName.MODEL: _by_model,
}
