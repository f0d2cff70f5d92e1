"""The deadlines of all requests that wait or run, and the end of requests that are late.

One number, `earliest`, tells the scheduler whether any deadline can have passed, so a turn of the
loop without a late request costs one comparison. When that time has come, all requests are looked
at once, and then not again for `DEADLINE_SCAN_INTERVAL_S`: with a deadline in every millisecond the
walks would otherwise cost more than the requests. So a client may learn by that much too late that
its deadline has passed.

Refused: a heap of deadlines, which costs every request an insertion, though nearly all are answered
in time.
"""

from __future__ import annotations

from math import inf

from batcher.batching.completion import Completions
from batcher.batching.dispatch import Dispatcher
from batcher.batching.pending_request import owner

DEADLINE_SCAN_INTERVAL_S = 5e-3
"""Seconds at least between two walks over all requests.

No batch carries a late request for that: its policy compares every deadline before it is sent.
"""


class Deadlines:
    """Ends the requests whose deadline has passed. Reactor thread.

    Attributes:
        earliest: time in seconds before which no deadline passes; infinity if there is none.
            `BatchScheduler.submit` lowers it to the deadline of a new request.
    """

    def __init__(self, dispatcher: Dispatcher, completions: Completions) -> None:
        """Watch over the parts of `dispatcher`, and end requests through `completions`."""
        self.earliest = inf
        self._dispatcher = dispatcher
        self._completions = completions

    def expire_due(self, now: float) -> None:
        """End every request whose deadline is not after `now`, the most overdue first."""
        deadlines = {
            pending: pending.deadline
            for pending in map(owner, self._dispatcher.parts())
            if not pending.finished
        }
        rest = min((deadline for deadline in deadlines.values() if deadline > now), default=inf)
        # set before the callbacks run: they may submit requests, whose deadlines lower it
        self.earliest = max(rest, now + DEADLINE_SCAN_INTERVAL_S) if rest < inf else inf
        due = [pending for pending in deadlines if deadlines[pending] <= now]
        for pending in sorted(due, key=deadlines.__getitem__):
            self._completions.expire(pending)

    def check_invariants(self) -> None:
        """Assert that no deadline is missed; for tests, after every step."""
        assert all(
            owner(part).deadline >= self.earliest - DEADLINE_SCAN_INTERVAL_S or owner(part).finished
            for part in self._dispatcher.parts()
        )
