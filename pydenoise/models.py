"""Networks by name, and the description from which each can be built again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from pydenoise import nn

__all__ = ["autoencoder", "build"]

_LEVELS = 8
_CHANNELS = 4096


def autoencoder(
    channels: Sequence[int] = (48, 96),
    in_channels: int = 3,
    *,
    init: str = "default",
    seed: int | None = None,
) -> nn.Sequential:
    """Build the course's network: strided convolutions down, transposed ones up, no skips.

    Parameters
    ----------
    channels : sequence of int
        One number per level, 1 to 8 of them; each level halves the resolution.
    in_channels : int
        Of the picture, 1 for gray and 3 for colour.
    init : str
        First values by name, see `pydenoise.nn.init.fill`.
    seed : int, optional
        Same seed, same weights, whatever torch's global random state; drawn by the system if
        omitted.

    Returns
    -------
    Sequential
        ``(N, in_channels, H, W) -> (N, in_channels, H, W)``, values in (0, 1); H and W multiples
        of its `size_multiple`, 2 to the number of levels. float32.

    Raises
    ------
    ValueError, TypeError
        For channels that are not such whole numbers, or an unknown init.

    Notes
    -----
    With the defaults this is Table I of the report: 3x3 kernels, stride 2, padding 1, ReLU between,
    output_padding 1 on the way up and a sigmoid at the end; 85,731 weights.

    Examples
    --------
    >>> model = autoencoder()
    >>> sum(parameter.data.numel() for parameter in model.parameters())
    85731
    """
    widths = _whole_numbers("autoencoder", "channels", channels)
    (in_channels,) = _whole_numbers("autoencoder", "in_channels", (in_channels,))
    generator = nn.init.seeded(seed)
    model = nn.Sequential()
    down = [in_channels, *widths]
    for before, after in pairwise(down):
        model.append(nn.Conv2d(before, after, 3, 2, 1, init=init, generator=generator))
        model.append(nn.ReLU())
    up = down[::-1]
    for before, after in pairwise(up):
        model.append(nn.ConvTranspose2d(before, after, 3, 2, 1, 1, init=init, generator=generator))
        model.append(nn.ReLU())
    model = model[:-1].append(nn.Sigmoid())
    model.architecture = {"name": "autoencoder", "channels": widths, "in_channels": in_channels}
    model.size_multiple = 2 ** len(widths)
    return model


_BUILDERS: dict[str, Callable[..., nn.Module]] = {"autoencoder": autoencoder}
_ARGUMENTS = {"autoencoder": {"channels", "in_channels"}}


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
    if arguments.keys() != _ARGUMENTS[name]:
        raise ValueError(
            f"build: {name} is described by {sorted(_ARGUMENTS[name])}, got {sorted(arguments)}"
        )
    return _BUILDERS[name](**arguments)


def _whole_numbers(network: str, name: str, values: Any) -> list[int]:
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= _LEVELS:
        raise ValueError(f"{network}: {name} must be 1 to {_LEVELS} whole numbers, got {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _CHANNELS:
            raise ValueError(
                f"{network}: {name} must be whole numbers from 1 to {_CHANNELS}, got {value!r}"
            )
    return list(values)
