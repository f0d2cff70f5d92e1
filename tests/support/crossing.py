"""The loop's side of the thread line, for tests that start real threads.

Calls wait in a queue until the test makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue
from threading import get_ident
from time import monotonic
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds after which a call that a thread owes is taken for lost.

No test waits that long unless it fails.
"""


def no_more_threads(*arguments: Any) -> None:
    """Stand for `threading._start_new_thread` where the system has no more."""
    raise RuntimeError("can't start new thread")


class Loop:
    """Stands for the reactor: `call_from_thread` puts a call here, `step` makes it.

    Attributes:
        clock: the only time there is.
        thread: the ident of the thread that makes the calls.
    """

    def __init__(self) -> None:
        """Start with nothing to call."""
        self.clock = Clock()
        self.thread = get_ident()
        self._calls: Queue[tuple[Any, tuple[Any, ...]]] = Queue()

    def call_from_thread(self, function: Any, *arguments: Any) -> None:
        """Have `function` called by the next `step`. Any thread."""
        self._calls.put((function, arguments))

    def step(self) -> None:
        """Wait for one call, make it, and let the clock's turn pass."""
        function, arguments = self._calls.get(timeout=PATIENCE)
        function(*arguments)
        self.clock.advance(0)

    def run_until(self, happened: Callable[[], bool]) -> None:
        """Make calls until `happened` is true, which a thread may bring about between two calls."""
        deadline = monotonic() + PATIENCE
        while not happened():
            assert monotonic() < deadline
            with suppress(Empty):
                function, arguments = self._calls.get(timeout=0.01)
                function(*arguments)
                self.clock.advance(0)

    def wait_for(self, deferred: Deferred[Result]) -> Result | Failure:
        """Make calls until `deferred` has fired; return its result or its failure."""
        fired: list[Result | Failure] = []
        deferred.addBoth(fired.append)
        self.clock.advance(0)
        while not fired:
            self.step()
        return fired[0]

    def error_of(self, deferred: Deferred[Any]) -> BaseException:
        """Make calls until `deferred` has failed; return its exception."""
        result = self.wait_for(deferred)
        assert isinstance(result, Failure), f"expected a failure; got {result!r}"
        assert result.value is not None
        return result.value
