"""The numbers that describe a network, which may come out of a file."""

from __future__ import annotations

from typing import Any

_LEVELS = 8
_CHANNELS = 4096


def whole_number(network: str, name: str, value: Any, most: int = _CHANNELS) -> int:
    """`value` if it is a whole number from 1 to `most`; `network` and `name` for the error."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(
            f"{network}: {name} must be a whole number from 1 to {most}, got {value!r}"
        )
    return value


def whole_numbers(network: str, name: str, values: Any) -> list[int]:
    """`values` if they are channels, one number a level; `network` and `name` for the error."""
    if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= _LEVELS:
        raise ValueError(f"{network}: {name} must be 1 to {_LEVELS} whole numbers, got {values!r}")
    return [whole_number(network, f"{name}[{i}]", value) for i, value in enumerate(values)]
