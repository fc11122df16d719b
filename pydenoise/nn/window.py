"""What of its input a layer's output looks at, along one side of the picture."""

from __future__ import annotations

from math import gcd, lcm
from typing import NamedTuple

FAR = 1 << 62
"""Further than any picture reaches."""


class Window(NamedTuple):
    """Rows, or columns, of a picture, and where it may be cut.

    `Module.reads` takes the window of an output to the window of the input that it depends on, to
    the last bit; a network does so layer by layer, from its end to its beginning.

    Attributes
    ----------
    first, last : int
        Both included; they may lie outside the picture, where layers pad.
    multiple : int
        A picture that begins at a multiple of it, instead of at 0, gives the same numbers there.
    """

    first: int
    last: int
    multiple: int = 1

    def gathered(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Window:
        """Input of a kernel that slides: position i reads ``stride i - padding + dilation t``."""
        reach = dilation * (kernel - 1)
        return Window(
            self.first * stride - padding,
            self.last * stride - padding + reach,
            self.multiple * stride,
        )

    def scattered(
        self, kernel: int, stride: int, padding: int, dilation: int = 1, output_padding: int = 0
    ) -> Window:
        """Input of a kernel that writes: position i reaches ``stride i - padding + dilation t``.

        Where nothing reaches, the window still holds the inputs without which the output would end
        before.
        """
        reach = dilation * (kernel - 1) - padding
        return Window(
            min(-((reach - self.first) // stride), self.first // stride),
            max(
                (self.last + padding) // stride,
                -((reach - padding + output_padding - self.last) // stride),
            ),
            self.multiple // gcd(self.multiple, stride),
        )

    def whole(self, tile: int) -> Window:
        """The window in tiles that are computed as one, from multiples of `tile` on."""
        return Window(
            self.first - self.first % tile,
            self.last - self.last % tile + tile - 1,
            lcm(self.multiple, tile),
        )

    def joined(self, other: Window) -> Window:
        """The smallest window that holds both, cut where both may be."""
        return Window(
            min(self.first, other.first),
            max(self.last, other.last),
            lcm(self.multiple, other.multiple),
        )


EVERYTHING = Window(-FAR, FAR)
