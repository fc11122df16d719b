"""Networks by name, and the description from which each can be built again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydenoise import nn
from pydenoise.models.autoencoder import autoencoder
from pydenoise.models.halved import halved
from pydenoise.models.unet import small_unet, unet
from pydenoise.models.zero_shot import zero_shot

__all__ = ["autoencoder", "build", "halved", "small_unet", "unet", "zero_shot"]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "autoencoder": autoencoder,
    "halved": halved,
    "unet": unet,
}
_ARGUMENTS = {
    "autoencoder": {"channels", "in_channels"},
    "halved": {"channels", "widths"},
    "unet": {"channels", "width", "depth", "residual"},
}
_OPTIONAL = {"halved": {"residual"}}


def build(architecture: dict[str, Any]) -> nn.Module:
    """Build a network from its description, with fresh weights.

    Parameters
    ----------
    architecture : dict
        The `architecture` of a network made here; it may come out of a file, so it is checked.

    Returns
    -------
    Module

    Raises
    ------
    ValueError, TypeError
        For an unknown name, missing or unknown entries, or values out of range.

    Examples
    --------
    >>> build({"name": "autoencoder", "channels": [8, 16], "in_channels": 1}).size_multiple
    4
    """
    if not isinstance(architecture, dict):
        raise TypeError(f"build: architecture must be a dict, got {type(architecture).__name__}")
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in _BUILDERS:
        raise ValueError(f"build: unknown network {name!r}; known are {', '.join(_BUILDERS)}")
    optional = _OPTIONAL.get(name, set())
    if arguments.keys() - optional != _ARGUMENTS[name]:
        beside = f" and perhaps {sorted(optional)}" if optional else ""
        raise ValueError(
            f"build: {name} is described by {sorted(_ARGUMENTS[name])}{beside}, got "
            f"{sorted(arguments)}"
        )
    return _BUILDERS[name](**arguments)
