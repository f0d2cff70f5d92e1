"""Whether a body of MessagePack has few values, seen without making any of them.

Clients that send arrays as bytes have a dozen values in a body, however large the arrays. Such a
body is read within microseconds. A body of lists has a value for each number.
"""

from __future__ import annotations

from batcher.codecs.content import Buffer

MOST_TOKENS = 256
"""Values of a body that is read at once: 16 arrays of 6 members, each with its name."""

_HEADS: dict[int, tuple[int, int]] = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""First byte to the bytes of the length behind it, and the bytes that the length does not count."""

_SIZES = {
    0xCA: 4,
    0xCB: 8,
    **dict(zip(range(0xCC, 0xD4), (1, 2, 4, 8) * 2, strict=True)),
    **dict(zip(range(0xD4, 0xD9), (2, 3, 5, 9, 17), strict=True)),
    **dict(zip(range(0xDC, 0xE0), (2, 4) * 2, strict=True)),
}
"""First byte to the bytes behind it: numbers, small extensions, heads of lists and of maps."""


def has_few_tokens(body: Buffer) -> bool:
    """Return whether `body` has at most `MOST_TOKENS` values; heads of lists and maps count too."""
    place = 0
    for _ in range(MOST_TOKENS):
        if place >= len(body):
            return True
        first = body[place]
        place += 1
        if 0xA0 <= first < 0xC0:  # a short text
            place += first & 0x1F
        elif first in _HEADS:
            width, more = _HEADS[first]
            place += width + more + int.from_bytes(body[place : place + width], "big")
        else:
            place += _SIZES.get(first, 0)
    return place >= len(body)
