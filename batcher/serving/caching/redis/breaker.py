"""Whether something that answers requests faster is worth the wait, or only costs time.

A Redis that hangs makes each request wait in vain. The breaker ends that after a second:

| state | asked | what ends the state |
|---|---|---|
| CLOSED | always | failures: see below; then OPEN |
| OPEN | never | `REST_S` have passed: PROBING with the next request |
| PROBING | one request, which does not wait | the answer: CLOSED if it is good, else OPEN |

The first failure begins a spell of `SPELL_S`. The breaker opens as soon as `MOST_FAILURES` in the
spell have failed, if these are half of all; or at the end of the spell, if these are a tenth of
all. So a few late answers among many change nothing, and what always fails costs no request
anything from a second after its first failure on, however few requests there are.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Final

SPELL_S: Final = 1.0
"""Seconds for which failures may cost requests time."""

REST_S: Final = 1.0
"""Seconds between two probes."""

MOST_FAILURES: Final = 10
"""Failures that open the breaker before the spell ends: enough that a pause of some milliseconds,
with a hundred requests a second, does not."""

LEAST_SHARE: Final = 10
"""One failure in so many is a fault; fewer are chance."""


class Ask(Enum):
    """Whether a request may ask."""

    YES = "yes"
    NO = "no"
    PROBE = "probe"
    """Yes, and without waiting for the answer."""


class Breaker:
    """Says whether to ask. Time is an argument. Any one thread.

    Attributes:
        is_open: whether requests go without asking.
    """

    def __init__(self) -> None:
        """Begin CLOSED."""
        self.is_open = False
        self._rests_until = -inf
        self._probing = False
        self._spell_began: float | None = None
        self._ended = self._failed = 0

    def ask(self, now: float) -> Ask:
        """Return whether a request at `now` may ask; each that may has its end reported."""
        if not self.is_open:
            self._judge(now)
        if not self.is_open:
            return Ask.YES
        if self._probing or now < self._rests_until:
            return Ask.NO
        self._probing = True
        return Ask.PROBE

    def ended(self, good: bool, now: float) -> None:
        """Hear how one has ended that was asked with YES; it may be long ago."""
        if self.is_open or (good and self._spell_began is None):
            return
        if self._spell_began is None:
            self._spell_began = now
        self._ended += 1
        self._failed += not good
        if self._failed >= MOST_FAILURES and 2 * self._failed >= self._ended:
            self._open(now + REST_S)

    def probed(self, good: bool, now: float) -> None:
        """Hear how the probe has ended."""
        self._probing = False
        if good:
            self.is_open = False
        else:
            self._rests_until = now + REST_S

    def _judge(self, now: float) -> None:
        """End the spell, if its time is over."""
        if self._spell_began is None or now < self._spell_began + SPELL_S:
            return
        if self._failed * LEAST_SHARE >= self._ended:
            self._open(now)
        self._forget()

    def _open(self, rests_until: float) -> None:
        self.is_open, self._rests_until = True, rests_until
        self._forget()

    def _forget(self) -> None:
        self._spell_began, self._ended, self._failed = None, 0, 0
