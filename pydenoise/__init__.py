"""Noise taken out of pictures without a clean picture to learn from.

Convolutions, their backward passes and the optimizers are the package's own, compiled for the CPU
and written out in Python beside it. Names are loaded when first asked for: importing the package
alone imports neither torch nor numpy, prints nothing and changes nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        builtin,
        checkpoint,
        data,
        diagnosis,
        inference,
        metrics,
        models,
        nn,
        objectives,
        ops,
        optim,
        training,
        zero_shot,
    )
    from .denoiser import Denoiser, denoise
    from .nn import no_backward
    from .ops import allow_tf32, backends, show_config, use_algorithm, use_backend

__version__ = "0.1.0"

__all__ = [
    # rooms
    "ops",
    "nn",
    "optim",
    "models",
    "objectives",
    "data",
    "metrics",
    "diagnosis",
    "training",
    "checkpoint",
    "inference",
    "builtin",
    "zero_shot",
    # in one call
    "denoise",
    "Denoiser",
    # switches
    "no_backward",
    "use_backend",
    "use_algorithm",
    "allow_tf32",
    "backends",
    "show_config",
    "__version__",
]

_HOMES = {
    "denoise": "pydenoise.denoiser",
    "Denoiser": "pydenoise.denoiser",
    "no_backward": "pydenoise.nn",
    "use_backend": "pydenoise.ops",
    "allow_tf32": "pydenoise.ops",
    "use_algorithm": "pydenoise.ops",
    "backends": "pydenoise.ops",
    "show_config": "pydenoise.ops",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        value = import_module(f"pydenoise.{name}")
    else:
        raise AttributeError(f"module 'pydenoise' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
