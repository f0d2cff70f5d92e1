"""One timer for many times: the alarm rings at the earliest time that was set.

A scheduler learns of a new deadline with every request and cares for the earliest one alone. One
timer of the reactor, moved only when an earlier time comes, costs less than one timer a request.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """Calls `ring` once, at the earliest time that was set. After that no time is set any more.

    `ring` may set the next time. Reactor thread.
    """

    def __init__(self, clock: IReactorTime, ring: Callable[[], object]) -> None:
        """Keep time by `clock`; no time is set yet."""
        self._clock = clock
        self._ring: Callable[[], object] | None = ring
        self._timer: IDelayedCall | None = None
        self._time = inf

    def set(self, time: float) -> None:
        """Ring at `time` at the latest, in seconds on the clock; infinity sets nothing."""
        if time >= self._time or self._ring is None:
            return
        self._time = time
        delay = max(time - self._clock.seconds(), 0.0)
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._on_timer)
        else:
            self._timer.reset(delay)

    def cancel(self) -> None:
        """Forget the time that was set; nothing rings until the next `set`."""
        self._time = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Ring never more, and let go of `ring`, which may hold on to what has ended."""
        self.cancel()
        self._ring = None

    def _on_timer(self) -> None:
        # Before `ring`, which may call `set`.
        self._timer = None
        self._time = inf
        if self._ring is not None:
            self._ring()
