"""The time that a tuning may take, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable

MEASURED, CHOSEN = 0.35, 0.5
"""Parts of the time after which measuring and choosing end; the rest is for real load."""

Note = Callable[[str], None]
"""Hears in words which step begins."""


class TimeBox:
    """So many seconds from now on, on a clock that never goes back."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        """Begin now."""
        self.total = seconds
        self.clock = clock
        self._began = clock()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.clock() - self._began

    def left(self, part: float = 1.0) -> float:
        """Return the seconds until this `part` of the time is over; 0 if it is."""
        return max(part * self.total - self.spent, 0.0)
