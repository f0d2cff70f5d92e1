"""How long clients may keep one turn of the loop.

A client may send much in one piece: thousands of pipelined requests, chunks of one byte, requests
for pages that take milliseconds. Each is read and answered at a bounded speed, but together they
would hold up everybody else for seconds. So such work is done as long as the turn has time for it,
and what is left waits for a later turn. In between, the loop hears all other clients.

Of the connections whose work waits, the next is the one that has used the least time since anything
began to wait. So one client's thousand pages do not delay the single page of another. A connection
that begins later counts as if it had had its share of that time. So a connection that sends for
long has its turns, however many new ones come.

Requests for inference that arrive one by one never come here: their work is bounded already, and to
look at the clock for each would cost too much.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

TURN_S = 0.002
"""Seconds of one turn for such work. A small request beside it waits a few times as long."""

MOST_FORMER = 64
"""Owners besides those whose work waits, about, of whom it is known what they have used."""

Work = Callable[[], object]


class TurnBudget:
    """Does work now while the turn has time, else in a later turn. Reactor thread."""

    def __init__(self, clock: IReactorTime) -> None:
        """Measure by `clock`; nothing waits."""
        self._clock = clock
        self._seconds = clock.seconds
        self._waiting: dict[object, deque[Work]] = {}
        self._owners: list[tuple[float, int, object]] = []  # a heap: used seconds, number, owner
        self._numbers = count()
        self._used: dict[object, float] = {}  # seconds of each owner, since something waits
        self._share = 0.0  # seconds that a new owner counts as having used
        self._spent = 0.0  # seconds of the present turn
        self._working = False
        self._timer: IDelayedCall | None = None
        self._log = Logger()

    def run(self, owner: object, work: Work) -> None:
        """Do `work` of `owner` now if the turn has time and nothing waits, else later."""
        if self._working or self._waiting or self._spent >= TURN_S:
            self.later(owner, work)
        else:
            self._do(owner, work)
            if self._spent >= TURN_S:
                self._wake()
            elif not self._waiting:
                self._begin_anew()

    def later(self, owner: object, work: Work) -> None:
        """Do `work` of `owner` in a later turn, behind all that waits for this owner."""
        works = self._waiting.get(owner)
        if works is None:
            self._waiting[owner] = deque((work,))
            self._used[owner] = max(self._used.get(owner, 0.0), self._share)
            self._enter(owner)
        else:
            works.append(work)
        self._wake()

    def _enter(self, owner: object) -> None:
        heappush(self._owners, (self._used[owner], next(self._numbers), owner))

    def _do(self, owner: object, work: Work) -> None:
        began, self._working = self._seconds(), True
        try:
            work()
        except Exception:  # one client's work must not keep that of others from being done
            self._log.failure("a request could not be worked on")
        self._working = False
        spent = self._seconds() - began
        self._spent += spent
        self._used[owner] = self._used.get(owner, self._share) + spent
        # One more than those that wait: the owner that comes next.
        self._share += spent / (len(self._waiting) + 1)

    def _wake(self) -> None:
        """See to it that there is a next turn."""
        if self._timer is None:
            self._timer = self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._timer = None
        self._spent = 0.0
        while self._owners and self._spent < TURN_S:
            used, _, owner = heappop(self._owners)
            self._share = max(self._share, used)
            works = self._waiting[owner]
            self._do(owner, works.popleft())
            if works:
                self._enter(owner)
            else:
                del self._waiting[owner]
        if not self._owners:
            self._begin_anew()
            return
        self._wake()
        if len(self._used) > 2 * len(self._waiting) + MOST_FORMER:
            # Something may wait for hours, and connections come and go meanwhile.
            known = self._used.items()
            self._used = {
                owner: used for owner, used in known if used > self._share or owner in self._waiting
            }

    def _begin_anew(self) -> None:
        """Forget what each owner has used: nothing waits."""
        self._used.clear()
        self._share = 0.0
