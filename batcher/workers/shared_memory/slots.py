"""A piece of memory that two processes share: an anonymous file that both have mapped.

A slot belongs to one side at a time, the side that a message about its batch was sent to last. That
side may make the slot larger; the other maps the rest when it hears of the size. A slot never
shrinks: that would take pages away from under whoever reads them.
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
        busy: whether a batch is in the slot.
        memory: bytes of the slot, as far as this process has mapped them; writable.
    """

    memory: Array

    def __init__(self, fd: int) -> None:
        """Map the open file `fd`, at least a page of it. Any thread."""
        self.busy = False
        self._fd = fd
        self._size = 0
        self._map: mmap
        self._lease: ref[Array] | None = None
        self.reserve(1)

    def reserve(self, size: int) -> None:
        """See to it that `size` bytes are there and mapped.

        Arrays over what was mapped before stay valid.

        Raises:
            MemoryError: there is no room for that many bytes.

        Any one thread.
        """
        if size <= self._size:
            return
        try:
            # The other side may have made the file larger already.
            file_size = os.fstat(self._fd).st_size
            if file_size < size:
                # At least twice the size, so that growing batches map anew only a few times.
                file_size = -(-max(size, 2 * file_size) // PAGESIZE) * PAGESIZE
                os.ftruncate(self._fd, file_size)
            self._map = mmap(self._fd, file_size)
        except OSError as err:
            raise MemoryError(f"no room for {size} bytes of shared memory: {err}") from err
        self._size = file_size
        self.memory = np.frombuffer(self._map, np.uint8)

    def lease(self) -> Array:
        """Return the memory for arrays over it; the slot is held while one of them is left.

        Any one thread.
        """
        leased = np.frombuffer(self._map, np.uint8)  # not `memory`, which is never gone
        self._lease = ref(leased)
        return leased

    @property
    def held(self) -> bool:
        """Whether an array over what was leased is left. Any thread."""
        return self._lease is not None and self._lease() is not None
