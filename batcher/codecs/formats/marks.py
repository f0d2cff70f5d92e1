"""A quick look whether a body can hold something that costs more to be looked for properly."""

from __future__ import annotations

from batcher.codecs.content import Buffer

_SEARCHED_BYTES, _OVERLAP_BYTES = 1 << 18, 8
"""Bytes that are searched at once, and a few of the next, where a mark may end."""


def has_mark(body: Buffer, marks: tuple[bytes, ...]) -> bool:
    """Return whether one of `marks`, each of at most 8 bytes, stands in `body`."""
    # Piece by piece, since a large body is a view, and has to be copied for the search.
    for start in range(0, len(body), _SEARCHED_BYTES):
        piece = bytes(body[start : start + _SEARCHED_BYTES + _OVERLAP_BYTES])
        if any(mark in piece for mark in marks):
            return True
    return False
