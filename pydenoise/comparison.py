"""Denoisers side by side: how near each comes to the clean picture, in what time and memory.

Every one works in a process of its own, so that none is charged for another's imports, caches and
memory.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from os import PathLike
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pydenoise import metrics
from pydenoise.data import to_tensor

Array: TypeAlias = npt.NDArray[Any]
Denoise: TypeAlias = Callable[[Array], Array]
Terms: TypeAlias = dict[str, Any]

METHODS = {
    "builtin": "built-in network",
    "zero-shot": "zero-shot, fast recipe",
    "zero-shot-paper": "zero-shot, the paper's recipe",
    "model": "a trained model",
    "nlm": "non-local means",
    "nlm-best": "non-local means (best h: an oracle)",
    "wavelet": "wavelet",
    "tv": "total variation",
    "bm3d": "BM3D",
}
"""What can be compared, and how a table calls it."""
WITH_TURNS = ("builtin", "zero-shot", "zero-shot-paper", "model")
"""Those whose result is a mean over turns of the picture."""


class Measured(NamedTuple):
    """What a method made of a picture.

    Attributes
    ----------
    psnr : float
        Of the picture in dB, after clipping and rounding to 8 bits.
    ssim : float or None
        After the same; None where a side is shorter than SSIM's window.
    seconds : float
        For this picture, without reading and scoring it, and without an oracle's choice.
    peak_mb : float or None
        The most memory held meanwhile above what the process held before its first picture, all
        code loaded; in 1e6 bytes. None where the system does not tell.
    """

    psnr: float
    ssim: float | None
    seconds: float
    peak_mb: float | None


def reason_missing(method: str) -> str | None:
    """Why a method is not to be had here; None if it is.

    Raises
    ------
    ValueError
        For a method that is not in `METHODS`.
    """
    if method not in METHODS:
        raise ValueError(f"comparison: unknown method {method!r}; known are {', '.join(METHODS)}")
    if method == "bm3d" and find_spec("bm3d") is None:
        return "not installed; pip install bm3d, if its licence suits you"
    return None


def measure(
    method: str,
    pictures: Iterable[tuple[Array, Array]],
    weights: str | PathLike[str] | None = None,
    turns: int | None = None,
) -> Iterator[Measured]:
    """Denoise pictures one by one in a new process.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    pictures : iterable of (noisy, clean)
        float32, (H, W) or (H, W, C), on the scale 0..1, the noisy ones as noise left them. Asked
        for when their turn has come.
    weights : path, optional
        What `model` loads; it takes the numbers of the pictures as they are.
    turns : int, optional
        As in `pydenoise.inference.denoise`, for methods `WITH_TURNS`; their own if omitted.

    Yields
    ------
    Measured

    Raises
    ------
    ValueError
        For an unknown method, `model` without weights, or turns of a method that has none.
    RuntimeError
        When the process dies, as for want of memory. Errors of the method are raised as they are.

    Notes
    -----
    The process is spawned: a script that calls this keeps what it runs under
    ``if __name__ == "__main__"``.
    """
    if reason := reason_missing(method):
        raise ValueError(f"{method}: {reason}")
    if method == "model" and weights is None:
        raise ValueError("comparison: the method 'model' needs weights")
    if turns is not None and method not in WITH_TURNS:
        raise ValueError(f"comparison: the method {method!r} has no turns")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:

        def result(task: str, work: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return process.submit(work, *arguments).result()
            except BrokenProcessPool:
                raise RuntimeError(
                    f"{method}: its process died {task}; it may have wanted more memory than "
                    "there is"
                ) from None

        path = None if weights is None else Path(weights)
        result("on loading", _begin, method, path, {} if turns is None else {"turns": turns})
        for noisy, clean in pictures:
            task = f"on a picture of {'x'.join(map(str, noisy.shape))}"
            denoised, seconds, peak_mb = result(task, _denoised, noisy, clean)
            yield Measured(*score(denoised, clean), seconds, peak_mb)


def score(picture: Array, clean: Array) -> tuple[float, float | None]:
    """PSNR and SSIM as `Measured` holds them."""
    both = to_tensor(picture), to_tensor(clean)
    is_small = min(clean.shape[:2]) < metrics.SSIM_WINDOW
    return metrics.psnr_per_image(*both), None if is_small else metrics.ssim(*both)


# --- in the method's own process ----------------------------------------------------------------


class _Worker(NamedTuple):
    run: Denoise
    oracle: Callable[[Array, Array], Denoise] | None  # makes `run` of the clean picture, too
    held: int | None


_worker: _Worker


def _begin(method: str, weights: Path | None, terms: Terms) -> None:
    """Load a method, use it once, so that no picture pays for imports, and note the memory."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is told by the parent alone
    Thread(target=_leave_with_parent, daemon=True).start()
    load = _LOADERS[method]
    tiny = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    load(weights, terms, True)(tiny)
    run = load(weights, terms, False)
    held = _peak() if _forget_peak() else None
    _worker = _Worker(run, _best_nonlocal_means if method == "nlm-best" else None, held)


