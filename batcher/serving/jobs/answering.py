"""Rows of a portion as requests, until each row has an answer or an error of its own.

    a request fails                                     what follows
    the server is full, or the model is started again   the same request, after a while
    the model or the input is at fault                  its halves, one after the other
    ... and it was one row alone                        the row has failed
    anything else                                       the job fails, and can go on later

Halves run one after the other, so that the batches of a job are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.core.portions import Answer, Group
from batcher.core.request import InferenceResponse
from batcher.core.spec import Array
from batcher.errors import (
    BatcherError,
    DecodingError,
    DeviceLost,
    Draining,
    InvalidInput,
    ModelError,
    TooLarge,
    Unavailable,
    WorkerLost,
)

Infer = Callable[[Mapping[str, Array]], Deferred[InferenceResponse]]
"""Answers one request."""

MAX_LOST_WORKERS = 3
"""Workers that may end under one request before the request counts as what ends them."""

RETRY_S = 0.1
"""Seconds before the first further attempt; twice as many before each one behind that."""

MAX_RETRY_S = 10.0
"""Most seconds before another attempt."""

_OF_THE_ROWS = (ModelError, InvalidInput, DecodingError, TooLarge)


class Outcome(NamedTuple):
    """What became of the rows of a group.

    Attributes:
        answers: what the model gave.
        errors: rows without an answer, each with the reason.
    """

    answers: list[Answer]
    errors: dict[int, BatcherError]


class Answering:
    """Sends groups of rows. Reactor thread."""

    def __init__(self, infer: Infer, clock: IReactorTime, patience: float = inf) -> None:
        """Send requests by `infer`, which may refuse one for `patience` seconds."""
        self._infer = infer
        self._clock = clock
        self._patience = patience

    def answer(self, group: Group) -> Deferred[Outcome]:
        """Answer `group`; fails with what ends the job. May be cancelled."""
        return _Sent(self._infer, self._clock, self._patience, group).send()


class _Sent:
    """A group that is sent, again if need be."""

    def __init__(self, infer: Infer, clock: IReactorTime, patience: float, group: Group) -> None:
        self._infer = infer
        self._clock = clock
        self._patience = patience
        self._waited = 0.0
        self._group = group
        self._wait = RETRY_S
        self._lost = 0
        self._cancel: Callable[[], object]

    def send(self) -> Deferred[Outcome]:
        """Send the group; fails with what ends the job."""
        # One for all attempts: each inside of the one before would be a thousand in a night.
        ended: Deferred[Outcome] = Deferred(self._give_up)
        self._try(ended)
        return ended

    def _try(self, ended: Deferred[Outcome]) -> None:
        sent: Deferred[Any] = maybeDeferred(self._infer, self._group.inputs)
        self._cancel = sent.cancel
        tried = sent.addCallbacks(self._answered, self._failed)
        tried.addCallbacks(self._tried, ended.errback, (ended,))

    def _give_up(self, _: object) -> None:
        self._cancel()

    def _tried(self, outcome: Outcome | None, ended: Deferred[Outcome]) -> None:
        if outcome is not None:
            ended.callback(outcome)
            return
        self._cancel = self._clock.callLater(self._wait, self._try, ended).cancel
        self._waited += self._wait
        self._wait = min(2 * self._wait, MAX_RETRY_S)

    def _answered(self, response: InferenceResponse) -> Outcome:
        return Outcome([Answer(self._group.rows, response)], {})

    def _failed(self, failure: Failure) -> Any:
        """Return an Outcome or its Deferred; None: the same request is to be sent again."""
        error = failure.value
        if isinstance(error, WorkerLost):
            self._lost += 1
        is_of_the_rows = isinstance(error, _OF_THE_ROWS) or self._lost >= MAX_LOST_WORKERS
        if isinstance(error, Draining | DeviceLost | CancelledError):
            is_of_the_rows = False
        elif not is_of_the_rows and self._may_pass(error):
            return None
        if not is_of_the_rows:
            failure.raiseException()
        assert isinstance(error, BatcherError), "the rows are at fault"
        rows = self._group.rows
        return Outcome([], {rows[0]: error}) if len(rows) == 1 else self._halves()

    def _may_pass(self, error: object) -> bool:
        return isinstance(error, Unavailable) and self._waited < self._patience

    def _halves(self) -> Deferred[Outcome]:
        middle = len(self._group.rows) // 2
        first, second = self._group.part(0, middle), self._group.part(middle, len(self._group.rows))

        def then(outcome: Outcome) -> Deferred[Outcome]:
            return self._of(second).send().addCallback(lambda more: _both(outcome, more))

        return self._of(first).send().addCallback(then)

    def _of(self, part: Group) -> _Sent:
        return _Sent(self._infer, self._clock, self._patience, part)


def _both(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(one.answers + other.answers, one.errors | other.errors)
