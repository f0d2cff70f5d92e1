"""The spare child: it has imported what the model needs, and waits to take the place of another.

With a spare a restart takes as long as the model takes to load, without the start of an interpreter
and the import of a framework.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from batcher.core.alarm import Alarm
from batcher.workers.process.child_protocol import Child
from batcher.workers.process.restarts import Restarts


class SpareChild:
    """At most one child that waits for the order to load.

    A spare that ends is replaced, at once or after growing delays, as long as a spare is wanted.
    """

    def __init__(
        self,
        clock: IReactorTime,
        restarts: Restarts,
        make_child: Callable[[], Child],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Have no spare yet. Reactor thread."""
        self._clock = clock
        self._restarts = restarts
        self._make_child = make_child
        self._is_wanted = is_wanted
        self._next_start = Alarm(clock, self.prepare)
        self._child: Child | None = None
        self._quitting = False

    @property
    def child(self) -> Child | None:
        """The spare, None while there is none. Reactor thread."""
        return self._child

    def prepare(self) -> None:
        """Start a spare if one is wanted and there is none. Reactor thread."""
        if self._child is None and not self._quitting and self._is_wanted():
            self._child = self._started()
            self._restarts.loaded(self._clock.seconds())

    def take(self) -> Child:
        """Return the spare, which is one no longer, or a child that starts now. Reactor thread."""
        child, self._child = self._child or self._started(), None
        return child

    def ended(self) -> None:
        """Replace the spare, which has ended. Reactor thread."""
        self._child = None
        if not self._quitting:
            now = self._clock.seconds()
            self._restarts.ended(now)
            self._next_start.set(now + self._restarts.delay())

    def quit(self) -> None:
        """Kill the spare, and start no other. Reactor thread."""
        self._quitting = True
        self._next_start.end()
        if self._child is not None:
            self._child.kill()

    def _started(self) -> Child:
        """Return a child that makes itself ready for the order to load. Reactor thread."""
        child = self._make_child()
        child.start()
        return child
