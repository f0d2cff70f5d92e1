"""How many models load at once.

A load needs more memory than what stays of it: the weights as they are read lie beside the weights
of the model. So at most `load_concurrency` loads run at once, of threads and of child processes
together, and the others wait for their turn. A restart of a child takes no turn: the memory was the
model's before, and requests wait. A load that waits for a compiler gives its turn up: its model
lies in the memory already, and compiling takes minutes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class LoadTurns:
    """Lets a few loads run at once; loads begin in the order in which they came."""

    def __init__(self, limit: int) -> None:
        """Let at most `limit` loads run at once. Reactor thread."""
        self._limit = limit
        self._running: set[LoadTurn] = set()
        self._waiting: deque[LoadTurn] = deque()
        self._afterwards: list[Callable[[], object]] = []

    def add(self, turn: LoadTurn) -> None:
        """Begin the load of `turn` as soon as its turn has come. Reactor thread."""
        self._waiting.append(turn)
        self._go_on()

    def remove(self, turn: LoadTurn) -> None:
        """Forget `turn`, whether its load waits or runs. Reactor thread."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        self._running.discard(turn)
        self._go_on()

    def set_limit(self, limit: int) -> None:
        """Let at most `limit` loads run at once, from now on. Reactor thread."""
        self._limit = limit
        self._go_on()

    def once_idle(self, do: Callable[[], object]) -> None:
        """Call `do` when no load runs or waits, which may be now. Reactor thread."""
        self._afterwards.append(do)
        self._go_on()

    def _go_on(self) -> None:
        """Begin as many of the loads that wait as may run now. Reactor thread."""
        while self._waiting and len(self._running) < self._limit:
            turn = self._waiting.popleft()
            self._running.add(turn)
            turn.begin()
        if not self._running:
            afterwards, self._afterwards = self._afterwards, []
            for do in afterwards:
                do()


class LoadTurn:
    """The turn of one worker's first load.

    Attributes:
        is_waiting: whether the load has still to begin.
    """

    def __init__(self, turns: LoadTurns) -> None:
        """Wait for no turn of `turns` yet. Reactor thread."""
        self._turns = turns
        self._begin: Callable[[], object] | None = None
        self.is_waiting = False

    def wait(self, begin: Callable[[], object]) -> None:
        """Have `begin` start the load, now or when others have ended. Reactor thread."""
        self._begin = begin
        self.is_waiting = True
        self._turns.add(self)

    def begin(self) -> None:
        """Begin the load: its turn has come. Reactor thread."""
        # Forgotten now: it holds a child, and with it memory that outlives the child.
        begin, self._begin = self._begin, None
        self.is_waiting = False
        assert begin is not None, "only what waits begins"
        begin()

    def end(self) -> None:
        """Let the next load begin: this one has ended, or is not wanted any more.

        Reactor thread.
        """
        self.is_waiting = False
        self._begin = None
        self._turns.remove(self)
