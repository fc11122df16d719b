"""What `train` trains: the network by name, how it likes to be trained, and the loss."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import typer

from pydenoise.cli.console import say

if TYPE_CHECKING:
    from pydenoise.data import NoiseModel
    from pydenoise.nn import Loss, Module
    from pydenoise.objectives import Objective
    from pydenoise.optim import Optimizer, Schedule


class NetworkName(StrEnum):
    """Networks by name."""

    AUTOENCODER = "autoencoder"
    UNET = "unet"
    SMALL_UNET = "unet-small"
    HALVED = "halved"


class ObjectiveName(StrEnum):
    """Objectives by name."""

    NOISE2NOISE = "noise2noise"
    NEIGHBOR2NEIGHBOR = "neighbor2neighbor"


class OptimizerName(StrEnum):
    """Optimizers by name."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class ScheduleName(StrEnum):
    """Schedules of the learning rate by name."""

    CONSTANT = "constant"
    STEP = "step"
    COSINE = "cosine"
    RAMP = "ramp"


class LossName(StrEnum):
    """Losses by name."""

    AUTO = "auto"
    MSE = "mse"
    L1 = "l1"
    L0 = "l0"
    MASKED = "masked"


class Recipe(NamedTuple):
    """What is taken where nothing else is asked for."""

    crop: int
    adam_lr: float
    beta2: float
    schedule: ScheduleName


_SGD_RATE, _SGD_MOMENTUM = 0.5, 0.9
_OF_A_UNET = Recipe(64, 1e-3, 0.99, ScheduleName.RAMP)
_LEARNING_ON = Recipe(64, 5e-4, 0.99, ScheduleName.RAMP)
_RECIPES = {
    NetworkName.AUTOENCODER: Recipe(32, 3e-3, 0.999, ScheduleName.COSINE),
    NetworkName.UNET: _OF_A_UNET,
    NetworkName.SMALL_UNET: _OF_A_UNET,
    NetworkName.HALVED: _OF_A_UNET,
}


def recipe(name: NetworkName, has_learned: bool) -> Recipe:
    """That of a new network by name, or of one that has learned before."""
    return _LEARNING_ON if has_learned else _RECIPES[name]


def level_channels(name: NetworkName, text: str | None) -> list[int]:
    """The numbers of `--channels`, which the autoencoder alone takes."""
    if name is not NetworkName.AUTOENCODER and text is not None:
        raise typer.BadParameter(f"the channels of {name} are its own", param_hint="--channels")
    try:
        return [int(word) for word in ("48,96" if text is None else text).split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of whole numbers such as 48,96", param_hint="--channels"
        ) from None


def network(name: NetworkName, widths: list[int], in_channels: int, seed: int) -> Module:
    """A new network; `widths` are those of an autoencoder's levels."""
    from pydenoise import models

    if name is NetworkName.AUTOENCODER:
        return models.autoencoder(widths, in_channels, seed=seed)
    if name is NetworkName.HALVED:
        return models.halved(in_channels, residual=True, seed=seed)
    build = models.unet if name is NetworkName.UNET else models.small_unet
    return build(in_channels, seed=seed)


def refuse_odd_sizes(shape: tuple[int, int, int], multiple: int) -> None:
    """Refuse training pictures that the network cannot halve as often as it wants to."""
    if shape[1] % multiple or shape[2] % multiple:
        raise ValueError(
            f"training pictures are {shape[1]}x{shape[2]}; this network takes multiples of "
            f"{multiple}: choose another --crop or another network"
        )


def optimizer(
    name: OptimizerName, model: Module, recipe: Recipe, lr: float | None, momentum: float | None
) -> Optimizer:
    from pydenoise import optim

    if name is OptimizerName.SGD:
        momentum = _SGD_MOMENTUM if momentum is None else momentum
        return optim.SGD(model, lr=_SGD_RATE if lr is None else lr, momentum=momentum)
    build = optim.Adam if name is OptimizerName.ADAM else optim.AdamW
    return build(model, lr=recipe.adam_lr if lr is None else lr, betas=(0.9, recipe.beta2))


def schedule(name: ScheduleName) -> Schedule:
    from pydenoise import optim

    return {
        ScheduleName.CONSTANT: optim.constant(),
        ScheduleName.STEP: optim.step(every=1 / 3, gamma=0.1),
        ScheduleName.COSINE: optim.cosine(),
        ScheduleName.RAMP: optim.ramp_down(),
    }[name]


def objective(
    name: ObjectiveName, loss: LossName, noise: NoiseModel | None, seed: int
) -> Objective:
    from pydenoise import objectives

    if name is ObjectiveName.NOISE2NOISE:
        return objectives.Noise2Noise(_loss(loss, noise))
    if loss not in (LossName.AUTO, LossName.MSE):
        raise typer.BadParameter(f"--objective {name} has a loss of its own; leave out --loss")
    if noise is not None and noise.loss != "mse":
        raise typer.BadParameter(
            f"--objective {name} finds the mean of many draws, which for {noise} is not the clean "
            "picture; leave it out, or choose another --noise"
        )
    # the paper's strengths for real and for synthetic noise
    return objectives.Neighbor2Neighbor(strength=1 if noise is None else 2, seed=seed)


def _loss(name: LossName, noise: NoiseModel | None) -> Loss:
    """The loss by name; `auto` takes the noise model's own, and says so where it is unusual."""
    from pydenoise import nn

    own = "mse" if noise is None else noise.loss
    if name is LossName.AUTO:
        because = "" if noise is None else f", which {noise} asks for"
        say(f"loss: {own}{because}")
    return nn.LOSSES[own if name is LossName.AUTO else name.value]()
