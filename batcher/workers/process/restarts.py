"""When a child that ended is started again, and when it is given up for dead, though it is still tried."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
"""Seconds between two tries: the first again is at once, then they double, so that a model that
cannot load costs little.
"""

LONG_LIFE = 10.0
"""Seconds after which a child that was given no batch is taken for sound."""

HOPELESS = 3
"""Lives in a row without a batch after which the worker is dead: the third time is no chance."""


class Restarts:
    """Counts lives that came to nothing."""

    def __init__(self, jitter: Callable[[float], float]) -> None:
        """Let `jitter` change delays, in seconds, so that many workers do not start at once."""
        self._jitter = jitter
        self._tries = 0
        self._failed = 0
        self._sound_at = inf

    @property
    def hopeless(self) -> bool:
        """Whether the last lives all came to nothing."""
        return self._failed >= HOPELESS

    def ready(self, now: float) -> None:
        """Note that the model was loaded at `now`, in seconds."""
        self._sound_at = now + LONG_LIFE

    def delivered(self) -> None:
        """Note that this life has run a batch."""
        self._sound_at = -inf

    def ended(self, now: float) -> None:
        """Note that this life ended at `now`."""
        if now >= self._sound_at:
            self._tries = self._failed = 0
        else:
            self._failed += 1
        self._sound_at = inf

    def delay(self) -> float:
        """Return how many seconds to wait before the next try."""
        tries, self._tries = self._tries, self._tries + 1
        return (
            self._jitter(min(FIRST_DELAY * 2.0 ** min(tries - 1, 30), LONGEST_DELAY))
            if tries
            else 0.0
        )
