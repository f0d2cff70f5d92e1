"""Copies of large buffers as `bytes`, without keeping other threads waiting.

`bytes(view)` keeps the interpreter lock while it copies: for 32 MiB of fresh memory that is 80 ms,
in which the loop stands still whatever thread copies. No call of Python's makes `bytes` otherwise.
So an object of zeros, which the system gives without touching its pages, is filled through its
address before anybody else can see the object.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

LARGE_BYTES = 1 << 20
"""Bytes from which the copy lets other threads run: to copy so many takes half a millisecond."""


AnyBuffer = bytes | bytearray | memoryview


def copied_bytes(buffer: AnyBuffer) -> bytes:
    """Return `buffer` as `bytes`; other threads run while many are copied. Any thread."""
    return buffer if isinstance(buffer, bytes) else joined_bytes((buffer,))


def joined_bytes(pieces: Sequence[AnyBuffer]) -> bytes:
    """Return `pieces` one behind the other; threads run as in `copied_bytes`. Any thread."""
    nbytes = sum(map(len, pieces))
    if nbytes < LARGE_BYTES:
        return b"".join(pieces)
    copy = bytes(nbytes)
    place = _address(copy)
    for piece in filter(len, pieces):
        # ctypes lets go of the lock while a function of C runs.
        ctypes.memmove(place, _address(piece), len(piece))
        place += len(piece)
    return copy


def _address(buffer: AnyBuffer) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)
