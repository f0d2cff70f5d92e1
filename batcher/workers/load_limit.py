"""How long a model may take to load, in whatever kind of worker."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from batcher.core.alarm import Alarm
from batcher.core.standstill import stood_still_of


class LoadLimit:
    """Calls `exceeded` with the reason, in words, once a load has taken `seconds`."""

    def __init__(
        self, clock: IReactorTime, title: str, seconds: float, exceeded: Callable[[str], object]
    ) -> None:
        """Limit the loads of the model `title`, one at a time; 0 seconds limit nothing.

        Reactor thread.
        """
        self._clock = clock
        self._seconds = seconds or inf
        self._reason = (
            f"{title}: expected the model to be loaded within {seconds:g} s (`load_timeout_s`); it "
            "is not"
        )
        self._exceeded = exceeded
        self._alarm = Alarm(clock, self._rung)
        self._due = inf
        self._stood_still = stood_still_of(clock)
        self._granted = 0.0

    def begin(self) -> None:
        """Time a load that begins now. Reactor thread."""
        self._granted = self._stood_still()
        self._due = self._clock.seconds() + self._seconds
        self._alarm.set(self._due)

    def _rung(self) -> None:
        """Give up the load, unless the process stood still meanwhile. Reactor thread."""
        granted, self._granted = self._granted, self._stood_still()
        self._due += self._granted - granted
        if self._clock.seconds() >= self._due:
            self._exceeded(self._reason)
        else:
            self._alarm.set(self._due)

    def end(self) -> None:
        """Time nothing, and leave no timer behind: the load has ended. Reactor thread."""
        self._alarm.cancel()

    def stop(self) -> None:
        """Time nothing any more, and let go of `exceeded`. Reactor thread."""
        self._alarm.end()
        self._exceeded = lambda reason: None
