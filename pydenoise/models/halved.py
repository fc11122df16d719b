"""A denoiser that works at half the resolution: a quarter of the arithmetic, twice the view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydenoise import nn
from pydenoise.models.sizes import whole_number, whole_numbers

SLOPE = 0.1
_ADDED = 0.3
"""Share of the usual first values in a layer whose result is added to its input."""


def halved(
    channels: int = 3,
    width: int = 48,
    dilations: Sequence[int] = (1, 2, 2, 2, 1),
    *,
    seed: int | None = None,
) -> nn.Sequential:
    """Build a network that halves the picture, looks at it, and doubles it; it predicts the noise.

    Parameters
    ----------
    channels : int
        Of the picture, 1 for gray and 3 for colour.
    width : int
        Channels at half the resolution.
    dilations : sequence of int
        Of the 3x3 layers there, one each, 1 to 8 of them. With the defaults each pixel sees 42x42
        of the picture.
    seed : int, optional
        Same seed, same weights; drawn by the system if omitted.

    Returns
    -------
    Sequential
        ``(N, channels, H, W) -> (N, channels, H, W)``, to be taken from its input; H and W even.
        float32.

    Raises
    ------
    ValueError
        For numbers out of range.

    Notes
    -----
    ::

        in     conv 6x6, stride 2: every 2x2 cell with its neighbours, in `width` channels
        then   x + conv 3x3 (x), for each dilation
        out    transposed conv 6x6, stride 2

    with a leaky ReLU of slope 0.1 behind all but the last. What is added to `x` starts small and
    the last layer at zero: a fresh network finds no noise, and learns from the first step on.

    That most of a denoiser can work on the four phases of a picture side by side is from K. Zhang,
    W. Zuo, L. Zhang, "FFDNet: toward a fast and flexible solution for CNN-based image denoising",
    IEEE Transactions on Image Processing 27, 2018.

    Examples
    --------
    >>> sum(parameter.data.numel() for parameter in halved(1).parameters())
    107425
    """
    whole_number("halved", "channels", channels)
    whole_number("halved", "width", width)
    dilations = whole_numbers("halved", "dilations", dilations)
    terms: dict[str, Any] = {"init": "kaiming_normal", "generator": nn.init.seeded(seed)}
    first = nn.Conv2d(channels, width, 6, stride=2, padding=2, **terms)
    model = nn.Sequential(first, nn.LeakyReLU(SLOPE))
    for each in dilations:
        layer = nn.Conv2d(width, width, 3, padding=each, dilation=each, **terms)
        layer.weight.mul_(_ADDED)
        model.append(nn.Residual(nn.Sequential(layer, nn.LeakyReLU(SLOPE))))
    last = nn.ConvTranspose2d(width, channels, 6, stride=2, padding=2, **terms)
    last.weight.zero_()
    model.append(last)
    model.architecture = {
        "name": "halved",
        "channels": channels,
        "width": width,
        "dilations": dilations,
    }
    model.predicts_noise = True
    model.size_multiple = 2
    return model
