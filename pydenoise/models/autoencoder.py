"""The course's network: strided convolutions down, transposed ones up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pydenoise import nn
from pydenoise.models.sizes import whole_number, whole_numbers


def autoencoder(
    channels: Sequence[int] = (48, 96),
    in_channels: int = 3,
    *,
    init: str = "default",
    seed: int | None = None,
) -> nn.Sequential:
    """Build the course's network: strided convolutions down, transposed ones up, no skips.

    Parameters
    ----------
    channels : sequence of int
        One number per level, 1 to 8 of them; each level halves the resolution.
    in_channels : int
        Of the picture, 1 for gray and 3 for colour.
    init : str
        First values by name, see `pydenoise.nn.init.fill`.
    seed : int, optional
        Same seed, same weights, whatever torch's global random state; drawn by the system if
        omitted.

    Returns
    -------
    Sequential
        ``(N, in_channels, H, W) -> (N, in_channels, H, W)``, values in (0, 1); H and W multiples
        of its `size_multiple`, 2 to the number of levels. float32.

    Raises
    ------
    ValueError, TypeError
        For channels that are not such whole numbers, or an unknown init.

    Notes
    -----
    With the defaults this is Table I of the report: 3x3 kernels, stride 2, padding 1, ReLU between,
    output_padding 1 on the way up and a sigmoid at the end; 85,731 weights.

    Examples
    --------
    >>> model = autoencoder()
    >>> sum(parameter.data.numel() for parameter in model.parameters())
    85731
    """
    widths = whole_numbers("autoencoder", "channels", channels)
    in_channels = whole_number("autoencoder", "in_channels", in_channels)
    generator = nn.init.seeded(seed)
    model = nn.Sequential()
    down = [in_channels, *widths]
    for before, after in pairwise(down):
        model.append(nn.Conv2d(before, after, 3, 2, 1, init=init, generator=generator))
        model.append(nn.ReLU())
    up = down[::-1]
    for before, after in pairwise(up):
        model.append(nn.ConvTranspose2d(before, after, 3, 2, 1, 1, init=init, generator=generator))
        model.append(nn.ReLU())
    model = model[:-1].append(nn.Sigmoid())
    model.architecture = {"name": "autoencoder", "channels": widths, "in_channels": in_channels}
    model.size_multiple = 2 ** len(widths)
    return model
