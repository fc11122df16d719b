"""The U-Net of the Noise2Noise paper: pooled down, repeated up, a skip at every level."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydenoise import nn
from pydenoise.models.sizes import whole_number

_DEEPEST = 8


def unet(
    channels: int = 3,
    *,
    width: int = 48,
    depth: int = 5,
    residual: bool = False,
    init: str = "kaiming_normal",
    seed: int | None = None,
) -> nn.Sequential | nn.Residual:
    """Build the U-Net of the Noise2Noise paper, or a smaller or shallower one of its kind.

    Parameters
    ----------
    channels : int
        Of the picture, 1 for gray and 3 for colour.
    width : int
        Channels on the way down, a multiple of 3; twice as many on the way up.
    depth : int
        Times that the resolution is halved, 1 to 8.
    residual : bool
        Whether the network gives what is to be added to the picture, and not the picture itself.
    init : str
        First values by name, see `pydenoise.nn.init.fill`.
    seed : int, optional
        Same seed, same weights, whatever torch's global random state; drawn by the system if
        omitted.

    Returns
    -------
    Sequential or Residual
        ``(N, channels, H, W) -> (N, channels, H, W)``, values as in the picture, not clipped; H and
        W multiples of its `size_multiple`, 2 to the depth. float32.

    Raises
    ------
    ValueError, TypeError
        For numbers out of range, or an unknown init.

    Notes
    -----
    With the defaults this is the network of [1]_, 991,203 weights::

        down   conv 48, conv 48, pool; four times conv 48, pool; conv 48
        up     five times upsample, concat, conv 96, conv 96; the last time conv 64, conv 32
        out    conv channels

    All kernels are 3x3 with padding 1, all but the last with a LeakyReLU of slope 0.1 behind. What
    is concatenated is what the pool of that size gave, at the top the picture. The paper's values
    lie about 0: the picture is shifted by -1/2 on its way in, and back on its way out.

    .. [1] J. Lehtinen et al., "Noise2Noise: learning image restoration without clean data",
       ICML 2018, appendix.

    Examples
    --------
    >>> model = unet()
    >>> sum(parameter.data.numel() for parameter in model.parameters())
    991203
    """
    whole_number("unet", "channels", channels)
    whole_number("unet", "width", width)
    whole_number("unet", "depth", depth, _DEEPEST)
    if width % 3:
        raise ValueError(f"unet: width must be a multiple of 3, got {width}")
    if not isinstance(residual, bool):
        raise TypeError(f"unet: residual must be True or False, got {residual!r}")
    generator = nn.init.seeded(seed)

    def convolved(model: nn.Sequential, *widths: int) -> nn.Sequential:
        for before, after in pairwise(widths):
            model.append(nn.Conv2d(before, after, 3, padding=1, init=init, generator=generator))
            model.append(nn.LeakyReLU(0.1))
        return model

    def below(level: int, given: int) -> nn.Sequential:
        """What happens to the picture of a level on smaller scales; back on its own in the end."""
        model = convolved(nn.Sequential(), given, width, *([width] if level == 0 else []))
        model.append(nn.MaxPool2d(2))
        if level + 1 == depth:
            convolved(model, width, width)
        else:
            model.append(nn.Skip(below(level + 1, width)))
            convolved(model, given_back(level + 1) + width, 2 * width, 2 * width)
        return model.append(nn.Upsample(2))

    def given_back(level: int) -> int:
        return width if level + 1 == depth else 2 * width

    model = nn.Sequential(nn.Shift(-0.5), nn.Skip(below(0, channels)))
    convolved(model, given_back(0) + channels, 4 * width // 3, 2 * width // 3)
    last = nn.Conv2d(2 * width // 3, channels, 3, padding=1, init=init, generator=generator)
    model.append(last)
    whole = nn.Residual(model) if residual else model.append(nn.Shift(0.5))
    whole.architecture = {
        "name": "unet",
        "channels": channels,
        "width": width,
        "depth": depth,
        "residual": residual,
    }
    whole.size_multiple = 2**depth
    return whole


def small_unet(channels: int = 3, **options: Any) -> nn.Sequential | nn.Residual:
    """A `unet` that learns on a processor: `width` 24, `depth` 3, `residual`.

    Parameters
    ----------
    channels : int
        Of the picture.
    **options
        As `unet` takes them.

    Returns
    -------
    Residual

    Examples
    --------
    >>> model = small_unet()
    >>> sum(parameter.data.numel() for parameter in model.parameters())
    134787
    """
    return unet(channels, **{"width": 24, "depth": 3, "residual": True, **options})