def _leave_with_parent() -> None:
    """End when the parent has, however that was: a picture may take minutes."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _denoised(noisy: Array, clean: Array) -> tuple[Array, float, float | None]:
    """The picture, the seconds, and the megabytes."""
    run = _worker.oracle(noisy, clean) if _worker.oracle else _worker.run
    is_fresh = _forget_peak()
    began = time.perf_counter()
    denoised = run(noisy)
    seconds = time.perf_counter() - began
    peak, held = _peak() if is_fresh else None, _worker.held
    return denoised, seconds, None if peak is None or held is None else (peak - held) / 1e6


def _classic(name: str, weights: Path | None, terms: Terms, is_trial: bool) -> Denoise:
    from pydenoise import classic

    run: Denoise = getattr(classic, name)
    return run


def _best_nonlocal_means(noisy: Array, clean: Array) -> Denoise:
    from pydenoise import classic

    h = classic.best_h(noisy, clean)
    return lambda picture: classic.nonlocal_means(picture, h)


def _builtin(weights: Path | None, terms: Terms, is_trial: bool) -> Denoise:
    from pydenoise import builtin
    from pydenoise.data import Picture

    return lambda noisy: builtin.denoise_pages(Picture.of(noisy), **terms).array


def _zero_shot(name: str, weights: Path | None, terms: Terms, is_trial: bool) -> Denoise:
    from pydenoise import zero_shot
    from pydenoise.data import Picture

    recipe = zero_shot.RECIPES[name]
    recipe = recipe._replace(steps=1) if is_trial else recipe
    return lambda noisy: zero_shot.denoise_pages(Picture.of(noisy), recipe=recipe, **terms).array


def _model(weights: Path, terms: Terms, is_trial: bool) -> Denoise:
    from pydenoise import inference
    from pydenoise.checkpoint import load_weights
    from pydenoise.data import to_array

    model = load_weights(weights)[0].eval()
    return lambda noisy: to_array(inference.denoise(model, to_tensor(noisy), **terms), noisy.dtype)


_LOADERS: dict[str, Callable[..., Denoise]] = {
    "builtin": _builtin,
    "zero-shot": partial(_zero_shot, "fast"),
    "zero-shot-paper": partial(_zero_shot, "paper"),
    "model": _model,
    "nlm": partial(_classic, "nonlocal_means"),
    "nlm-best": partial(_classic, "nonlocal_means"),
    "wavelet": partial(_classic, "wavelet"),
    "tv": partial(_classic, "total_variation"),
    "bm3d": partial(_classic, "bm3d"),
}

_PROCESS = Path("/proc/self")


def _peak() -> int | None:
    """The most bytes of memory this process has held, since the last `_forget_peak`.

    Not getrusage's figure: that one begins with what the parent held, and cannot be reset.
    """
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, flags=re.M)
    return int(found[1]) * 1024 if found else None


def _forget_peak() -> bool:
    """Begin the peak anew; False where the system does not let us."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
