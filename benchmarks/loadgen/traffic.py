"""Which request goes to which connection, and when: the open and the closed loop.

This is bookkeeping without a loop and without sockets. Time comes in as an argument, or from the
clock that is handed in. So tests go step by step, with connections that only remember their
requests.

The connections of the open loop are a fixed pool. A request goes to the connection that has been
free longest, so that all are used and none grows stale. When no connection is free, the request
waits its turn and its latency runs on. The alternative, to open more connections up to a cap, was
refused: the number of connections would be a result instead of a setting, two servers would be
compared under different loads, and a server that falls behind would be hit by a storm of connects.
To offer more concurrency, ask for more connections.

Two times tell the generator's own fault from the server's:

    lag             = time when the generator turned to a request - due time of the request
    connection wait = time when a connection was free - time when the generator turned to it

Requests that are due are also looked for after each answer, not only when the alarm rings. A
batching server answers many connections at once, and the next requests must not wait until all
those answers were read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from benchmarks.loadgen.tally import Tally


class Sender(Protocol):
    """A connection, as the traffic sees it."""

    @property
    def open(self) -> bool:
        """Whether the connection can still send."""

    def send(self, due: float, now: float) -> None:
        """Send the request that was due at `due`; the connection tells the tally how it ends."""


class OpenLoop:
    """Sends what the schedule says, however the server fares.

    `start` begins; `send_due` is called when the next request is due (and may be called at any
    time); connections that can take a request are handed to `ready`, one request at a time.
    """

    def __init__(self, schedule: Iterator[float], clock: Callable[[], float]) -> None:
        """Take due times, in seconds after the start and in order, from `schedule`."""
        self._schedule = schedule
        self._clock = clock
        self._free: deque[Sender] = deque()
        self._waiting: deque[tuple[float, float]] = deque()
        self._tally = Tally(math.inf, math.inf)
        self._origin = 0.0
        self.next_due = math.inf

    def start(self, origin: float, tally: Tally) -> None:
        """Schedule from `origin` until the end of the tally's window."""
        self._origin = origin
        self._tally = tally
        self.next_due = self._following()

    def send_due(self, now: float) -> float:
        """Take up all that is due; returns when the next request is, infinity after the last."""
        due = self.next_due
        while due <= now:
            self._tally.taken_up(due, now)
            self._place(due, now)
            due = self.next_due = self._following()
            now = self._clock()
        return due

    def ready(self, connection: Sender, now: float) -> None:
        """Give a connection that is open and free the request that waits longest, if any."""
        if self._waiting:
            due, since = self._waiting.popleft()
            self._tally.sent(due, now - since)
            connection.send(due, now)
        else:
            self._free.append(connection)
        if self.next_due <= now:
            self.send_due(now)

    def unreachable(self, now: float, connected: int) -> None:
        """Note that a connect failed; without any connection no waiting request can be sent."""
        if not connected:
            while self._waiting:
                self._tally.failed(self._waiting.popleft()[0], "connect")

    def expire(self, limit: float) -> None:
        """Give up the requests that were due before `limit` and still wait for a connection."""
        while self._waiting and self._waiting[0][0] < limit:
            self._tally.failed(self._waiting.popleft()[0], "wait_timeout")

    @property
    def pending(self) -> bool:
        """Whether requests are still to come or wait for a connection."""
        return bool(self._waiting) or self.next_due < math.inf

    def _following(self) -> float:
        due = self._origin + next(self._schedule)
        return due if due < self._tally.end else math.inf

    def _place(self, due: float, now: float) -> None:
        free = self._free
        while free:
            connection = free.popleft()
            if connection.open:  # those that closed while they were free are dropped here
                self._tally.sent(due, 0.0)
                connection.send(due, now)
                return
        self._waiting.append((due, now))


class ClosedLoop:
    """Every connection sends its next request as soon as it can.

    A request is due when it is sent, so there is no lag. Only the start is ever waited for.
    """

    def __init__(self) -> None:
        """Hold connections back until the start is due."""
        self._parked: list[Sender] = []
        self._tally = Tally(math.inf, math.inf)
        self._running = False
        self.next_due = math.inf

    def start(self, origin: float, tally: Tally) -> None:
        """Send from `origin` until the end of the tally's window."""
        self._tally = tally
        self.next_due = origin

    def send_due(self, now: float) -> float:
        """Let the connections that are held back send once the start is due.

        Returns when something is due next.
        """
        if self.next_due <= now:
            self.next_due = math.inf
            self._running = True
            for connection in self._parked:
                self.ready(connection, now)
            self._parked.clear()
        return self.next_due

    def ready(self, connection: Sender, now: float) -> None:
        """Have a connection that is open and free send."""
        if not self._running:
            self._parked.append(connection)
        elif now < self._tally.end and connection.open:
            self._tally.taken_up(now, now)
            self._tally.sent(now, 0.0)
            connection.send(now, now)

    def unreachable(self, now: float, connected: int) -> None:
        """Note that a connect failed, and with it the request for which it was made."""
        if self._running and now < self._tally.end:
            self._tally.taken_up(now, now)
            self._tally.failed(now, "connect")

    def expire(self, limit: float) -> None:
        """Nothing waits."""

    @property
    def pending(self) -> bool:
        """Nothing waits."""
        return False


Traffic = OpenLoop | ClosedLoop
