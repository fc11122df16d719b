"""A denoiser that works at half the resolution and less, with a small part of the arithmetic that
the same layers would take on the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydenoise import nn
from pydenoise.models.sizes import whole_number, whole_numbers

SLOPE = 0.1
BLOCKS = 2
"""3x3 layers before a smaller scale, and as many behind it."""

_ADDED = 0.3
"""Share of the usual first values in a layer whose result is added to its input."""


def halved(
    channels: int = 3,
    widths: Sequence[int] = (48, 96),
    *,
    residual: bool = False,
    seed: int | None = None,
) -> nn.Sequential | nn.Residual:
    """Build a network that halves the picture, looks for noise in it, and doubles what it found.

    Parameters
    ----------
    channels : int
        Of the picture, 1 for gray and 3 for colour.
    widths : sequence of int
        Channels at a half of the resolution, a quarter, and so on, 1 to 8 of them.
    residual : bool
        Whether it gives the picture, adding what it finds to its input; pairs teach such a one.
    seed : int, optional
        Same seed, same weights; drawn by the system if omitted.

    Returns
    -------
    Sequential or Residual
        ``(N, channels, H, W) -> (N, channels, H, W)``, to be taken from its input where it is not
        `residual`; H and W multiples of its `size_multiple`, 2 to the number of widths. float32.

    Raises
    ------
    ValueError, TypeError
        For numbers out of range, and a `residual` that is neither True nor False.

    Notes
    -----
    With the defaults::

        in      conv 6x6, stride 2: every 2x2 cell with its neighbours, in 48 channels
        half    twice x + conv 3x3 (x)
                x + up(quarter(down(x)))        conv and transposed conv 2x2, stride 2
        quarter four times x + conv 3x3 (x), in 96 channels
        half    twice x + conv 3x3 (x)
        out     transposed conv 6x6, stride 2

    with a leaky ReLU of slope 0.1 behind all convolutions but those up and out. What is added to
    `x` starts small and the last layer at zero: a fresh network finds no noise, and learns from the
    first step on. More widths go on as `quarter` does, between its second and third.

    That most of a denoiser can work on the four phases of a picture side by side is from [1]_;
    scales whose results are added, with such layers on each, are from [2]_.

    .. [1] K. Zhang, W. Zuo, L. Zhang, "FFDNet: toward a fast and flexible solution for CNN-based
       image denoising", IEEE Transactions on Image Processing 27, 2018.
    .. [2] K. Zhang et al., "Plug-and-play image restoration with deep denoiser prior", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 44, 2022.

    Examples
    --------
    >>> sum(parameter.data.numel() for parameter in halved(1).parameters())
    455809
    """
    whole_number("halved", "channels", channels)
    widths = whole_numbers("halved", "widths", widths)
    if not isinstance(residual, bool):
        raise TypeError(f"halved: residual must be True or False, got {residual!r}")
    terms: dict[str, Any] = {"init": "kaiming_normal", "generator": nn.init.seeded(seed)}

    def blocks(model: nn.Sequential, width: int) -> None:
        for _ in range(BLOCKS):
            layer = nn.Conv2d(width, width, 3, padding=1, **terms)
            layer.weight.mul_(_ADDED)
            model.append(nn.Residual(nn.Sequential(layer, nn.LeakyReLU(SLOPE))))

    def scale(model: nn.Sequential, width: int, *smaller: int) -> nn.Sequential:
        blocks(model, width)
        if smaller:
            down = nn.Conv2d(width, smaller[0], 2, stride=2, **terms)
            below = scale(nn.Sequential(down, nn.LeakyReLU(SLOPE)), *smaller)
            up = nn.ConvTranspose2d(smaller[0], width, 2, stride=2, **terms)
            up.weight.mul_(_ADDED)
            model.append(nn.Residual(below.append(up)))
        blocks(model, width)
        return model

    first = nn.Conv2d(channels, widths[0], 6, stride=2, padding=2, **terms)
    model = scale(nn.Sequential(first, nn.LeakyReLU(SLOPE)), *widths)
    last = nn.ConvTranspose2d(widths[0], channels, 6, stride=2, padding=2, **terms)
    last.weight.zero_()
    model.append(last)
    whole = nn.Residual(model) if residual else model
    whole.architecture = {"name": "halved", "channels": channels, "widths": widths}
    if residual:
        whole.architecture["residual"] = True
    whole.predicts_noise = not residual
    whole.size_multiple = 2 ** len(widths)
    return whole
