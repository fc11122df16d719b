"""The network of zero-shot Noise2Noise: a few layers at full resolution."""

from __future__ import annotations

from collections.abc import Sequence

from pydenoise import nn
from pydenoise.models.sizes import whole_number, whole_numbers

SLOPE = 0.2


def zero_shot(
    channels: int = 3,
    width: int = 48,
    dilations: Sequence[int] = (1, 1),
    *,
    seed: int | None = None,
) -> nn.Sequential:
    """Build a network small enough to be learned from one picture; it predicts the noise.

    Parameters
    ----------
    channels : int
        Of the picture, 1 for gray and 3 for colour.
    width : int
        Channels between the layers.
    dilations : sequence of int
        Of the 3x3 layers, one each, 1 to 8 of them. (1, 1) is the paper's network, each of whose
        pixels sees 5x5 of the picture; (1, 2, 2) makes them 11x11.
    seed : int, optional
        Same seed, same weights; drawn by the system if omitted.

    Returns
    -------
    Sequential
        ``(N, channels, H, W) -> (N, channels, H, W)``, to be taken from its input. float32.

    Raises
    ------
    ValueError
        For numbers out of range.

    Notes
    -----
    A 1x1 layer comes last, leaky ReLU of slope 0.2 between; first values as torch's. After
    Y. Mansour, R. Heckel, "Zero-shot Noise2Noise", CVPR 2023.

    Examples
    --------
    >>> sum(parameter.data.numel() for parameter in zero_shot().parameters())
    22275
    """
    before = whole_number("zero_shot", "channels", channels)
    whole_number("zero_shot", "width", width)
    generator = nn.init.seeded(seed)
    model = nn.Sequential()
    for each in whole_numbers("zero_shot", "dilations", dilations):
        layer = nn.Conv2d(before, width, 3, padding=each, dilation=each, generator=generator)
        model.append(layer).append(nn.LeakyReLU(SLOPE))
        before = width
    model.predicts_noise = True
    return model.append(nn.Conv2d(width, channels, 1, generator=generator))
