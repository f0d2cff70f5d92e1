"""A piece of memory that two processes share: an anonymous file that both have mapped.

A slot belongs to one side at a time; whoever has it may grow it, and the other maps the rest when
it is told of the size. It is never shrunk: that would take pages away from under whoever reads
them.
"""

from __future__ import annotations

import os
from mmap import PAGESIZE, mmap
from weakref import ref

import numpy as np

from batcher.core.spec import Array


class Slot:
    """One piece of shared memory, of at least a page.

    Attributes:
        busy: whether a batch is in it.
        memory: its bytes, as far as this process has mapped them; writable.
    """

    memory: Array

    def __init__(self, fd: int) -> None:
        """Map what the open file `fd` has, at least a page. Any thread."""
        self.busy = False
        self._fd = fd
        self._size = 0
        self._map: mmap
        self._lease: ref[Array] | None = None
        self.reserve(1)

    def reserve(self, size: int) -> None:
        """See to it that `size` bytes are there and mapped.

        Any thread; what was mapped before stays valid.

        Raises:
            MemoryError: there is no room for them.
        """
        if size <= self._size:
            return
        try:
            there = os.fstat(self._fd).st_size
            if there < size:
                there = -(-max(size, 2 * there) // PAGESIZE) * PAGESIZE
                os.ftruncate(self._fd, there)
            self._map = mmap(self._fd, there)
        except OSError as err:
            raise MemoryError(f"no room for {size} bytes of shared memory: {err}") from err
        self._size = there
        self.memory = np.frombuffer(self._map, np.uint8)

    def lease(self) -> Array:
        """Return its memory for arrays over it; it is held while one of them is left.

        Any thread.
        """
        leased = np.frombuffer(self._map, np.uint8)  # not `memory`, which is never gone
        self._lease = ref(leased)
        return leased

    @property
    def held(self) -> bool:
        """Whether an array over what was leased is left."""
        return self._lease is not None and self._lease() is not None
