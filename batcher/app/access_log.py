"""The access log on standard output.

One system call a line would cost more than the line itself. So lines gather in memory and go out
together a few times a second; when the server ends, `flush` writes the last of them.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

FLUSH_INTERVAL_S = 0.25
"""Seconds that a line may wait in memory."""


class AccessLog:
    """Lines to standard output, gathered and flushed a few times a second. Reactor thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Flush by timers of `loop`."""
        self._loop = loop
        self._lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Write one line within `FLUSH_INTERVAL_S`."""
        if not self._lines:
            self._loop.call_later(FLUSH_INTERVAL_S, self.flush)
        self._lines.append(line + b"\n")

    def flush(self) -> None:
        """Write every line that waits now."""
        lines, self._lines = self._lines, []
        if lines:
            # Without a pump (`outputs/`) the log's reader may be gone, or the disk full.
            with suppress(OSError):
                sys.stdout.buffer.write(b"".join(lines))
                sys.stdout.buffer.flush()
