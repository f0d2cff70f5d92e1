"""A body while it arrives: its pieces, one behind the other, in memory that never moves.

A `bytearray` that grows is moved again and again, in the worst case with all its bytes: with eight
bodies of 64 MiB that arrive together, the loop stood still for a third of a second. So a large body
lies in a mapping of its own, which has room for the whole body from the start:

| body | memory |
|---|---|
| up to SMALL_BYTES | a bytearray |
| larger, of known length | a mapping of that length |
| larger, of unknown length | a mapping that is doubled, and is moved without a copy |

A mapping takes memory page by page, with the bytes that are written to it. So a client that
declares 64 MiB and sends one byte takes no more than that byte. When the last view of a mapping is
let go of, the system has all its pages back.
"""

from __future__ import annotations

import mmap
import sys

from batcher.core.mappings import Mapping
from batcher.errors import BuffersFull

SMALL_BYTES = 1 << 20
"""Bytes up to which a body may be moved: a copy of so many takes half a millisecond."""

_CAN_MOVE = sys.platform == "linux"
"""Whether a mapping can be made larger; elsewhere a larger one takes its place."""

_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
"""A shared mapping, Python's default, would have to lie in a file of memory to grow."""


class ArrivingBody:
    """The bytes of a body that have arrived.

    Attributes:
        expected: bytes that the whole body will have; 0 if nobody knows.
    """

    __slots__ = ("_end", "_mapping", "_small", "expected")

    def __init__(self, expected: int = 0) -> None:
        """Begin with no bytes."""
        self.expected = expected
        self._small = bytearray()
        self._mapping: Mapping | None = None
        self._end = 0

    def __len__(self) -> int:
        """How many bytes have arrived."""
        return self._end

    @property
    def held(self) -> int:
        """Bytes of memory that the body takes so far."""
        return self._end if self._mapping is not None else sys.getsizeof(self._small)

    def append(self, piece: bytes) -> None:
        """Put `piece` behind the others."""
        start, end = self._end, self._end + len(piece)
        if end <= SMALL_BYTES:
            self._small += piece
        else:
            self._mapped(end)[start:end] = piece
        self._end = end

    def whole(self) -> memoryview:
        """Return all bytes that have arrived; nothing can be appended from then on."""
        memory = memoryview(self._small if self._mapping is None else self._mapping)
        return memory[: self._end]

    def _mapped(self, nbytes: int) -> Mapping:
        """Return the mapping, with room for `nbytes` bytes and those of the small body in it."""
        mapping = self._mapping
        if mapping is None:
            mapping = self._mapping = _mapping(max(nbytes, self.expected, 2 * SMALL_BYTES))
            mapping[: self._end] = bytes(self._small)
            self._small = bytearray()
        elif nbytes > len(mapping):
            mapping = self._mapping = _larger(mapping, max(nbytes, 2 * len(mapping)))
        return mapping


def _mapping(nbytes: int) -> Mapping:
    try:
        return Mapping(-1, nbytes, **_PRIVATE)
    except OSError as err:
        raise _no_memory(nbytes, err) from err


def _larger(mapping: Mapping, nbytes: int) -> Mapping:
    """Return `mapping` with room for `nbytes` bytes."""
    if _CAN_MOVE:
        try:
            mapping.resize(nbytes)
        except OSError as err:
            raise _no_memory(nbytes, err) from err
        return mapping
    larger = _mapping(nbytes)
    larger[: len(mapping)] = mapping[:]
    return larger


def _no_memory(nbytes: int, err: OSError) -> BuffersFull:
    """Return the error for a body for which the system has no memory."""
    return BuffersFull(f"expected memory for a body of {nbytes} bytes; the system has none: {err}")
