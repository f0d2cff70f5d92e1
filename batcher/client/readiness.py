"""Whether a socket has something to read, without waiting."""

from __future__ import annotations

import select
from typing import Any

POLL: Any = getattr(select, "poll", None)
"""The system call without a bound on descriptors, where the system has it."""


class Readiness:
    """Looks at one socket."""

    __slots__ = ("_file", "_poll")

    def __init__(self, file: int, poll: Any = POLL) -> None:
        """Look at the socket with the descriptor `file`; a system without `poll` has `select`."""
        self._file = file
        self._poll = None
        if poll is not None:
            self._poll = poll()
            self._poll.register(file, select.POLLIN)

    def __bool__(self) -> bool:
        """Return whether reading would give bytes, an end or an error at once."""
        if self._poll is not None:
            return bool(self._poll.poll(0))
        return bool(select.select([self._file], [], [], 0)[0])
