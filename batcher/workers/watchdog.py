"""Notices that a batch runs for too long.

A timer is not set anew for every batch: one timer runs on while batches come and go. When the timer
rings and the batch that it was set for has ended, the timer is set again for the batch that runs.

Time in which the whole process stood still is not counted (`core/standstill.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from batcher.core.alarm import Alarm
from batcher.core.standstill import stood_still_of


class Watchdog:
    """Calls `overdue` once something has run for `seconds`, then nothing until the next `begin`."""

    def __init__(self, clock: IReactorTime, seconds: float, overdue: Callable[[], object]) -> None:
        """Time nothing yet. Reactor thread."""
        self._clock = clock
        self._seconds = seconds
        self._overdue = overdue
        self._due = inf
        self._alarm = Alarm(clock, self._rung)
        self._stood_still = stood_still_of(clock)
        self._granted = self._stood_still()

    def begin(self) -> None:
        """Time what begins now, and nothing else. Reactor thread."""
        self._due = self._clock.seconds() + self._seconds
        self._alarm.set(self._due)

    def rest(self) -> None:
        """Time nothing; the timer may still ring once, for nothing. Reactor thread."""
        self._due = inf

    def stop(self) -> None:
        """Time nothing for good; leave no timer behind, and let go of `overdue`. Reactor thread."""
        self._due = inf
        self._alarm.end()
        self._overdue = lambda: None

    def _rung(self) -> None:
        """Tell what is overdue, or time what began after the timer was set. Reactor thread."""
        # All standstills since the last look: a batch that began after one gets too much, once.
        granted, self._granted = self._granted, self._stood_still()
        self._due += self._granted - granted
        if self._clock.seconds() >= self._due:
            self._due = inf
            self._overdue()
        else:
            self._alarm.set(self._due)
