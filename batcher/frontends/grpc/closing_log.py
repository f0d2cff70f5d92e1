"""What the log says of connections that the port has closed: few lines, however many there are.

Whoever looks for open ports sends thousands of connections that are no HTTP/2. One line tells of
the first one, and further lines, `LOG_INTERVAL_S` apart, how many were not told of.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.logger import Logger

_log = Logger()

LOG_INTERVAL_S = 10.0
"""Seconds between two lines, as between two tracebacks of one kind."""


class ClosingLog:
    """Tells of closed connections. Reactor thread."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Tell the time by `seconds`."""
        self._seconds = seconds
        self._written = -inf
        self._left_out = 0

    def write(self, peer: str, why: object) -> None:
        """Say that the connection of `peer` was closed, and `why`, unless a line came just now."""
        now = self._seconds()
        if now - self._written < LOG_INTERVAL_S:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._written, self._left_out = now, 0
        _log.info("gRPC: closed the connection of {who}: {why}{more}", who=peer, why=why, more=more)
