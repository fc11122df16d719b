"""Sizes as layers take them: whole numbers and pairs, refused with a clear sentence."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

Pair = int | Sequence[int]


def whole(layer: str, name: str, value: Any, least: int) -> int:
    """A whole number, at least `least`, or an error that names the layer and the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{layer}: {name} must be a whole number, got {value!r}") from None
    if number < least:
        raise ValueError(f"{layer}: {name} must be at least {least}, got {number}")
    return number


def pair(layer: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """A number for both sides, or (height, width)."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        value = (value, value)
    if len(value) != 2:
        raise ValueError(f"{layer}: {name} must be a number or a pair of numbers, got {value!r}")
    return whole(layer, name, value[0], least), whole(layer, name, value[1], least)
