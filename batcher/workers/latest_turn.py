"""Functions of the pool that run only while it is their turn, one at a time.

A client may leave while a function of its request runs, or waits for a thread. Then the next turn
begins: what runs is waited for, and what has not begun does not run any more.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from twisted.internet.defer import CancelledError

Result = TypeVar("Result")


class LatestTurn:
    """The turn that began last."""

    def __init__(self) -> None:
        """Begin with no turn."""
        self._turn = 0
        self._runs = Lock()

    def begin(self) -> None:
        """Begin the next turn. Reactor thread."""
        self._turn += 1

    def bound(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """Return `function` of the turn that runs now, for a thread of the pool. Reactor thread."""
        turn = self._turn

        def run() -> Result:
            with self._runs:
                if turn != self._turn:
                    raise CancelledError  # nobody waits for it
                return function()

        return run
