"""Many Deferreds that wait for one event, such as the end of a load."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Waiters:
    """Any number of Deferreds that fire together, in the order in which they began to wait.

    A Deferred that is cancelled fails alone and at once; the others wait on. Reactor thread.
    """

    def __init__(self) -> None:
        """Start with no Deferred."""
        self._deferreds: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many Deferreds wait."""
        return len(self._deferreds)

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires with the next `release`."""
        deferred: Deferred[None] = Deferred()
        self._deferreds.append(deferred)
        return deferred

    def release(self, failure: Failure | None = None) -> None:
        """Fire every Deferred that waits: with None, or with `failure` where the event has failed.

        A Deferred that is made while the others fire waits for the next `release`.
        """
        deferreds, self._deferreds = self._deferreds, []
        for deferred in deferreds:
            if failure is None:
                deferred.callback(None)
            else:
                deferred.errback(failure)
