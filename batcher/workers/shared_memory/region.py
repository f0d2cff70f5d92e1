"""A piece of memory of one fixed size that two processes share, and who has which part of it.

One process writes into the region and the other reads. The writer lends parts of the region, each
for one array. The reader has the array as a view, without a copy, and gives the part back when the
last view of it is gone, in whatever order that happens:

    writer: lend, write -- message --> reader: view … last view gone -- message --> writer: free

The parts follow each other around a ring. A part that is held for long keeps those behind it
waiting; then `lend` finds no room, and the writer sends its bytes in another way. So nobody waits
for the region.

The file has no name and is sealed: neither side can change its size, and so no page goes away from
under whoever reads it. Pages take memory only once they have been written.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from functools import partial
from itertools import pairwise
from mmap import mmap
from typing import Any, Final
from weakref import ref

import numpy as np

from batcher.core.spec import Array

ALIGNMENT_BYTES: Final = 64
"""A cache line, and the widest vector there is."""

_SEALS = ("F_SEAL_SHRINK", "F_SEAL_GROW", "F_SEAL_SEAL")


def sealed_file(nbytes: int) -> int:
    """Return the descriptor of a file without a name that has `nbytes` bytes for good. Any thread.

    Linux alone has such files.
    """
    descriptor = os.memfd_create("batcher-front", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, nbytes)
    seals = sum(getattr(fcntl, name) for name in _SEALS)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def mapped(descriptor: int) -> mmap:
    """Return the whole file `descriptor` as memory, and close the descriptor. Any thread."""
    try:
        return mmap(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


class Lender:
    """The writer's side: which parts are lent. One thread."""

    def __init__(self, memory: mmap) -> None:
        """Lend parts of `memory`, all of which is free."""
        self._memory = memory
        self._size = len(memory)
        self._head = 0  # where the next part begins
        # From the offset of each part to its end, in the order in which they were lent.
        self._parts: dict[int, int] = {}
        self._back: set[int] = set()  # offsets of parts that came back before earlier ones

    @property
    def lent(self) -> int:
        """How many parts are not free again."""
        return len(self._parts)

    def write(self, array: Array) -> int:
        """Copy `array` into a part of its own; return the part's offset, -1 if there is no room."""
        offset = self.lend(array.nbytes)
        if offset >= 0:
            np.ndarray(array.shape, array.dtype, self._memory, offset)[...] = array
        return offset

    def lend(self, nbytes: int) -> int:
        """Return the offset of a part of `nbytes` bytes, at least 1; -1 if there is no room."""
        size = -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        start = self._place(size)
        if start >= 0:
            self._head = self._parts[start] = start + size
        return start

    def _place(self, size: int) -> int:
        """Return where `size` bytes are free behind the newest part; -1 if nowhere."""
        if not self._parts:
            # From the beginning again: the same pages, which are in memory already.
            return 0 if size <= self._size else -1
        tail = next(iter(self._parts))
        if self._head > tail:
            if self._head + size <= self._size:
                return self._head
            # Not `<=`: a head at the tail would mean that nothing is lent.
            return 0 if size < tail else -1
        return self._head if self._head + size < tail else -1

    def free(self, offset: int) -> None:
        """Take the part at `offset` back."""
        self._back.add(offset)
        while self._parts and (oldest := next(iter(self._parts))) in self._back:
            self._back.remove(oldest)
            del self._parts[oldest]

    def check_invariants(self) -> None:
        """Assert that no two parts share a byte, and that all lie in the region; for tests."""
        ends = sorted((start, end) for start, end in self._parts.items())
        for (_, end), (start, _) in pairwise(ends):
            assert end <= start
        assert all(0 <= start < end <= self._size for start, end in ends)
        assert self._back < self._parts.keys() or not self._back


class Reader:
    """The reader's side: arrays over what was lent. One thread; views may be dropped on any."""

    def __init__(self, memory: mmap) -> None:
        """Read from `memory`."""
        self._memory = memory
        self._leases: dict[int, ref[Any]] = {}
        # Deques and dictionaries need no lock: each change is one step of the interpreter.
        self._gone: deque[int] = deque()

    @property
    def held(self) -> int:
        """How many parts still have a view."""
        return len(self._leases)

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the array at `offset`, of at least one byte."""
        nbytes = dtype.itemsize
        for size in shape:
            nbytes *= size
        # Every view of the array has this one as its base: it is gone when all are.
        whole = np.frombuffer(self._memory, np.uint8, nbytes, offset)
        self._leases[offset] = ref(whole, partial(self._drop, offset))
        return np.ndarray(shape, dtype, whole)

    def take_gone(self) -> list[int]:
        """Return the offsets of the parts whose last view is gone since the last call."""
        if not self._gone:
            return []
        return [self._gone.popleft() for _ in range(len(self._gone))]

    def _drop(self, offset: int, _: object) -> None:
        """Note that no view is left. Any thread."""
        self._leases.pop(offset, None)
        self._gone.append(offset)
