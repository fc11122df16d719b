"""A function's work on a GPU as one CUDA graph, to be done again without its Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from pydenoise import memory

_broken_off: list[torch.cuda.CUDAGraph] = []
"""Kept, because torch's allocator may go on asking them whether they are being captured."""


def captured(function: Callable[[], object], device: torch.device) -> Callable[[], None] | None:
    """What a function starts on a device, as one call that starts it all again.

    Parameters
    ----------
    function : callable
        Reads and writes tensors that the caller keeps alive and where they are. It must have run
        before: the first launch of a kernel loads it, which a capture does not allow.
    device : torch.device
        A GPU.

    Returns
    -------
    callable or None
        Starts the work on the current stream. It keeps the memory that the function works in, out
        of a pool that nobody else looks into. None, with a warning, where CUDA refuses.

    Notes
    -----
    Nothing is computed here: torch's scope waits for all that was started before, and what is
    captured on the side stream does not run. Other threads may use the device meanwhile.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    try:
        with (
            memory.private() as pool,
            torch.cuda.device(device),
            torch.cuda.stream(stream),  # a capture that fails does not leave its stream itself
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            function()
    except RuntimeError as error:
        graph.reset()
        _broken_off.append(graph)
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"no CUDA graph was made of a training step ({reason}); "
            "its kernels are started one by one, which is slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None

    def replay(kept: object = pool) -> None:
        graph.replay()

    return replay
