"""One timer that is only ever moved forward.

It rings at the earliest of the times that it was set to.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """Calls `ring` at the earliest time it was set to, once; then it waits to be set again.

    Reactor thread.
    """

    def __init__(self, clock: IReactorTime, ring: Callable[[], object]) -> None:
        """Keep time by `clock`; nothing is set."""
        self._clock = clock
        self._ring = ring
        self._timer: IDelayedCall | None = None
        self._time = inf

    def set(self, time: float) -> None:
        """Ring at `time`, in seconds, at the latest; infinity sets nothing."""
        if time >= self._time:
            return
        self._time = time
        delay = max(time - self._clock.seconds(), 0.0)
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._rung)
        else:
            self._timer.reset(delay)

    def cancel(self) -> None:
        """Do not ring."""
        self._time = inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        self._timer = None
        self._time = inf
        self._ring()
