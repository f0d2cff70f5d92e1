"""What happened to every request of the measured window.

A request belongs to the window by its due time alone, whenever its answer comes. So a server that
falls behind cannot push its slow answers out of the figures. Every request that was taken up ends
in exactly one way: it is answered, or it fails with one of `ERRORS`. `outstanding` counts the
requests that have not ended, and is 0 at the end of a run.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Literal

ErrorKind = Literal["connect", "wait_timeout", "timeout", "reset", "protocol"]

ERRORS: dict[ErrorKind, str] = {
    "connect": "no connection could be opened; not sent",
    "wait_timeout": "no connection became free within the timeout; not sent",
    "timeout": "sent, and no answer within the timeout",
    "reset": "sent, and the connection ended before the answer did",
    "protocol": "sent, and what came back is not one HTTP/1.1 answer",
}
UNSENT: frozenset[ErrorKind] = frozenset({"connect", "wait_timeout"})


class Tally:
    """Counts and times, in seconds, of the requests due from `begin` until before `end`.

    Attributes:
        scheduled: Requests taken up.
        lags: Per request taken up: how late the generator itself was.
        waits: Per request sent: how long it waited for a free connection.
        latencies: By status, per answer: from the due time to the last byte.
        in_window: By status, answers that arrived in the window, to whichever request: the
            throughput.
        errors: By kind, requests without an answer.
    """

    def __init__(self, begin: float, end: float) -> None:
        """Count what is due from `begin` until `end`, times of one clock in seconds."""
        self.begin = begin
        self.end = end
        self.scheduled = 0
        self.lags = array("d")
        self.waits = array("d")
        self.latencies: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        self.in_window: defaultdict[int, int] = defaultdict(int)
        self.errors: dict[ErrorKind, int] = dict.fromkeys(ERRORS, 0)

    def taken_up(self, due: float, now: float) -> None:
        """Note that the generator turned to the request that was due at `due`."""
        if due >= self.begin:
            self.scheduled += 1
            self.lags.append(now - due)

    def sent(self, due: float, waited: float) -> None:
        """Note that a request was written to a connection, after waiting `waited` seconds."""
        if due >= self.begin:
            self.waits.append(waited)

    def answered(self, due: float, status: int, now: float) -> None:
        """Note that the answer to a request is complete."""
        if due >= self.begin:
            self.latencies[status].append(now - due)
        if self.begin <= now < self.end:
            self.in_window[status] += 1

    def failed(self, due: float, kind: ErrorKind) -> None:
        """Note that a request will not be answered."""
        if due >= self.begin:
            self.errors[kind] += 1

    @property
    def answers(self) -> int:
        """Requests answered, with any status."""
        return sum(len(times) for times in self.latencies.values())

    @property
    def sendings(self) -> int:
        """Requests written to a connection."""
        return len(self.waits)

    @property
    def outstanding(self) -> int:
        """Requests taken up of which nothing is known yet."""
        return self.scheduled - self.answers - sum(self.errors.values())
