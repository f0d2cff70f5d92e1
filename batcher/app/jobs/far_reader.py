"""The rows of a large file of text, read in a process of its own.

To read text as numbers keeps the interpreter lock, and a model in Python needs that lock at each of
its operators: read on a thread of this process, the model would stand still for as long.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from batcher.app.jobs.far_reading import FarFile, described, get_ready, read_portions
from batcher.core.portions import Portion, Position, RowReader
from batcher.errors import BatcherError
from batcher.workers.codec_process.process import READING, CodecProcess

LEAST_BYTES = 16 << 20
"""Bytes of a file from which on it is worth a process."""


class FarReader:
    """Reads as the reader of the same file in this process does. One thread at a time.

    The process always reads on, while the job is busy with what was read before.

    Attributes:
        begin: the position of the first row.
        place: what the place of a row is.
    """

    def __init__(self, near: RowReader, file: FarFile) -> None:
        """Start the process, which reads `file` as `near` would. Raises Unavailable."""
        self.begin = near.begin
        self.place = near.place
        self._file = described(file)
        self._found: deque[Portion | None] = deque()
        self._next = self._ahead = self.begin
        self._process = CodecProcess(READING)
        # It imports what it needs while the model loads.
        self._process.send(self, get_ready, (self._file,))
        self._is_asked = True

    def read(self, position: Position, rows: int) -> Portion | None:
        """Return the next rows, see `RowReader`; `rows` is the same in all calls."""
        if self._next != position or self._next == self.begin:
            self._jump(position)
        if not self._found:
            self._found = self._received(rows)
        portion = self._found.popleft()
        if portion is not None:
            self._next = portion.after
        return portion

    def close(self) -> None:
        """End the process. Any thread, while none reads."""
        self._process.stop()
        if self._is_asked:
            with suppress(BatcherError):
                self._process.receive()

    def _jump(self, position: Position) -> None:
        """Go on at `position`, as a job does at its beginning."""
        is_asked, self._is_asked = self._is_asked, False  # before what may fail
        if is_asked:
            self._process.receive()
        self._found = deque()
        self._next = self._ahead = position

    def _received(self, rows: int) -> deque[Portion | None]:
        """Return what the process has read, and have it read on meanwhile."""
        if not self._is_asked:
            self._ask(rows)
        self._is_asked = False
        found: list[Portion | None] = self._process.receive()
        for portion in found:
            if portion is not None:
                self._ahead = portion.after
        if found[-1] is not None:
            self._ask(rows)
        return deque(found)

    def _ask(self, rows: int) -> None:
        self._process.send(self, read_portions, (self._file, self._ahead, rows))
        self._is_asked = True
