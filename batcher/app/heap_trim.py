"""Gives memory back to the system once clients have let go of it.

Clients that do not read make the server hold their answers. When they are gone, the C library glibc
keeps most of the freed pages: its heap shrinks only at its end, and single pages in use stand
between the free ones. `malloc_trim` gives back the free pages in between too.

Refused: a low M_MMAP_THRESHOLD, which would give back large blocks at once. With it, the
activations of every model on the CPU would be mapped anew for each batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

CHECK_INTERVAL_S = 1.0
"""Seconds between two looks at the buffers."""

MIN_TRIM_BYTES = 4 << 20
"""Bytes that clients must have let go of since the last trim before a trim is worth its time."""


class Holder(Protocol):
    """Holds on to bytes that clients sent, or have not read: buffers, and pools.

    Attributes:
        peak: the most that `nbytes` was since `peak` was last set.
    """

    peak: int

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""


class HeapTrim:
    """Trims the heap whenever clients hold much less than before.

        trim, if holder.peak - holder.nbytes >= MIN_TRIM_BYTES

    `peak` is the most bytes that were held since the last trim. After a peak of 10 MiB the heap is
    trimmed when 6 MiB or less are held. Reactor thread.
    """

    def __init__(
        self, holders: Sequence[Holder], clock: IReactorTime, trim: Callable[[], object]
    ) -> None:
        """Watch `holders` by `clock`, and call `trim` to trim the heap."""
        self._holders = holders
        self._trim = trim
        self._checks = LoopingCall(self._check)
        self._checks.clock = clock

    def start(self) -> Deferred[Any]:
        """Check the holders from now on; the Deferred fails if `trim` raises."""
        return self._checks.start(CHECK_INTERVAL_S)

    def _check(self) -> None:
        emptied = [each for each in self._holders if each.peak - each.nbytes >= MIN_TRIM_BYTES]
        for holder in emptied:
            holder.peak = holder.nbytes
        if emptied:
            self._trim()


def heap_trimmer() -> Callable[[], object] | None:
    """Return a function that gives all free pages back; other threads may run meanwhile.

    None where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda: trim(0)
