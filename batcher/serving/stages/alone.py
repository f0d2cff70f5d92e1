"""Requests of a model whose hooks leave something for each other run one at a time.

    preprocess    self.sizes = …           of request 1, and before postprocess of 2
    postprocess   … self.sizes             must not see those of request 2

So request 2 begins when request 1 is answered. Its batch has the rows of one request alone. A hook
of a request whose client has left meanwhile may still run, or wait for a thread: it is waited for,
or does not run any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.request import InferenceResponse
from batcher.errors import QueueFull
from batcher.workers.latest_turn import LatestTurn

Result = TypeVar("Result")
Start = Callable[[], Deferred[InferenceResponse]]


class _Waiting:
    """A request that waits for its turn, and then runs."""

    def __init__(self, start: Start, leave: Callable[[_Waiting], None]) -> None:
        self.start = start
        self.running: Deferred[InferenceResponse] | None = None
        self.answered: Deferred[InferenceResponse] = Deferred(lambda _: leave(self))


class Alone:
    """Runs requests in the order in which they come, one at a time. Reactor thread."""

    def __init__(self, most: int) -> None:
        """Let at most `most` requests wait."""
        self._most = most
        self._waiting: deque[_Waiting] = deque()
        self._is_busy = False
        self._is_going_on = False
        self._hooks = LatestTurn()

    def run(self, start: Start) -> Deferred[InferenceResponse]:
        """Return what `start` returns, called when all requests before are answered.

        Raises:
            QueueFull: too many requests wait.
            BatcherError: whatever `start` raises, if it is called at once.
        """
        if not self._is_busy:
            return self._begin(start)
        if len(self._waiting) >= self._most:
            raise QueueFull(f"expected at most {self._most} requests that wait; there is no room")
        waiting = _Waiting(start, self._leave)
        self._waiting.append(waiting)
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
        self._is_busy = False
        # Not from within itself: a thousand requests that fail at once would be as many calls deep.
        if not self._is_going_on:
            self._is_going_on = True
            try:
                self._go_on()
            finally:
                self._is_going_on = False
        return result

    def _go_on(self) -> None:
        while self._waiting and not self._is_busy:
            waiting = self._waiting.popleft()
            try:
                waiting.running = self._begin(waiting.start)
            except Exception:  # the request is refused at once
                waiting.answered.errback(Failure())
            else:
                waiting.running.chainDeferred(waiting.answered)

    def _leave(self, waiting: _Waiting) -> None:
        """Give up a request whose client has left."""
        if waiting.running is not None:
            waiting.running.cancel()
        else:
            self._waiting.remove(waiting)
