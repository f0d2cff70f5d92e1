"""How many bytes clients make all connections together hold, and who gives way where it is too many.

Counted are bodies of which a part has come, requests that were read and have not begun, answers
whose turn has not come, and answers that their clients do not read. A request that comes whole and
an answer that is taken at once are not counted, and cost nothing here.

A body that brings the total over the bound is refused: overflow is synchronous, and who was let in
before comes to an end. To refuse whoever holds most instead would drive out the bodies that are
nearly whole for the sake of new ones; to stop reading would have bodies wait for each other, each
holding what it has. An answer cannot be refused any more: for it, whoever holds most gives way, be
it a body or unread answers, so that a few clients that do not read never cost the others theirs.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from batcher.errors import BuffersFull
from batcher.serving.metrics import ServerMetrics

PATIENCE = 0.01
"""Seconds that clients have to read before any gives way: what is written leaves in the next turns
of the loop.
"""

URGENT = 1.25
"""Times what all may hold.

Beyond, whoever has had those seconds gives way at once, not only when others have had them too.
"""


class Holder(Protocol):
    """What holds bytes for a client."""

    def recount(self, now: float) -> None:
        """Say anew what it holds."""

    def give_way(self) -> None:
        """Hold nothing any more, from this moment on."""


class Buffers:
    """The bytes that each connection holds. Reactor thread.

    Attributes:
        most: bytes that all may hold together.
        nbytes: that they hold.
        peak: the most that they held since it was last set.
    """

    def __init__(self, most: int, clock: IReactorTime, metrics: ServerMetrics) -> None:
        """Let connections hold `most` bytes; time is that of `clock`."""
        self.most = most
        self.nbytes = 0
        self.peak = 0
        self._clock = clock
        self._metrics = metrics
        self._holders: dict[Holder, int] = {}
        self._since: dict[Holder, float] = {}  # when each began to hold something
        self._look_due = False
        self._urgent_look_due = False

    @property
    def is_over(self) -> bool:
        """Whether they hold too much.

        One alone may, or what is larger than all room could never be served.
        """
        return self.nbytes > self.most and len(self._holders) > 1

    def hold(self, holder: Holder, nbytes: int) -> None:
        """Note that `holder` holds `nbytes` bytes now; if all hold too much, room is made soon."""
        held = self._holders.get(holder, 0)
        self.nbytes += nbytes - held
        self.peak = max(self.peak, self.nbytes)
        if nbytes:
            self._holders[holder] = nbytes
            if not held:
                self._since[holder] = self._clock.seconds()
        elif held:
            del self._holders[holder], self._since[holder]
        self._metrics.buffer_bytes = self.nbytes
        if self.is_over and not self._look_due:
            self._look_due = True
            self._clock.callLater(PATIENCE, self._make_room)
        if self.nbytes > URGENT * self.most and self.is_over and not self._urgent_look_due:
            self._urgent_look_due = True
            self._clock.callLater(0, self._make_room_at_once)

    def error(self) -> BuffersFull:
        """Return why a body is refused."""
        return BuffersFull(
            f"expected all connections together to hold at most {self.most} bytes; there is no "
            "room for more"
        )

    def check_invariants(self) -> None:
        """Assert that the total is that of the holders; for tests."""
        assert self.nbytes == sum(self._holders.values())
        assert all(nbytes > 0 for nbytes in self._holders.values())
        assert self._holders.keys() == self._since.keys()

    def _make_room(self) -> None:
        try:
            self._let_give_way(list(self._holders), self.most)
        finally:
            self._look_due = False

    def _make_room_at_once(self) -> None:
        try:
            before = self._clock.seconds() - PATIENCE
            self._let_give_way(
                [holder for holder, since in self._since.items() if since <= before],
                URGENT * self.most,
            )
        finally:
            self._urgent_look_due = False

    def _let_give_way(self, holders: list[Holder], most: float) -> None:
        """Have those of `holders` that hold most give way until all together hold at most `most` bytes."""
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
