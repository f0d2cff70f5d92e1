"""Who sends the requests of a load: a schedule, or clients that await their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from batcher.app.simulation.events import Events
from batcher.app.simulation.loads import Arrival, ClosedLoad, Load

PAUSE_AFTER_REFUSAL_S = 0.01
"""Least seconds after which a client of a closed loop comes back that was refused. One that came
back at once would be refused for thousands of times within the batch that it waits for.
"""

Send = Callable[["Client | None", Arrival | None], bool]
"""Sends a request of a client or of a schedule; returns False once enough have been sent."""


class Sender(Protocol):
    """Whoever sends requests."""

    def begin(self) -> None:
        """Send the first request, or set the time for it."""


class Client:
    """One client of a closed loop."""

    def __init__(
        self, events: Events, send: Send, start: float, think: Iterator[float], end: float
    ) -> None:
        """Send the first request at `start`, and none from `end` on.

        `think` gives the seconds before the next ones.
        """
        self._events = events
        self._send = send
        self._start = start
        self._think = think
        self._end = end

    def begin(self) -> None:
        """Set the time of the first request."""
        self._events.at(self._start, self._go)

    def again(self, time: float, refused: bool) -> None:
        """Send the next request some time after the end of the last one, which was at `time`."""
        pause = next(self._think)
        if refused:
            pause = max(pause, PAUSE_AFTER_REFUSAL_S)
        if time + pause < self._end:
            self._events.at(time + pause, self._go)

    def _go(self, _: None) -> None:
        self._send(self, None)


class Schedule:
    """Sends requests at their times."""

    def __init__(
        self,
        events: Events,
        send: Send,
        arrivals: Iterator[Arrival],
    ) -> None:
        """Send `arrivals`."""
        self._events = events
        self._send = send
        self._arrivals = arrivals

    def begin(self) -> None:
        """Set the time of the first request."""
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._events.at(arrival.time, self._go, arrival)

    def _go(self, arrival: Arrival) -> None:
        if self._send(None, arrival):
            self.begin()


class Surroundings(NamedTuple):
    """What senders need of a run.

    Attributes:
        events: simulated time.
        send: sends one request.
        capacity: requests/s of all devices.
        stagger: seconds within which clients of closed loops begin, at random.
        seed: of the times.
    """

    events: Events
    send: Send
    capacity: float
    stagger: float
    seed: int


def senders(load: Load, around: Surroundings) -> list[Sender]:
    """Return all senders of `load`."""
    found: list[Sender] = []
    for number, part in enumerate(load):
        random = np.random.default_rng((around.seed, number))
        if isinstance(part, ClosedLoad):
            think = part.think.values(random)
            starts = part.begin + random.uniform(0.0, around.stagger, part.clients)
            found += [
                Client(around.events, around.send, start, think, part.end)
                for start in starts.tolist()
            ]
        else:
            arrivals = part.arrivals(around.capacity, random)
            found.append(Schedule(around.events, around.send, arrivals))
    return found
