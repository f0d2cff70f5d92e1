"""Deferreds that wait for one and the same thing."""

from __future__ import annotations

from twisted.internet.defer import Deferred


class Waiters:
    """Any number of Deferreds that fire together. Reactor thread."""

    def __init__(self) -> None:
        """Start with none."""
        self._deferreds: list[Deferred[None]] = []

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires with the next `release`."""
        deferred: Deferred[None] = Deferred()
        self._deferreds.append(deferred)
        return deferred

    def release(self) -> None:
        """Fire all that wait; whoever waits from then on waits for the next time."""
        deferreds, self._deferreds = self._deferreds, []
        for deferred in deferreds:
            deferred.callback(None)
