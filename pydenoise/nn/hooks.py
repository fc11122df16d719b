"""Looking at what passes between the layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .conv import Convolution
from .module import Module

_HOOKED = "forward", "_is_ours"
_ABSENT = object()


@contextmanager
def outputs_seen(model: Module, see: Callable[[str, Module, Tensor], None]) -> Iterator[None]:
    """Scope in which every layer without children hands its output to a function.

    Parameters
    ----------
    model : Module
        Runs layer by layer within, with the same numbers.
    see : callable
        Takes the layer's dotted name, the layer, and its output, which belongs to the network.
    """
    layers = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    before = [[vars(layer).get(name, _ABSENT) for name in _HOOKED] for _, layer in layers]

    def watched(name: str, layer: Module) -> Callable[..., Any]:
        forward = layer.forward

        def run(*args: Any, **keywords: Any) -> Any:
            output = forward(*args, **keywords)
            see(name, layer, output)
            return output

        return run

    try:
        for name, layer in layers:
            layer.forward = watched(name, layer)  # type: ignore[method-assign]
        yield
    finally:
        for (_, layer), values in zip(layers, before, strict=True):
            for name, value in zip(_HOOKED, values, strict=True):
                vars(layer).pop(name, None)
                if value is not _ABSENT:
                    vars(layer)[name] = value
        Module.changes += 1


@contextmanager
def gradients_seen(model: Module, see: Callable[[Module], None]) -> Iterator[None]:
    """Scope in which every convolution says so when a backward has added to its gradients.

    Parameters
    ----------
    model : Module
        Runs with the same bits within; its steps are not made from tape, which would say nothing.
    see : callable
        Takes the layer.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Convolution)]
    try:
        for layer in layers:
            layer.watcher = see
        Module.changes += 1
        yield
    finally:
        for layer in layers:
            layer.watcher = None
        Module.changes += 1
