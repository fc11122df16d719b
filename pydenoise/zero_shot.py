"""A denoiser learned from the one picture, or stack, that it then denoises."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pydenoise import models, nn, optim
from pydenoise.data import Picture, generator, to_tensor
from pydenoise.data.gaps import filled, valid_pixels
from pydenoise.divergence import TrainingDiverged
from pydenoise.inference import check_terms, check_tiles, run_pages
from pydenoise.meter import Progress
from pydenoise.objectives import ZeroShot
from pydenoise.scale import scale

_FEWEST_STEPS = 150


class Recipe(NamedTuple):
    """How a picture is learned.

    Attributes
    ----------
    steps : int
        Of large pictures.
    full : int
        Pixels, of all pages together, of the smallest of these. With fewer, steps fall as the
        cube of a side, to 150: what is seen too often is learned by heart.
    side : int, optional
        Of the square crop that each step sees; a whole page, in turn, if None.
    lr : float
        Highest learning rate of Adam.
    schedule : callable
        Factor on it as a function of progress.
    beta2 : float
        Adam's memory of squared gradients.
    dilations : tuple of int
        Of the network's 3x3 layers, see `pydenoise.models.zero_shot`.
    turns : int
        How many of the eight turned and mirrored versions of a page the result is the mean of.
    """

    steps: int
    full: int
    side: int | None
    lr: float
    schedule: optim.Schedule
    beta2: float
    dilations: tuple[int, ...]
    turns: int

    def suited(self, picture: Picture) -> Recipe:
        """The recipe with the steps that a picture or stack is worth."""
        share = min(1.0, picture.samples[..., 0].size / self.full) ** 1.5
        steps = max(_FEWEST_STEPS, round(share * self.steps))
        return self._replace(steps=min(self.steps, steps))


RECIPES = {
    "fast": Recipe(2000, 128**2, 64, 4e-3, optim.cosine(0.1), 0.99, (1, 2, 2), 8),
    "paper": Recipe(
        2000, 1, None, 1e-3, lambda done: 0.5 if done >= 0.75 else 1.0, 0.999, (1, 1), 1
    ),
}
"""`paper` is that of Mansour and Heckel. `fast` takes an eighth of its arithmetic on a picture of
256x256 pixels, and the less the larger the picture: crops teach as well as the whole, and many
small steps more than few large ones. What it saves it spends on a third layer, with gaps between
the taps: the paper's network sees too little of an even area to make it even.

