"""How long the loop has stood still: a process that is frozen, a virtual machine that is suspended.

A frozen process (SIGSTOP, a control group that is frozen, a machine that moves) finds at its next
turn that much time has passed. A batch had no chance to end meanwhile, and what clients sent was
not read. So limits on the work of others do not count that time:

    limit in force = limit + seconds in which the loop stood still

| what | counts a standstill |
|---|---|
| `watchdog_s`, `load_timeout_s` | no: the worker stood still too |
| header, body, idle and write timeouts | no: what the client did has not been seen |
| a request's deadline | yes: its client has waited, and an answer after the deadline is late |

The loop ticks every `TICK_S`. Ticks that lie further apart than `STANDSTILL_S` were a standstill.
Refused: a clock that leaves such time out. Deadlines would move with it, and every look at the
clock, of which a request has several, would cost more.
"""

from __future__ import annotations

from collections.abc import Callable

TICK_S = 0.5
"""Seconds between two ticks."""

STANDSTILL_S = 1.0
"""Seconds between two ticks from which on the loop stood still: a busy loop is late by less."""


class Standstill:
    """Adds up the seconds in which the loop stood still. Reactor thread."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        """Look at the clock `seconds`; the loop runs now."""
        self._seconds = seconds
        self._seen = seconds()
        self._total = 0.0

    def stood_still(self) -> float:
        """Return the seconds of all standstills so far; to be called every `TICK_S` at least."""
        now = self._seconds()
        passed, self._seen = now - self._seen, now
        if passed > STANDSTILL_S:
            self._total += passed - TICK_S
        return self._total


def stood_still_of(clock: object) -> Callable[[], float]:
    """Return what tells how long the loop of the reactor `clock` has stood still, in seconds.

    The server's own reactor ticks. Other reactors do not, and there the answer is 0.
    """
    stood_still: Callable[[], float] = getattr(clock, "stood_still", lambda: 0.0)
    return stood_still
