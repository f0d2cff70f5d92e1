"""Values in a Redis, each asked for at most `WAIT_S`; a Redis that is not worth it is not asked.

    look -> connected, and the breaker closed? -> GETRANGE -> the value, in time   -> its bytes
         -> no: None, at no cost                           -> nothing within 5 ms  -> None

Whoever looks gets a Deferred of this file's, and may cancel that. The Deferred of txredisapi behind
it lives on until its reply has come, so each reply meets the command that it belongs to.

Late is what Redis has not answered in time, not what a loop with too much to do has read too late.
Where the loop was held up, the time of all looks begins anew, once, when their commands have left.
And a look has failed only after the loop has read its sockets.

When the breaker opens, the connection is ended, and all that was under way with it: what waits in
the sockets of a Redis that hangs takes no memory here, and the probe gets a new connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.core.alarm import Alarm
from batcher.core.error_text import cut
from batcher.serving.cache_metrics import RedisCounts
from batcher.serving.caching.redis.breaker import Ask, Breaker
from batcher.serving.caching.redis.link import Link

WAIT_S: Final = 0.005
"""Seconds that a request waits for Redis at most: in one building an answer takes some 0.3 ms."""

HELD_S: Final = 0.002
"""Seconds after which a timer that rings late shows that the loop was held up: a turn takes one."""

MAX_VALUE_BYTES: Final = 1 << 20
"""Bytes of a value: to send or to take one keeps the loop busy for half a millisecond."""

LOG_INTERVAL_S: Final = 60.0
"""Seconds between two lines that say what is wrong."""

_log = Logger()


class _Asked:
    """One value that was asked for.

    Attributes:
        deadline: when nobody waits any longer, in seconds on the clock.
        deferred: what the caller waits for; None if nobody waits any more.
        check: of a probe, what raises ValueError where the value is none; else None.
        has_ended: whether it is known how it ended.
        was_held: whether its time has begun anew.
    """

    __slots__ = ("check", "deadline", "deferred", "has_ended", "was_held")

    def __init__(self, deadline: float, check: Callable[[bytes], object] | None) -> None:
        """Begin without anybody who waits."""
        self.deadline = deadline
        self.check = check
        self.deferred: Deferred[bytes | None] | None = None
        self.has_ended = self.was_held = False


class RedisStore:
    """The values of one version of a model. Reactor thread."""

    def __init__(
        self, link: Link, clock: IReactorTime, counts: RedisCounts, title: str, place: str
    ) -> None:
        """Ask by `link`, count in `counts`; `title` and `place` are for the log."""
        self._link, self._clock, self._counts = link, clock, counts
        self._title, self._place = title, place
        self._breaker = Breaker()
        self._asked: deque[_Asked] = deque()
        self._alarm = Alarm(clock, self._ring)
        self._logged_at = -inf
        self._fault = ""

    def look(self, key: bytes, check: Callable[[bytes], object]) -> Deferred[bytes | None] | None:
        """Return what fires with what Redis has under `key`; None where it is not asked.

        That is no bytes where nothing is there, and None where there was no reply in time. Whoever
        finds that the bytes are no value calls `wrong`. May be cancelled. `check` raises ValueError
        for what is no value; it is asked where nobody waits for the bytes.
        """
        now = self._clock.seconds()
        ask = self._may_ask(now)
        if ask is not Ask.YES:
            self._counts.looks["away"] += 1
        if ask is Ask.NO:
            return None
        asked = _Asked(now + WAIT_S, check if ask is Ask.PROBE else None)
        waits: Deferred[bytes | None] | None = None
        if ask is Ask.YES:
            asked.deferred = waits = Deferred(partial(self._leave, asked))
        self._asked.append(asked)
        self._alarm.set(asked.deadline)
        reply = self._link.get(key, MAX_VALUE_BYTES + 1)
        reply.addCallbacks(self._replied, self._failed, (asked,), errbackArgs=(asked,))
        return waits

    def _may_ask(self, now: float) -> Ask:
        if self._link.want():
            return self._breaker.ask(now)
        if self._link.why:
            self._say(self._link.why)
        return Ask.NO

    def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Send a value, which nobody waits for."""
        sent = None if self._breaker.is_open else self._link.put(key, value, ttl_s)
        if sent is None:
            self._counts.writes["dropped"] += 1
        else:
            sent.addCallbacks(self._written, self._not_written)

    def wrong(self, why: str) -> None:
        """Hear that bytes which were found are no value."""
        self._counts.looks["wrong"] += 1
        self._fault = f"a value is {why}"
        self._report(False)

    def close(self) -> None:
        """Ask no more; who waits gets None."""
        self._alarm.cancel()
        self._link.close()
        for asked in tuple(self._asked):
            self._end(asked, None)
        self._asked.clear()

    def _replied(self, reply: Any, asked: _Asked) -> None:
        if asked.has_ended:
            return
        if not isinstance(reply, bytes):
            self._fault = "a reply is no value"
            self._not_good("failed", asked)
        elif asked.check is None:
            self._report(True)
            self._end(asked, reply)
        else:
            self._probed(asked, reply, asked.check)

    def _probed(self, asked: _Asked, reply: bytes, check: Callable[[bytes], object]) -> None:
        try:
            if reply:
                check(reply)
        except ValueError as err:
            self._fault = f"a value is {err}"
            self._not_good("wrong", asked)
            return
        asked.has_ended = True
        self._breaker.probed(True, self._clock.seconds())
        if self._logged_at > -inf:
            self._log("answers again")
            self._logged_at = -inf

    def _failed(self, failure: Failure, asked: _Asked) -> None:
        if not asked.has_ended:
            self._fault = cut(failure.getErrorMessage(), 200)
            self._not_good("failed", asked)

    def _not_good(self, outcome: str, asked: _Asked) -> None:
        """End `asked` without a value."""
        if asked.check is not None:
            asked.has_ended = True
            self._breaker.probed(False, self._clock.seconds())
            self._link.drop()
            self._say(self._fault)
            return
        self._counts.looks[outcome] += 1
        self._report(False)
        self._end(asked, None)

    def _report(self, good: bool) -> None:
        if self._breaker.is_open:
            return
        self._breaker.ended(good, self._clock.seconds())
        if self._breaker.is_open:
            self._say(self._fault)
            self._link.drop()

    def _end(self, asked: _Asked, value: bytes | None) -> None:
        asked.has_ended = True
        waits, asked.deferred = asked.deferred, None
        if waits is not None:
            waits.callback(value)

    def _leave(self, asked: _Asked, _: Deferred[bytes | None]) -> None:
        """Let go of a caller whose Deferred is being cancelled; the reply will still come."""
        asked.deferred = None

    def _ring(self) -> None:
        """End what is late, once the loop has read its sockets."""
        late_s = self._clock.seconds() - self._asked[0].deadline if self._asked else 0.0
        # uvloop runs what is due now before it looks at sockets, so twice is behind that.
        self._clock.callLater(0, self._clock.callLater, 0, self._expire, late_s > HELD_S)

    def _begin_anew(self, now: float) -> None:
        """Begin the time of all looks anew that were not held up before."""
        for asked in self._asked:
            if not asked.was_held:
                asked.was_held = True
                asked.deadline = now + WAIT_S

    def _expire(self, was_held: bool) -> None:
        """End what is late; first begin anew if the loop `was_held` up."""
        now = self._clock.seconds()
        if was_held:
            self._begin_anew(now)
        while self._asked and (self._asked[0].has_ended or self._asked[0].deadline <= now):
            asked = self._asked.popleft()
            if not asked.has_ended:
                self._fault = f"no reply within {WAIT_S * 1e3:g} ms"
                self._not_good("late", asked)
        if self._asked:
            self._alarm.set(self._asked[0].deadline)

    def _written(self, reply: Any) -> None:
        self._counts.writes["kept"] += 1

    def _not_written(self, failure: Failure) -> None:
        self._counts.writes["failed"] += 1

    def _say(self, why: str) -> None:
        """Log what is wrong, unless that was said just before."""
        now = self._clock.seconds()
        if now >= self._logged_at + LOG_INTERVAL_S:
            self._logged_at = now
            self._log(f"is not asked: {why}; answers are kept in this server alone")

    def _log(self, text: str) -> None:
        _log.warn(
            "model {title}: cache.store {place} {text}",
            title=self._title,
            place=self._place,
            text=text,
        )