Small pictures are soon learned by heart. Crops of scikit-image's photographs at sigma 25 came to,
in the mean, with 100, 200, 400 and 2000 steps: of 16x16 pixels 22.6, 22.6, 22.6 and 22.7 dB, of
32x32 26.4, 26.1, 24.7 and 24.4 dB; of 48x48 with 100, 200, 300 and 600: 27.5, 29.1, 27.4, 24.2 dB;
of 64x64 with 250, 500 and 1000: 26.4, 24.2, 22.8 dB; of 96x96 with 1125 and 2000: 26.8, 26.4 dB.
"""


def denoise_pages(
    picture: Picture,
    *,
    recipe: str | Recipe = "fast",
    per_page: bool = False,
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Picture:
    """Take the noise out of a picture or stack, knowing nothing else.

    Parameters
    ----------
    picture : Picture
        As `pydenoise.data.read_picture` gives it. Its noise must be independent between pixels.
    recipe : {"fast", "paper"} or Recipe
    per_page : bool
        Learn a network for each page; one for all from a sample of them if False.
    value_range : (float, float), optional
        The numbers that become 0 and 1 while the network learns; the 0.1 and 99.9 percentiles of
        all pages together if omitted. Nothing is clipped to them.
    strength : float
        As in `pydenoise.inference.map_pages`.
    turns : int, optional
        As in `pydenoise.inference.denoise`; the recipe's if omitted.
    max_bytes : int, optional
        What the layers may hold at a time in the last pass, see `pydenoise.inference.denoise`.
    seed : int
        Same seed, same result.
    device : torch.device or str
        Where the network learns and computes.
    progress : callable, optional
        Told after each step what `step` it was, of how many `steps`, its `loss`, and the
        `seconds_left`.

    Returns
    -------
    Picture
        New, with all else that the file said; alpha, NaN, infinity and what lies far outside the
        range stay as they are. A picture of one value comes back as it is where no range is given.

    Warns
    -----
    UserWarning
        When nothing could be learned: the picture has one value alone or none, and no range is
        given. When pixels are left as they are for lying far outside the range.

    Raises
    ------
    TypeError, ValueError
        For an unknown recipe; when `max_bytes` does not hold the smallest tile; and as
        `pydenoise.inference.denoise` and `map_pages`.
    pydenoise.training.TrainingDiverged
        When the loss is not finite any more.
    """
    recipe = _recipe(recipe)
    turns = recipe.turns if turns is None else turns
    check_pages(
        picture,
        recipe=recipe,
        value_range=value_range,
        strength=strength,
        turns=turns,
        max_bytes=max_bytes,
    )
    value_range = scale(picture, value_range, strength)
    if value_range is None:
        return picture.with_samples(picture.samples.copy())
    parts = [slice(page, page + 1) for page in range(picture.pages)] if per_page else [slice(None)]
    output = picture.samples.copy()
    for index, part in enumerate(parts):
        pages = Picture(picture.samples[part], picture.alpha)
        told = progress and _timed(progress, index, len(parts))
        network = fit(pages, value_range, recipe, seed=seed, device=device, progress=told)
        denoised = run_pages(
            network,
            pages,
            value_range=value_range,
            strength=strength,
            turns=turns,
            max_bytes=max_bytes,
        )
        output[part] = denoised.samples
    return picture.with_samples(output)


def check_pages(
    picture: Picture,
    *,
    recipe: str | Recipe = "fast",
    value_range: tuple[float, float] | None = None,
    strength: float = 1.0,
    turns: int | None = None,
    max_bytes: int | None = None,
) -> None:
    """Refuse, before any work, a picture or terms that `denoise_pages` says that it refuses."""
    recipe = _recipe(recipe)
    turns = recipe.turns if turns is None else turns
    check_terms(picture, value_range, strength, turns)
    if max_bytes is not None:
        network = models.zero_shot(picture.colours, dilations=recipe.dilations, seed=0)
        check_tiles(network, picture, max_bytes, turns)


def fit(
    picture: Picture,
    value_range: tuple[float, float],
    recipe: str | Recipe = "fast",
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> nn.Sequential:
    """Learn a network from a picture or stack; `denoise_pages` names the arguments.

    Returns
    -------
    Sequential
        `pydenoise.models.zero_shot`, in eval mode, on the device. It predicts the noise of tensors
        on the scale on which `value_range` is 0 to 1.
    """
    recipe = _recipe(recipe).suited(picture)
    model = models.zero_shot(picture.colours, dilations=recipe.dilations, seed=seed).to(device)
    objective = ZeroShot()
    rule = optim.Adam(model.parameters(), recipe.lr, betas=(0.9, recipe.beta2))
    seen = _crops if recipe.side else _whole_pages
    for step, (crop, valid) in enumerate(seen(picture, value_range, recipe, seed), 1):
        rule.lr = recipe.lr * recipe.schedule((step - 1) / recipe.steps)
        known = None if valid is None else valid.to(device)
        loss = objective.step(model, crop.to(device), known)
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss is {loss}", step, rule.lr)
        rule.step()
        rule.zero_grad()
        if progress:
            progress({"step": step, "steps": recipe.steps, "loss": loss})
    model.eval()
    return model


def _recipe(recipe: str | Recipe) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"zero_shot: unknown recipe {recipe!r}; known are {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _crops(
    picture: Picture, value_range: tuple[float, float], recipe: Recipe, seed: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Squares anywhere on any page, one a step; as large as the page where that is smaller."""
    pages, height, width, _ = picture.samples.shape
    random = generator(seed, 0, 0, "crop")
    side = recipe.side or 0
    for _ in range(recipe.steps):
        page = picture.samples[random.integers(pages), :, :, : picture.colours]
        top = random.integers(max(1, height - side + 1))
        left = random.integers(max(1, width - side + 1))
        yield _example(page[top : top + side, left : left + side], value_range)


def _whole_pages(
    picture: Picture, value_range: tuple[float, float], recipe: Recipe, seed: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    example = None
    for step in range(recipe.steps):
        if example is None or picture.pages > 1:
            page = picture.samples[step % picture.pages, :, :, : picture.colours]
            example = _example(page, value_range)
        yield example


def _example(
    page: npt.NDArray[Any], value_range: tuple[float, float]
) -> tuple[Tensor, Tensor | None]:
    """What is learned from, of even size by reflection, and which pixels of it are valid."""
    valid = valid_pixels(page, value_range)
    even = [(0, page.shape[0] % 2), (0, page.shape[1] % 2)]
    mode: Any = "reflect" if min(page.shape[:2]) > 1 else "edge"
    crop = to_tensor(np.pad(filled(page, valid), [*even, (0, 0)], mode), value_range)
    if valid is None:
        return crop, None
    return crop, torch.from_numpy(np.pad(valid, even, mode))[None, None]


def _timed(progress: Progress, index: int, count: int) -> Progress:
    """Progress of one of several networks as progress of all, with the time left."""
    began = time.monotonic()

    def show(record: Mapping[str, Any]) -> None:
        step, steps = index * record["steps"] + record["step"], count * record["steps"]
        left = (time.monotonic() - began) / record["step"] * (steps - step)
        progress({**record, "step": step, "steps": steps, "seconds_left": left})

    return show
