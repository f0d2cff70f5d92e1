"""How many bytes clients make all connections together hold, and who gives way beyond the bound.

Each connection counts

    held = body that is arriving + requests that wait to begin
           + answers whose turn has not come + answers that the client does not read

and `Buffers` adds them up. A request that arrives whole and an answer that the client takes at once
count nothing here and cost nothing. With a bound of 64 MiB, one client that sends a body of 60 MiB
and another that leaves 5 MiB of answers unread are 1 MiB too many together.

| over the bound by | what happens |
|---|---|
| a body | that body is refused at once, with 503: clients that were let in before come to an end |
| an answer | after 10 ms, connections give way, the one that holds most first |
| an answer, to over 1.25 times the bound | those that have had 10 ms give way at once, likewise |

To refuse the connection that holds most instead of the new body would drive out bodies that are
nearly whole for the sake of new ones. To stop reading would have bodies wait for each other, each
holding what has arrived. An answer cannot be refused any more. So for an answer the connection that
holds most gives way, be it a body or unread answers: a few clients that do not read never cost
other clients their answers.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from batcher.errors import BuffersFull
from batcher.serving.metrics import ServerMetrics

READING_TIME_S = 0.01
"""Seconds that clients have to read before any gives way: bytes that were written leave in the next
turns of the loop.
"""

URGENT_FACTOR = 1.25
"""Times the bound. With more, connections that have had `READING_TIME_S` give way at once, and not
only when all others have had that time too.
"""


class Holder(Protocol):
    """A connection that holds bytes for its client."""

    def recount(self, now: float) -> None:
        """Note anew how many bytes it holds."""

    def give_way(self) -> None:
        """Hold no bytes from this moment on."""


class Buffers:
    """The bytes that each connection holds. Reactor thread.

    Attributes:
        max_bytes: bytes that all connections may hold together.
        nbytes: bytes that all connections hold.
        peak: the most bytes that they held since `peak` was last set.
    """

    def __init__(self, max_bytes: int, clock: IReactorTime, metrics: ServerMetrics) -> None:
        """Let connections hold `max_bytes` bytes; time is that of `clock`."""
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.peak = 0
        self._clock = clock
        self._metrics = metrics
        self._holders: dict[Holder, int] = {}
        self._held_since: dict[Holder, float] = {}  # when each began to hold something
        self._look_due = False
        self._urgent_look_due = False

    @property
    def is_over(self) -> bool:
        """Whether the connections hold too much.

        One connection alone may: else a body larger than the bound could never be served.
        """
        return self.nbytes > self.max_bytes and len(self._holders) > 1

    def hold(self, holder: Holder, nbytes: int) -> None:
        """Note that `holder` holds `nbytes` bytes now; if all hold too much, room is made soon."""
        held = self._holders.get(holder, 0)
        self.nbytes += nbytes - held
        self.peak = max(self.peak, self.nbytes)
        if nbytes:
            self._holders[holder] = nbytes
            if not held:
                self._held_since[holder] = self._clock.seconds()
        elif held:
            del self._holders[holder], self._held_since[holder]
        self._metrics.buffer_bytes = self.nbytes
        if self.is_over and not self._look_due:
            self._look_due = True
            self._clock.callLater(READING_TIME_S, self._make_room)
        if (
            self.nbytes > URGENT_FACTOR * self.max_bytes
            and self.is_over
            and not self._urgent_look_due
        ):
            self._urgent_look_due = True
            self._clock.callLater(0, self._make_room_at_once)

    def error(self) -> BuffersFull:
        """Return why a body is refused."""
        return BuffersFull(
            f"expected all connections together to hold at most {self.max_bytes} bytes; there is "
            "no room for more"
        )

    def check_invariants(self) -> None:
        """Assert that the total is that of the holders; for tests."""
        assert self.nbytes == sum(self._holders.values())
        assert all(nbytes > 0 for nbytes in self._holders.values())
        assert self._holders.keys() == self._held_since.keys()

    def _make_room(self) -> None:
        try:
            self._let_give_way(list(self._holders), self.max_bytes)
        finally:
            self._look_due = False

    def _make_room_at_once(self) -> None:
        try:
            before = self._clock.seconds() - READING_TIME_S
            self._let_give_way(
                [holder for holder, since in self._held_since.items() if since <= before],
                URGENT_FACTOR * self.max_bytes,
            )
        finally:
            self._urgent_look_due = False

    def _let_give_way(self, holders: list[Holder], most: float) -> None:
        """Have `holders` give way, the largest first, until all hold at most `most` bytes."""
        now = self._clock.seconds()
        for holder in holders:
            holder.recount(now)
        for holder in sorted(
            holders, key=lambda holder: self._holders.get(holder, 0), reverse=True
        ):
            if self.nbytes <= most or not self.is_over:
                break
            if holder in self._holders:
                holder.give_way()
