"""The ways to take noise out that `pydenoise denoise` knows, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import typer

from pydenoise.cli.console import refuse
from pydenoise.cli.machine import Device, place
from pydenoise.cli.progress import Watcher

if TYPE_CHECKING:
    import torch

    from pydenoise.data import Picture

Check: TypeAlias = "Callable[[Picture], None]"
Denoise: TypeAlias = "Callable[[Picture, Watcher], Picture]"


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
    """A method, why it is the one, what refuses a picture before any work, and what does it.

    Where there is one to do it `instead`, that takes the pictures that are neither gray nor RGB.
    """

    name: MethodName
    reason: str
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
    max_bytes: int | None
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
    def terms(self) -> dict[str, Any]:
        """Of every method; without turns where the method shall say how many."""
        terms: dict[str, Any] = {
            "value_range": self.value_range,
            "strength": self.strength,
            "max_bytes": self.max_bytes,
        }
        return terms if self.turns is None else {**terms, "turns": self.turns}

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
        instead = Method(MethodName.ZERO_SHOT, other, *_by_zero_shot(wishes))
    return Method(name, reason, *_WAYS[name](wishes), instead)


def _by_model(wishes: Wishes) -> tuple[Check, Denoise]:
    if wishes.model is None:
        raise typer.BadParameter("--method model needs trained weights: add -m WEIGHTS")
    refuse(wishes.of_zero_shot, "is for another method: a model has learnt already")

    from pydenoise.checkpoint import load_weights
    from pydenoise.inference import check_pages, denoise_pages

    trained = load_weights(wishes.model)[0].to(wishes.place)

    def check(picture: Picture) -> None:
        check_pages(trained, picture, **wishes.terms)

    def denoise(picture: Picture, progress: Watcher) -> Picture:
        return denoise_pages(trained, picture, **wishes.terms, progress=progress)

    return check, denoise


def _by_builtin(wishes: Wishes) -> tuple[Check, Denoise]:
    foreign = {"model": wishes.model, **wishes.of_zero_shot}
    refuse(foreign, "is for another method: the built-in network has learnt already")

    from pydenoise.builtin import denoise_pages, network_for
    from pydenoise.inference import check_terms, check_tiles

    device = wishes.place

    def check(picture: Picture) -> None:
        check_terms(picture, wishes.value_range, wishes.strength)
        check_tiles(network_for(picture, device), picture, wishes.max_bytes)

    def denoise(picture: Picture, progress: Watcher) -> Picture:
        return denoise_pages(picture, **wishes.terms, device=device, progress=progress)

    return check, denoise


def _by_zero_shot(wishes: Wishes) -> tuple[Check, Denoise]:
    refuse(
        {"model": wishes.model}, "is for another method: zero-shot learns from the picture itself"
    )

    from pydenoise.zero_shot import check_pages, denoise_pages

    device, recipe = wishes.place, (wishes.recipe or Recipe.FAST).value

    def check(picture: Picture) -> None:
        check_pages(picture, recipe=recipe, **wishes.terms)

    def denoise(picture: Picture, progress: Watcher) -> Picture:
        return denoise_pages(
            picture,
            **wishes.terms,
            recipe=recipe,
            per_page=wishes.per_page,
            seed=wishes.seed or 0,
            device=device,
            progress=progress,
        )

    return check, denoise


_WAYS: dict[MethodName, Callable[[Wishes], tuple[Check, Denoise]]] = {
    MethodName.BUILTIN: _by_builtin,
    MethodName.ZERO_SHOT: _by_zero_shot,
    MethodName.MODEL: _by_model,
}
