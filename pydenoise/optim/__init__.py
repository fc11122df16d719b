"""How weights move: update rules with torch's numbers, and learning-rate schedules."""

from __future__ import annotations

from .rules import SGD, Adam, AdamW, Optimizer
from .schedules import Schedule, constant, cosine, ramp_down, step

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "Schedule",
    "constant",
    "cosine",
    "ramp_down",
    "step",
]
