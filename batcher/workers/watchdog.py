"""Notices that a batch runs for too long, by one timer that is set anew only when it has rung."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from batcher.core.alarm import Alarm


class Watchdog:
    """Calls `bark` once something has run for `seconds`; then it rests until the next `begin`.

    Reactor thread.
    """

    def __init__(self, clock: IReactorTime, seconds: float, bark: Callable[[], object]) -> None:
        """Watch nothing yet."""
        self._clock = clock
        self._seconds = seconds
        self._bark = bark
        self._due = inf
        self._alarm = Alarm(clock, self._rung)

    def begin(self) -> None:
        """Watch what begins now, and nothing else."""
        self._due = self._clock.seconds() + self._seconds
        self._alarm.set(self._due)

    def rest(self) -> None:
        """Watch nothing."""
        self._due = inf

    def stop(self) -> None:
        """Watch nothing, and leave no timer behind."""
        self._due = inf
        self._alarm.cancel()

    def _rung(self) -> None:
        if self._clock.seconds() >= self._due:
            self._due = inf
            self._bark()
        else:
            self._alarm.set(self._due)
