"""When a child that ended is started again, and when its worker counts as dead.

A child is sound once it has delivered a batch, or `SOUND_AFTER_S` seconds after its model was
loaded. The n-th restart since a child was sound waits

    delay(1) = 0,  delay(n) = min(FIRST_DELAY_S * 2 ** (n - 2), MAX_DELAY_S)

seconds, that is 0, 0.1, 0.2, 0.4 and so on up to 30, each changed by a jitter. After
`FAILURES_UNTIL_DEAD` children in a row that were not sound the worker counts as dead, though
restarts go on.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
"""Seconds between two starts: the first restart is at once, then delays double, so that a model
that cannot load costs little.
"""

SOUND_AFTER_S = 10.0
"""Seconds after which a child that was handed no batch counts as sound."""

FAILURES_UNTIL_DEAD = 3
"""Failures in a row after which the worker counts as dead: three in a row are no chance."""


class Restarts:
    """Counts the children in a row that were not sound."""

    def __init__(self, jitter: Callable[[float], float]) -> None:
        """Let `jitter` change delays, in seconds: many workers shall not start at once.

        Reactor thread.
        """
        self._jitter = jitter
        self._restarts = 0
        self._failures = 0
        self._sound_at = inf

    @property
    def counts_as_dead(self) -> bool:
        """Whether none of the last children was sound. Reactor thread."""
        return self._failures >= FAILURES_UNTIL_DEAD

    def loaded(self, now: float) -> None:
        """Note that the child has loaded its model at `now`, in seconds. Reactor thread."""
        self._sound_at = now + SOUND_AFTER_S

    def delivered(self) -> None:
        """Note that the child has run a batch. Reactor thread."""
        self._sound_at = -inf

    def ended(self, now: float) -> None:
        """Note that the child ended at `now`, in seconds. Reactor thread."""
        if now >= self._sound_at:
            self._restarts = self._failures = 0
        else:
            self._failures += 1
        self._sound_at = inf

    def delay(self) -> float:
        """Return the seconds to wait before the restart that comes next. Reactor thread."""
        restarts, self._restarts = self._restarts, self._restarts + 1
        if not restarts:
            return 0.0
        # The exponent is bounded: a float overflows after some thousand restarts.
        return self._jitter(min(FIRST_DELAY_S * 2.0 ** min(restarts - 1, 30), MAX_DELAY_S))
