"""Requests of a model whose hooks leave something for each other run one at a time.

    preprocess    self.sizes = …           of request 1, and before postprocess of 2
    postprocess   … self.sizes             must not see those of request 2

So request 2 begins when request 1 is answered. Its batch has the rows of one request alone. A
request that waits for its turn is answered by its deadline, as any other.

Request 1 may be answered, or its client may have left, while its code still runs:

    a hook of it            waits for a thread         does not run any more
                            runs                       the hooks of request 2 wait for its end
    its batch               waits in the queue         does not run any more
                            runs                       request 2 begins at its end
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from batcher.core.alarm import Alarm
from batcher.core.request import InferenceResponse
from batcher.errors import DeadlineExceeded, QueueFull
from batcher.workers.latest_turn import LatestTurn

Result = TypeVar("Result")
Start = Callable[[], Deferred[InferenceResponse]]


class _Waiting:
    """A request that waits for its turn until `deadline`, in seconds, and then runs."""

    def __init__(self, start: Start, deadline: float, leave: Callable[[_Waiting], None]) -> None:
        self.start = start
        self.deadline = deadline
        self.running: Deferred[InferenceResponse] | None = None
        self.answered: Deferred[InferenceResponse] = Deferred(lambda _: leave(self))


class Alone:
    """Runs requests in the order in which they come, one at a time. Reactor thread."""

    def __init__(
        self, most: int, clock: IReactorTime, computed: Callable[[], Deferred[None]]
    ) -> None:
        """Let at most `most` requests wait.

        `computed` returns what fires once no batch of the model runs.
        """
        self._most = most
        self._computed = computed
        self._waiting: deque[_Waiting] = deque()
        self._is_busy = False
        self._is_going_on = False
        self._hooks = LatestTurn()
        self._seconds = clock.seconds
        self._alarm = Alarm(clock, self._expire)

    def run(self, start: Start, deadline: float) -> Deferred[InferenceResponse]:
        """Return what `start` returns, called when all requests before have ended.

        The Deferred fails with DeadlineExceeded if that is not before `deadline`, in seconds.

        Raises:
            QueueFull: too many requests wait.
            BatcherError: whatever `start` raises, if it is called at once.
        """
        if not self._is_busy:
            return self._begin(start)
        if len(self._waiting) >= self._most:
            raise QueueFull(f"expected at most {self._most} requests that wait; there is no room")
        waiting = _Waiting(start, deadline, self._leave)
        self._waiting.append(waiting)
        self._alarm.set(deadline)
        return waiting.answered

    def in_turn(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Return `function`, a hook of the request whose turn it is, for a thread of the pool."""
        return self._hooks.bound(function)

    def _begin(self, start: Start) -> Deferred[InferenceResponse]:
        self._is_busy = True
        self._hooks.begin()
        try:
            running = start()
        except BaseException:
            self._is_busy = False
            raise
        return running.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._computed().addCallback(self._free)
        return result

    def _free(self, _: None) -> None:
        """Have the next request begin."""
        self._is_busy = False
        # Not from within itself: a thousand requests that fail at once would be as many calls deep.
        if not self._is_going_on:
            self._is_going_on = True
            try:
                self._go_on()
            finally:
                self._is_going_on = False

    def _go_on(self) -> None:
        while self._waiting and not self._is_busy:
            waiting = self._waiting.popleft()
            try:
                waiting.running = self._begin(waiting.start)
            except Exception:  # the request is refused at once
                waiting.answered.errback(Failure())
            else:
                waiting.running.chainDeferred(waiting.answered)
        self._cancel_idle_alarm()

    def _leave(self, waiting: _Waiting) -> None:
        """Give up a request whose client has left."""
        if waiting.running is not None:
            waiting.running.cancel()
        else:
            with suppress(ValueError):  # it is late, and about to be answered
                self._waiting.remove(waiting)
            self._cancel_idle_alarm()

    def _expire(self) -> None:
        """Answer the requests whose deadline has passed while they waited."""
        now = self._seconds()
        late = [each for each in self._waiting if each.deadline <= now]
        self._waiting = deque([each for each in self._waiting if each.deadline > now])
        for each in self._waiting:
            self._alarm.set(each.deadline)
        for each in late:
            if not each.answered.called:  # an answer may have another client leave
                text = "the deadline passed while an earlier request ran: they run one at a time"
                each.answered.errback(DeadlineExceeded(text))

    def _cancel_idle_alarm(self) -> None:
        """Leave no timer behind if no request waits."""
        if not self._waiting:
            self._alarm.cancel()
