"""The event loop of the simulated server, and the cores that the loop and the clients need.

The loop works in turns, as the real loop does. A turn first calls what was set by `call_soon`, then
does the jobs that were ready when the turn began, one after the other. What becomes ready meanwhile
waits for the next turn.

    job                      costs the loop
    a request has come       half of `loop_cost`, then the request is queued
    a batch came back        nothing until the next batch is handed over, then half of `loop_cost`
                             for each answer, and each answer leaves as soon as it is written
    a timer has rung         nothing

So a batch of n requests that holds all clients makes a cycle of

    seconds of a cycle = wait + seconds of the batch + n * loop_cost

while the loop's work for clients whose requests wait overlaps the batch that runs.

A core does one thing at a time, in the order in which the things were asked for. With two cores the
loop has one to itself, and all clients together have the other; with one core they take turns. The
clients' work is `client_cost` a request, half before the request is sent and half when the answer
is there. The model's own use of cores is part of the measured seconds of its batches. Cores whose
machine has other work too are now faster, now slower: `pace` changes with every batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from batcher.app.simulation.events import Events, Timer

Job = tuple[float, Callable[[Any], object], Any]


class Core:
    """Does one thing at a time.

    Attributes:
        pace: factor by which all takes longer now.
    """

    def __init__(self, events: Events) -> None:
        """Start with nothing to do."""
        self.pace = 1.0
        self._events = events
        self._free_at = 0.0

    def take(self, seconds: float) -> float:
        """Work for `seconds` after all that was asked for before; return when that is done."""
        now = self._events.now
        self._free_at = (self._free_at if self._free_at > now else now) + seconds * self.pace
        return self._free_at


@implementer(IReactorTime)
class Loop:
    """The server's loop, and the clock of its scheduler."""

    def __init__(self, events: Events, core: Core) -> None:
        """Work on `core`."""
        self._events = events
        self._core = core
        self._busy_until = 0.0
        self._awake = False
        self._soon: list[Callable[[], object]] = []
        self._ready: deque[Job] = deque()
        self._turn: deque[Job] = deque()

    def seconds(self) -> float:
        """Return the simulated time, in seconds."""
        return self._events.now

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> Timer:
        """Call `callable` in the first turn after `delay` seconds."""
        return Timer(
            self._events, delay, lambda: self.post(0.0, lambda _: callable(*args, **kw), None)
        )

    def getDelayedCalls(self) -> list[Timer]:
        """Return nothing: nobody asks the simulated loop for its timers."""
        return []

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call `function` at the beginning of the next turn."""
        self._soon.append(function)
        self._wake()

    def post(self, cost: float, function: Callable[[Any], object], argument: Any) -> None:
        """Do a job in the next turn: `cost` seconds of work, then a call of `function`."""
        self._ready.append((cost, function, argument))
        self._wake()

    def spend(self, cost: float) -> float:
        """Add work of `cost` seconds to the job that is being done; return when that is done."""
        self._busy_until = self._core.take(cost)
        return self._busy_until

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._events.at(self._events.now, self._begin_turn)

    def _begin_turn(self, _: None) -> None:
        soon, self._soon = self._soon, []
        self._turn, self._ready = self._ready, self._turn
        for function in soon:
            function()
        self._go_on(None)

    def _go_on(self, _: None) -> None:
        """Do the jobs of the turn until one takes time."""
        events, turn = self._events, self._turn
        while turn:
            if self._busy_until > events.now:
                events.at(self._busy_until, self._go_on)
                return
            cost, function, argument = turn.popleft()
            if cost:
                events.at(self._core.take(cost), self._end_job, (function, argument))
                return
            function(argument)
        self._end_turn()

    def _end_job(self, job: tuple[Callable[[Any], object], Any]) -> None:
        function, argument = job
        function(argument)
        self._go_on(None)

    def _end_turn(self) -> None:
        self._awake = bool(self._soon or self._ready)
        if self._awake:
            # an event of its own, behind all that happens at the same time
            self._events.at(max(self._busy_until, self._events.now), self._begin_turn)
        elif self._busy_until > self._events.now:
            self._awake = True
            self._events.at(self._busy_until, self._begin_turn)
