"""A copy of a large buffer as `bytes`, without keeping other threads waiting.

`bytes(view)` keeps the interpreter lock while it copies: for 32 MiB of fresh memory that is 80 ms,
in which the loop stands still whatever thread copies. No call of Python's makes `bytes` otherwise.
So an object of zeros, which the system gives without touching its pages, is filled through its
address before anybody else can see the object.
"""

from __future__ import annotations

import ctypes

import numpy as np

LARGE_BYTES = 1 << 20
"""Bytes from which the copy lets other threads run: to copy so many takes half a millisecond."""


def copied_bytes(buffer: bytes | memoryview) -> bytes:
    """Return `buffer` as `bytes`; other threads run while many are copied. Any thread."""
    if isinstance(buffer, bytes) or len(buffer) < LARGE_BYTES:
        return bytes(buffer)
    copy = bytes(len(buffer))
    # ctypes lets go of the lock while a function of C runs.
    ctypes.memmove(_address(copy), _address(buffer), len(buffer))
    return copy


def _address(buffer: bytes | memoryview) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)
