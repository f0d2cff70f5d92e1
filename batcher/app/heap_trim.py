"""Memory that clients made the server hold goes back to the system when they have let go of it.

glibc keeps pages that are free between others that are not: after clients that did not read, most
of what they had held, which `malloc_trim` gives back. A low M_MMAP_THRESHOLD would do it at once,
but have the activations of every model on the CPU mapped anew for each batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from batcher.frontends.web.buffers import Buffers

PERIOD = 1.0
"""Seconds between two looks."""

WORTHWHILE = 4 << 20
"""Bytes that clients have let go of since the last trim."""


class HeapTrim:
    """Trims the heap whenever clients hold much less than they did. Reactor thread."""

    def __init__(self, buffers: Buffers, clock: IReactorTime, trim: Callable[[], object]) -> None:
        """Watch `buffers` by `clock`, and call `trim` when it is worthwhile."""
        self._buffers = buffers
        self._trim = trim
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def start(self) -> Deferred[Any]:
        """Look from now on; the Deferred fails if a trim raises."""
        return self._looking.start(PERIOD)

    def _look(self) -> None:
        if self._buffers.peak - self._buffers.nbytes >= WORTHWHILE:
            self._buffers.peak = self._buffers.nbytes
            self._trim()


def heap_trimmer() -> Callable[[], object] | None:
    """Return what has the C library give back all free pages while other threads run.

    None where it is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda: trim(0)
