"""The quality that a lossy WebP was written with, read from the head of its VP8 frame.

The frame tells quantisers, not the quality; RFC 6386 says where (section 9), libwebp's encoder how
it gets them from the quality.
"""

from __future__ import annotations

_HEAD_BYTES = 10  # frame tag, start code, width, height
_LARGEST_QUANTISER = 127
# What the exponent of the coarsest segment is multiplied by, at a noise shaping of 50 in 100.
_SPREAD = 1 + 0.9 * 0.5 * 127 / 128


class _Bits:
    """Booleans of even odds out of VP8's arithmetic coder (RFC 6386, section 7)."""

    def __init__(self, content: bytes) -> None:
        self._rest = iter(content)
        self._value = self._next() << 8 | self._next()
        self._range = 255
        self._shifts = 0

    def _next(self) -> int:
        return next(self._rest, 0)

    def flag(self, odds: int = 128) -> bool:
        split = 1 + ((self._range - 1) * odds >> 8)
        is_set = self._value >= split << 8
        if is_set:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifts += 1
            if self._shifts == 8:
                self._shifts = 0
                self._value |= self._next()
        return is_set

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.flag()
        return value

    def signed(self, bits: int) -> int:
        size = self.number(bits)
        return -size if self.flag() else size

    def optional(self, bits: int) -> int | None:
        return self.signed(bits) if self.flag() else None


def quality_of(frame: bytes) -> int:
    """The quality, 0 to 100, of a VP8 key frame, if libwebp wrote it as it does unless told else.

    Written again at the same quality, a picture meets the same quantisers and loses least.
    """
    bits = _Bits(frame[_HEAD_BYTES:])
    bits.number(2)  # colour space, clamping
    segments: list[int] = []
    is_absolute = False
    if bits.flag():
        updates_map = bits.flag()
        if bits.flag():
            is_absolute = bits.flag()
            segments = [bits.optional(7) or 0 for _ in range(4)]
            for _ in range(4):
                bits.optional(6)
        if updates_map:
            for _ in range(3):
                if bits.flag():
                    bits.number(8)
    bits.number(10)  # loop filter: kind, level, sharpness
    if bits.flag() and bits.flag():
        for _ in range(8):
            bits.optional(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    quantisers = segments if is_absolute else [base + delta for delta in segments]
    coarsest = max(quantisers, default=base)
    spread = _SPREAD if len(set(quantisers)) > 1 else 1.0
    fitting = (q for q in range(100, 0, -1) if _quantiser(q, spread) >= coarsest)
    return next(fitting, 0)


def _quantiser(quality: int, spread: float) -> int:
    """The coarsest that libwebp uses for a quality."""
    linear = quality / 100
    linear = linear * 2 / 3 if linear < 0.75 else 2 * linear - 1
    return int(_LARGEST_QUANTISER * (1 - linear ** (spread / 3)))
