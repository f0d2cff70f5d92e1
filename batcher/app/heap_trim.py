"""Gives memory back to the system once clients have let go of it.

What clients send, and do not read, makes the server hold memory. When it is let go of, the C
library glibc keeps most of the freed pages: its heap shrinks only at its end, and single pages in
use stand between the free ones. `malloc_trim` gives back the free pages in between too. Two signs
tell that a trim may be worth its time:

| sign | a trim follows |
|---|---|
| buffers and pools hold much less than before | within a second |
| the process has more memory than after an earlier trim | after 1, 2, 4, … 64 seconds |

The second sign is for what nobody counts: messages of gRPC, inputs that waited, texts. It
cannot tell memory in use from memory that is kept, so trims that gain nothing become rarer, and end
after some two minutes: what the process then has is in use.

Refused: a low M_MMAP_THRESHOLD, which would give back large blocks at once. With it, the
activations of every model on the CPU would be mapped anew for each batch.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

CHECK_INTERVAL_S = 1.0
"""Seconds between two looks at the holders and the process."""

MIN_TRIM_BYTES = 4 << 20
"""Bytes that clients must have let go of since the last trim before a trim is worth its time."""


MIN_GROWTH_BYTES = 16 << 20
"""Bytes by which the process must have grown before a trim is tried: a twentieth of a small server.
"""

MAX_PAUSE_S = 64.0
"""Seconds between two trims that gain nothing, beyond which the process's memory is in use."""


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
    """Trims the heap whenever clients hold much less than before, and where the process has grown.

        trim, if holder.peak - holder.nbytes >= MIN_TRIM_BYTES
              or resident - floor >= MIN_GROWTH_BYTES and the pause is over

    `peak` is the most bytes that were held since the last trim. After a peak of 10 MiB the heap is
    trimmed when 6 MiB or less are held. `floor` is what the process had after a trim. A
    server of 300 MiB that has 500 is trimmed after 1, 2, 4, … 64 s, until less than 316 MiB are
    left; if 500 remain, 500 is the floor. Reactor thread.
    """

    def __init__(
        self,
        holders: Sequence[Holder],
        clock: IReactorTime,
        trim: Callable[[], object],
        resident: Callable[[], int],
    ) -> None:
        """Watch `holders` by `clock`, and call `trim` to trim the heap.

        `resident` returns the bytes of memory that the process has.
        """
        self._holders = holders
        self._trim = trim
        self._resident = resident
        self._clock = clock
        self._floor = 0
        self._pause_s = CHECK_INTERVAL_S
        self._next_s = 0.0
        self._checks = LoopingCall(self._check)
        self._checks.clock = clock

    def start(self) -> Deferred[Any]:
        """Check holders and process from now on; the Deferred fails if `trim` raises."""
        self._floor = self._resident()
        return self._checks.start(CHECK_INTERVAL_S)

    def _check(self) -> None:
        emptied = [each for each in self._holders if each.peak - each.nbytes >= MIN_TRIM_BYTES]
        for holder in emptied:
            holder.peak = holder.nbytes
        if emptied or self._has_grown():
            self._trim()

    def _has_grown(self) -> bool:
        """Return whether the process has grown, and the next trim because of that is due."""
        resident, now = self._resident(), self._clock.seconds()
        if resident - self._floor < MIN_GROWTH_BYTES:
            self._floor = min(self._floor, resident)
            self._pause_s, self._next_s = CHECK_INTERVAL_S, now
            return False
        if now < self._next_s:
            return False
        if self._pause_s > MAX_PAUSE_S:
            self._floor = resident
            return False
        self._next_s = now + self._pause_s
        self._pause_s *= 2
        return True


def resident_bytes() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def heap_trimmer() -> Callable[[], object] | None:
    """Return a function that gives all free pages back; other threads may run meanwhile.

    None where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes, trim.restype = (ctypes.c_size_t,), ctypes.c_int
    return lambda: trim(0)
