"""Equal requests that run at the same time: one row answers them all.

The first of them, the leader, has its row run. Those that come while it runs wait for its answer.

| what happens | what follows |
|---|---|
| the row is answered | all that wait are answered; nobody can write into what several share |
| the row fails | all fail, each with an error of its own |
| the row is too late for its deadline | those with a later deadline run a row of their own, once |
| one is cancelled, the leader or not, or is late | the others do not notice |
| nobody waits any more | the row is cancelled, unless it is to run to its end |
| a request of a higher level comes | it leads a row of its own, and those that come next join it |

So a client never waits behind the bulk row of another: there is at most one row for each level. One
that joins a row of a higher level than its own is answered earlier than it asked for.

Whoever waits keeps its parameters alone; the inputs of all are those of the leader. One timer
serves all deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.core.alarm import Alarm
from batcher.core.request import (
    InferenceRequest,
    InferenceResponse,
    Parameters,
    with_deadline,
    with_outputs,
)
from batcher.core.waiters import Waiters
from batcher.errors import BatcherError, DeadlineExceeded, PredictedLate
from batcher.serving.caching.packing import read_only
from batcher.serving.stages.stage import GoOn

_log = Logger()
_NOBODY: Final[list[Deferred[InferenceResponse]]] = []

_SPARE_TIMES: Final = 64
"""Times of requests that have ended which are kept besides as many as there are others."""


class Flight:
    """A row that runs, and who waits for its answer. Reactor thread.

    Attributes:
        key: what equal requests share.
        mark: what whoever asks for the row knows it by, besides.
        request: whose row it is; after its client has left, its inputs are still those of all.
        level: of the row.
        deadline: of the row, in seconds on the clock.
        go_on: runs a row.
        waiting: by its Deferred the deadline of each request; the leader's is the first.
        leader: the Deferred of the request whose row it is; None once that one has left.
        row: what the row's answer comes by.
    """

    __slots__ = (
        "deadline",
        "go_on",
        "key",
        "leader",
        "level",
        "mark",
        "request",
        "row",
        "waiting",
    )

    def __init__(
        self,
        key: bytes,
        mark: bytes,
        request: InferenceRequest,
        level: int,
        deadline: float,
        go_on: GoOn,
    ) -> None:
        """Begin without anybody."""
        self.key = key
        self.mark = mark
        self.request = request
        self.level = level
        self.deadline = deadline
        self.go_on = go_on
        self.waiting: dict[Deferred[InferenceResponse], float] = {}
        self.leader: Deferred[InferenceResponse] | None = None
        self.row: Deferred[InferenceResponse] | None = None


Answered = Callable[[Flight, InferenceResponse], InferenceResponse]
"""Hears of the answer of each row before those that wait do; returns what these get."""


class Flights:
    """The rows that run, by key. Reactor thread.

    Args:
        clock: the only time there is.
        deadline: gives the deadline of a request that comes now without one.
        default_level: level of a request without one.
        answered: hears of each answer.
        to_the_end: whether a row runs on when nobody waits any more; then all requests with its key
            join it, whatever their level.
        origin: where the answers of those that join are from.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deadline: Callable[[], float],
        default_level: int,
        answered: Answered,
        to_the_end: bool = False,
        origin: str = "joined",
    ) -> None:
        """Begin without rows."""
        self._seconds = clock.seconds
        self._deadline = deadline
        self._default_level = default_level
        self._answered = answered
        self._to_the_end, self._origin = to_the_end, origin
        self._leading: dict[bytes, Flight] = {}
        self._count = 0
        self._followers: dict[Deferred[InferenceResponse], Flight] = {}
        self._times: list[tuple[float, int, Deferred[InferenceResponse]]] = []
        self._number = 0
        self._alarm = Alarm(clock, self._expire)
        self._landed = Waiters()

    @property
    def count(self) -> int:
        """Rows that run."""
        return self._count

    def find(self, key: bytes, parameters: Parameters) -> Flight | None:
        """Return the row that a request with `key` and `parameters` may wait for."""
        found = self._leading.get(key)
        if found is None or self._to_the_end:
            return found
        return None if found.level > (parameters.priority or self._default_level) else found

    def lead(
        self, key: bytes, request: InferenceRequest, go_on: GoOn, mark: bytes = b""
    ) -> Deferred[InferenceResponse]:
        """Have `go_on` run a row for `request`, which others may join; raises as `go_on` does."""
        parameters = request.parameters
        deadline = self._deadline() if parameters.deadline is None else parameters.deadline
        level = parameters.priority or self._default_level
        row = go_on(request)
        flight = Flight(key, mark, request, level, deadline, go_on)
        flight.row = row
        own: Deferred[InferenceResponse] = Deferred(partial(self._leave, flight))
        flight.leader = own
        flight.waiting[own] = deadline
        self._leading[key] = flight
        self._count += 1
        arguments = (flight,)
        row.addCallbacks(self._answer, self._fail, arguments, errbackArgs=arguments)
        return own

    def join(self, flight: Flight, parameters: Parameters) -> Deferred[InferenceResponse]:
        """Wait for the answer of `flight`, which `find` has returned."""
        deadline = self._deadline() if parameters.deadline is None else parameters.deadline
        own: Deferred[InferenceResponse] = Deferred(partial(self._leave, flight))
        flight.waiting[own] = deadline
        self._followers[own] = flight
        self._number += 1
        heappush(self._times, (deadline, self._number, own))
        if len(self._times) > 2 * len(self._followers) + _SPARE_TIMES:
            self._times = [entry for entry in self._times if entry[2] in self._followers]
            heapify(self._times)
        self._alarm.set(deadline)
        return own

    def landed(self) -> Deferred[None]:
        """Fire when no row runs any more."""
        landed = self._landed.wait()
        self._release_if_landed()
        return landed

    def _answer(self, response: InferenceResponse, flight: Flight) -> None:
        try:
            response = self._answered(flight, response)
        except Exception as err:  # no memory for a copy: the answer is there, kept or not
            _log.warn("an answer was not kept: {error!r}", error=err)
        own, others = self._ended(flight)
        if own is not None and not others:  # mostly nobody has joined
            own.callback(response)
        elif others:
            shared = read_only(response.outputs)
            if own is not None:
                own.callback(with_outputs(response, shared, response.origin))
            joined = with_outputs(response, shared, self._origin)
            for each in others:
                if not each.called:
                    each.callback(joined)
        self._release_if_landed()

    def _fail(self, failure: Failure, flight: Flight) -> None:
        if failure.check(DeadlineExceeded, PredictedLate) and self._run_again(failure, flight):
            return
        own, others = self._ended(flight)
        # Before the first of them has it: whoever answers may change its error.
        failures = [_own_failure(failure) for _ in others]
        if own is not None:
            own.errback(failure)
        for each, theirs in zip(others, failures, strict=True):
            if not each.called:
                each.errback(theirs)
        self._release_if_landed()

    def _ended(
        self, flight: Flight
    ) -> tuple[Deferred[InferenceResponse] | None, list[Deferred[InferenceResponse]]]:
        """Take `flight` off; return the leader, if it waits, and the others."""
        if self._leading.get(flight.key) is flight:
            del self._leading[flight.key]
        self._count -= 1
        flight.row = None
        own, waiting = flight.leader, flight.waiting
        flight.leader, flight.waiting = None, {}
        if len(waiting) == 1 and own is not None:
            return own, _NOBODY
        others = [each for each in waiting if each is not own]
        for each in others:
            del self._followers[each]
        if not self._followers:
            self._times.clear()
            self._alarm.cancel()
        return own, others

    def _run_again(self, failure: Failure, flight: Flight) -> bool:
        """Run a row for those with a later deadline than the row that was late; fail the rest.

        Returns False, and does nothing, where nobody has a later one. Each row has a later deadline
        than the one before, so this ends.
        """
        latest = max(flight.waiting.values(), default=-inf)
        if latest <= flight.deadline:
            return False
        late = [each for each, until in flight.waiting.items() if until <= flight.deadline]
        for each in late:
            self._forget(flight, each)
        # A request under a key that names no deadline has that of its model.
        until = None if latest == inf and self._to_the_end else latest
        flight.request, flight.deadline = with_deadline(flight.request, until), latest
        flight.row = None
        for each in late:
            if not each.called:
                each.errback(_own_failure(failure))
        if flight.waiting:
            self._run(flight)
        else:  # the answers above have cancelled those that were left
            self._ended(flight)
            self._release_if_landed()
        return True

    def _run(self, flight: Flight) -> None:
        try:
            flight.row = flight.go_on(flight.request)
        except Exception:  # whatever it is, those that wait must hear of it
            self._fail(Failure(), flight)
            return
        flight.row.addCallbacks(self._answer, self._fail, (flight,), errbackArgs=(flight,))

    def _leave(self, flight: Flight, deferred: Deferred[InferenceResponse]) -> None:
        """Let go of a request whose Deferred is being cancelled."""
        if deferred in flight.waiting:
            self._forget(flight, deferred)
            self._cancel_if_alone(flight)

    def _forget(self, flight: Flight, deferred: Deferred[InferenceResponse]) -> None:
        del flight.waiting[deferred]
        if deferred is flight.leader:
            flight.leader = None
        else:
            del self._followers[deferred]

    def _cancel_if_alone(self, flight: Flight) -> None:
        """Cancel the row of `flight` if nobody waits for it."""
        if flight.waiting or self._to_the_end:
            return
        # From now on an equal request runs a row of its own: this one may never be answered.
        if self._leading.get(flight.key) is flight:
            del self._leading[flight.key]
        if flight.row is not None:
            flight.row.cancel()

    def _expire(self) -> None:
        """End the requests that wait for the row of another and are late."""
        now = self._seconds()
        while self._times and self._times[0][0] <= now:
            deferred = heappop(self._times)[2]
            flight = self._followers.get(deferred)
            if flight is not None:
                self._forget(flight, deferred)
                deferred.errback(
                    DeadlineExceeded("the deadline passed while an equal request ran or waited")
                )
                self._cancel_if_alone(flight)
        if self._times:
            self._alarm.set(self._times[0][0])

    def _release_if_landed(self) -> None:
        if not self._count and len(self._landed):
            self._landed.release()


def _own_failure(failure: Failure) -> Failure:
    """Return a failure that nobody else has: whoever answers may change its error."""
    error = failure.value
    if isinstance(error, BatcherError):
        # An author's class may take other arguments than Python copies it with.
        with suppress(Exception):
            return Failure(copy(error))
    return Failure(failure.value, failure.type, failure.tb)
