"""How long a model may take to load, in whatever kind of worker."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IReactorTime

from batcher.core.alarm import Alarm


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
        self._alarm = Alarm(clock, lambda: exceeded(self._reason))

    def begin(self) -> None:
        """Time a load that begins now. Reactor thread."""
        self._alarm.set(self._clock.seconds() + self._seconds)

    def end(self) -> None:
        """Time nothing, and leave no timer behind: the load has ended. Reactor thread."""
        self._alarm.cancel()
