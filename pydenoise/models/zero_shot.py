"""The network of zero-shot Noise2Noise: three layers at full resolution."""

from __future__ import annotations

from pydenoise import nn
from pydenoise.models.sizes import whole_number

SLOPE = 0.2


def zero_shot(channels: int = 3, width: int = 48, *, seed: int | None = None) -> nn.Sequential:
    """Build a network small enough to be learned from one picture; it predicts the noise.

    Parameters
    ----------
    channels : int
        Of the picture, 1 for gray and 3 for colour.
    width : int
        Channels between the layers.
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
    3x3, 3x3 and 1x1 kernels, leaky ReLU of slope 0.2 between; first values as torch's. After
    Y. Mansour, R. Heckel, "Zero-shot Noise2Noise", CVPR 2023.

    Examples
    --------
    >>> sum(parameter.data.numel() for parameter in zero_shot().parameters())
    22275
    """
    whole_number("zero_shot", "channels", channels)
    whole_number("zero_shot", "width", width)
    generator = nn.init.seeded(seed)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, generator=generator),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width, width, 3, padding=1, generator=generator),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width, channels, 1, generator=generator),
    )
