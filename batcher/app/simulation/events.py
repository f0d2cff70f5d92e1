"""Simulated time: events on a heap, run in the order of their times.

A million requests are some five million events, so an event is a tuple and costs about a
microsecond. Refused: `twisted.internet.task.Clock`, which sorts a list of all timers at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer


class Events:
    """Calls functions at simulated times; functions of one time in the order they were set.

    Attributes:
        now: the simulated time, in seconds.
    """

    def __init__(self) -> None:
        """Start at time 0 with nothing to do."""
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._number = count()

    def at(self, time: float, function: Callable[[Any], object], argument: Any = None) -> None:
        """Call `function` with `argument` at `time`, which has not passed."""
        heappush(self._heap, (time, next(self._number), function, argument))

    def run(self) -> None:
        """Run until nothing is left to do; time jumps from event to event."""
        heap = self._heap
        while heap:
            self.now, _, function, argument = heappop(heap)
            function(argument)


@implementer(IDelayedCall)
class Timer:
    """One timer, as Twisted's reactors give them."""

    def __init__(self, events: Events, delay: float, ring: Callable[[], object]) -> None:
        """Call `ring` after `delay` seconds, unless the timer is moved or cancelled."""
        self._events = events
        self._ring = ring
        self._state = "active"
        self.reset(delay)

    def getTime(self) -> float:
        """Return the time, in seconds, at which the timer rings."""
        return self._time

    def reset(self, delay: float) -> None:
        """Ring `delay` seconds from now instead."""
        self._check_active()
        self._time = self._events.now + delay
        # the event of the old time stays in the heap, and is known by its time
        self._events.at(self._time, self._due, self._time)

    def delay(self, seconds: float) -> None:
        """Ring `seconds` later than now set."""
        self.reset(self._time + seconds - self._events.now)

    def cancel(self) -> None:
        """Never ring."""
        self._check_active()
        self._state = "cancelled"

    def active(self) -> bool:
        """Return whether the timer will ring."""
        return self._state == "active"

    def _check_active(self) -> None:
        if self._state == "cancelled":
            raise AlreadyCancelled
        if self._state == "called":
            raise AlreadyCalled

    def _due(self, time: float) -> None:
        if time == self._time and self._state == "active":
            self._state = "called"
            self._ring()
