"""Denoising in one call, whatever a picture comes as: an array, a tensor, an image of Pillow's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pydenoise import builtin, inference, ops, optim, zero_shot
from pydenoise.checkpoint import load_weights
from pydenoise.data import PairSource, Picture, TensorPairs
from pydenoise.nn import Module
from pydenoise.training import train

if TYPE_CHECKING:
    from PIL import Image

Anything = TypeVar("Anything")

_METHODS = ("auto", "builtin", "zero-shot")
_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")


def denoise(
    picture: Anything,
    model: Module | str | PathLike[str] | None = None,
    *,
    method: str = "auto",
    axes: str | None = None,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int | None = None,
    max_bytes: int | None = None,
    device: torch.device | str | None = None,
    **zero_shot_terms: Any,
) -> Anything:
    """Take the noise out of a picture or a stack.

    Parameters
    ----------
    picture : ndarray, Tensor, PIL.Image.Image or pydenoise.data.Picture
        An array (H, W) or (H, W, C), C = 1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha; of
        any other shape with `axes`. A tensor (H, W), (C, H, W) or (N, C, H, W), C = 1 or 3, whose N
        pictures are pages of one stack. Pillow's modes L, LA, RGB, RGBA, I;16, I and F. Whole
        numbers or floating point, of any range.
    model : Module or path, optional
        A denoiser or its weights file.
    method : {"auto", "builtin", "zero-shot"}
        What does it without a model, where noise must be independent between pixels:
        `pydenoise.builtin`, a network that ships, for gray and RGB; `pydenoise.zero_shot`, which
        learns from the picture itself, for half a minute. `auto` is zero-shot for other channels
        and where a term of it is given, and the network that ships for all else.
    axes : str, optional
        For an array, a letter for each dimension: Y and X, S for colours, any other counts pages.
    value_range : (float, float), optional
        The numbers that are 0 and 1 to the network. If omitted: for a model the range of the dtype,
        or 0 and 1 for floating point; without one the percentiles of the picture.
    strength : float
        From 0, the noisy picture, to 1.
    turns : int, optional
        How many of a picture's eight turned and mirrored versions the result is the mean of, see
        `pydenoise.inference.denoise`. If omitted: 1 for a model, 8 for the network that ships,
        the recipe's for zero-shot.
    max_bytes : int, optional
        What the network's layers may hold at a time, see `pydenoise.inference.denoise`.
    device : torch.device or str, optional
        Where the network computes, wherever the picture lies. If omitted: where a model lies that
        is a Module, else the CPU.
    **zero_shot_terms
        `recipe`, `per_page`, `seed` and `progress` of `pydenoise.zero_shot.denoise_pages`.

    Returns
    -------
    like `picture`
        New, of the same kind, shape, dtype and device, in the same numbers. Alpha, NaN, infinity
        and what lies far outside the range stay as they are.

    Raises
    ------
    TypeError
        For anything else, terms of zero-shot beside a model or another method, or a device beside
        a Module.
    ValueError
        For methods, shapes, modes, axes, ranges, strengths and turns that are none of the above;
        for a GPU that is not there.

    Examples
    --------
    >>> noisy = np.random.default_rng(0).normal(100, 5, (64, 64))
    >>> bool(denoise(noisy).std() < noisy.std() / 5)
    True
    """
    if method not in _METHODS:
        raise ValueError(f"denoise: unknown method {method!r}; known are {', '.join(_METHODS)}")
    if model is not None and method != "auto":
        raise TypeError(f"denoise: give either a model or the method {method!r}")
    if device is not None and isinstance(model, Module):
        raise TypeError(
            f"denoise: a Module computes where it lies; move it there: model.to({str(device)!r})"
        )
    place = torch.device("cpu" if device is None else device)
    if place.type == "cuda" and (missing := ops.backends()["cuda"]):
        raise ValueError(f"denoise: device {device}: {missing}; take 'cpu'")
    pages, back = _pages(picture, axes)
    terms: dict[str, Any] = {
        "value_range": value_range,
        "strength": strength,
        "max_bytes": max_bytes,
    }
    if turns is not None:
        terms["turns"] = turns
    if model is None and method == "auto":
        is_for_builtin = pages.colours in builtin.NETWORKS and not zero_shot_terms
        method = "builtin" if is_for_builtin else "zero-shot"
    if method == "zero-shot":
        return back(zero_shot.denoise_pages(pages, device=place, **terms, **zero_shot_terms))
    if zero_shot_terms:
        raise TypeError(f"denoise: {', '.join(zero_shot_terms)} is for zero-shot, without a model")
    if model is None:
        return back(builtin.denoise_pages(pages, device=place, **terms))
    network = model if isinstance(model, Module) else load_weights(model)[0].to(place)
    return back(inference.denoise_pages(network, pages, **terms))


class Denoiser:
    """A network to train once and to use on many pictures.

    Parameters
    ----------
    model : Module or path
        A network of `pydenoise.models`, trained or not, or a weights file.

    Examples
    --------
    >>> from pydenoise import models
    >>> noisy = torch.randint(90, 110, (2, 16, 3, 32, 32), dtype=torch.uint8)
    >>> denoiser = Denoiser(models.autoencoder((8,), seed=0)).fit(noisy, epochs=2)
    >>> denoiser.denoise(np.full((20, 20, 3), 100, np.uint8)).shape
    (20, 20, 3)
    """

    def __init__(self, model: Module | str | PathLike[str]) -> None:
        self.model = _network(model)

    def fit(
        self,
        pairs: PairSource | Iterable[Tensor],
        *,
        epochs: int = 10,
        lr: float = 1e-3,
        average: float = 0.999,
        **terms: Any,
    ) -> Denoiser:
        """Train the network on pairs of noisy pictures with Adam, its rate falling by a cosine.

        Parameters
        ----------
        pairs : PairSource, or two uint8 tensors (N, C, H, W)
            Picture i of one and picture i of the other show the same scene. Where a source's
            numbers have a range of their own, the network keeps it.
        epochs, average, **terms
            As `pydenoise.training.train` takes them, `progress` and `validation` among them.
        lr : float
            Highest learning rate; 5e-4 suits a network that has learned before, such as
            `pydenoise.builtin.trainable`.

        Returns
        -------
        Denoiser
            This one.

        Raises
        ------
        ValueError
            For pairs or terms that `train` refuses.
        """
        source = pairs if isinstance(pairs, PairSource) else TensorPairs(*pairs)
        terms = {"schedule": optim.cosine(0.05), "average": average, **terms}
        rule = optim.Adam(self.model, lr=lr)
        self.model.value_range = source.value_range
        train(self.model, source, epochs=epochs, optimizer=rule, **terms)
        return self

    def denoise(self, picture: Anything, **terms: Any) -> Anything:
        """`pydenoise.denoise` with this network, where that lies; its other terms as there."""
        return denoise(picture, self.model, **terms)


def _network(model: Module | str | PathLike[str]) -> Module:
    return model if isinstance(model, Module) else load_weights(model)[0]


def _pages(picture: Any, axes: str | None) -> tuple[Picture, Callable[[Picture], Any]]:
    """A picture as pages, and the way back from pages to what it came as."""
    if axes is not None and not isinstance(picture, np.ndarray):
        raise TypeError("denoise: axes are for arrays")
    if isinstance(picture, Picture):
        return picture, lambda pages: pages
    if isinstance(picture, np.ndarray):
        return Picture.of(picture, axes), lambda pages: pages.array
    if isinstance(picture, Tensor):
        return _of_tensor(picture), lambda pages: _to_tensor(pages, picture)
    if hasattr(picture, "mode") and hasattr(picture, "getbands"):
        return _of_pillow(picture), lambda pages: _to_pillow(pages, picture)
    raise TypeError(
        "denoise: picture must be a numpy array, a torch tensor, a Pillow image or a Picture, "
        f"got {type(picture).__name__}"
    )


def _of_tensor(tensor: Tensor) -> Picture:
    if tensor.dim() == 2:
        tensor = tensor[None]
    if tensor.dim() == 3:
        tensor = tensor[None]
    if tensor.dim() != 4 or tensor.shape[1] not in (1, 3) or not tensor.numel():
        raise ValueError(
            f"denoise: tensor has shape {tuple(tensor.shape)}; expected (H, W), (C, H, W) or "
            "(N, C, H, W) with C = 1 or 3"
        )
    if tensor.is_complex() or tensor.dtype is torch.bool:
        raise TypeError(
            f"denoise: picture must be whole numbers or floating point, got {tensor.dtype}"
        )
    plain = tensor.detach().cpu()
    plain = plain.float() if plain.dtype is torch.bfloat16 else plain
    return Picture(plain.permute(0, 2, 3, 1).resolve_neg().numpy())


def _to_tensor(pages: Picture, like: Tensor) -> Tensor:
    found = torch.from_numpy(pages.samples.copy()).permute(0, 3, 1, 2).reshape(like.shape)
    return found.contiguous().to(like)


def _of_pillow(image: Image.Image) -> Picture:
    if image.mode not in _MODES:
        raise ValueError(
            f"denoise: image has mode {image.mode}; expected one of {', '.join(_MODES)}: "
            "convert it with image.convert('RGB')"
        )
    return Picture.of(np.asarray(image))


def _to_pillow(pages: Picture, like: Image.Image) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pages.array)).convert(like.mode)
    image.info = dict(like.info)
    return image
