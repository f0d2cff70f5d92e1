"""Real load: requests to a server by its own client, at the times of the user's load.

    open loop        a request is sent at its time, however the ones before it fare
    closed loop      a client sends its next request when the answer to its last one is there

All requests come from one loop of this process, so its own processor time is part of what a
measurement on one machine shows; it is the same for all settings. A request counts from the moment
at which it is handed to the client. How late the loop itself was, tells `lag`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from math import inf, isinf
from time import monotonic, process_time
from typing import Any, NamedTuple, Protocol

import numpy as np

from batcher.app.simulation.clients import PAUSE_AFTER_REFUSAL_S
from batcher.app.simulation.loads import Arrival, ClosedLoad, OpenLoad
from batcher.app.tuning.user_load import UserLoad
from batcher.client.errors import ClientFailure

SETTLE_PART = 0.2
"""Part of a run, its first one, that does not count: the queue and the learned wait settle."""

LAST_ANSWERS_S = 2.0
"""Seconds that the last requests of a run may take; what is not answered then counts as lost."""


class Client(Protocol):
    """What sends one request."""

    async def infer(self, model: str, inputs: Any, *, timeout: float | None = None) -> Any:
        """Return the answer, or raise ClientFailure."""


class Measured(NamedTuple):
    """What a run has shown. Rates are rows/s, times are seconds.

    Requests count by when they were sent: those of an open loop are then the same ones in every run
    of one seed, whoever answers them.

    Attributes:
        answered: rows that were answered.
        in_time: rows that were answered within the deadline; all of them without one.
        mean: mean time from a request to its answer; infinity without an answer.
        p99: time that 99 of 100 answers do not exceed, likewise.
        lost: share of the requests that were refused or failed.
        requests: requests that ended, those at the beginning too.
        client_cpu: processor time of this process for one of these requests.
        lag: time by which 99 of 100 requests of open loops were sent late, at most.
    """

    answered: float
    in_time: float
    mean: float
    p99: float
    lost: float
    requests: int
    client_cpu: float
    lag: float


class Sending:
    """One run. The loop's thread."""

    def __init__(
        self, client: Client, model: str, load: UserLoad, inputs: Callable[[int], Any]
    ) -> None:
        """Send to `model`; nothing is sent yet. `inputs` gives the next request of so many rows."""
        self._client = client
        self._model = model
        self._user = load
        self._inputs = inputs
        self._ends: list[tuple[float, float, float, int]] = []
        self._lost: list[float] = []
        self._lags: list[float] = [0.0]
        self._requests: set[asyncio.Future[bool]] = set()
        self._sent = 0

    async def run(self, seconds: float, seed: int) -> Measured:
        """Send for so many `seconds`; the same `seed` sends at the same times."""
        random = np.random.default_rng(seed)
        began, worked = monotonic(), process_time()
        self._end = began + seconds
        self._counts = self._user.rows.whole(random)
        senders = [
            asyncio.ensure_future(each)
            for part in self._user.load
            for each in self._senders(part, began, random)
        ]
        await _ended(senders, seconds + LAST_ANSWERS_S)
        await _ended(self._requests, LAST_ANSWERS_S)
        self._lost += [began + seconds] * (self._sent - len(self._ends) - len(self._lost))
        return self._measured(began + SETTLE_PART * seconds, process_time() - worked)

    def _senders(
        self, part: OpenLoad | ClosedLoad, began: float, random: np.random.Generator
    ) -> list[Coroutine[Any, Any, None]]:
        if isinstance(part, OpenLoad):
            return [self._send_on_time(part.arrivals(0.0, random), began)]
        think = part.think.values(random)
        return [self._come_back(think) for _ in range(part.clients)]

    async def _send_on_time(self, arrivals: Iterator[Arrival], began: float) -> None:
        for arrival in arrivals:
            due = began + arrival.time
            if due >= self._end:
                return
            if (wait := due - monotonic()) > 0:
                await asyncio.sleep(wait)
            self._lags.append(max(monotonic() - due, 0.0))
            request = asyncio.ensure_future(self._ask(arrival))
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _come_back(self, think: Iterator[float]) -> None:
        """Be one client of a closed loop."""
        while monotonic() < self._end:
            is_answered = await self._ask(Arrival(0.0))
            pause = next(think)
            if not is_answered:
                pause = max(pause, PAUSE_AFTER_REFUSAL_S)
            if pause:
                await asyncio.sleep(pause)

    async def _ask(self, arrival: Arrival) -> bool:
        """Send one request; return whether it was answered."""
        count = arrival.rows or next(self._counts)
        inputs, began = self._inputs(count), monotonic()
        self._sent += 1
        try:
            await self._client.infer(self._model, inputs, timeout=arrival.allowed or inf)
        except ClientFailure:
            self._lost.append(began)
            return False
        allowed = self._user.deadline if arrival.allowed is None else arrival.allowed
        self._ends.append((began, monotonic() - began, inf if allowed is None else allowed, count))
        return True

    def _measured(self, begin: float, worked: float) -> Measured:
        """Return what the run has shown from `begin` on."""
        ends = np.array(self._ends or [(0.0, 0.0, 0.0, 0)], float)
        _, took, allowed, rows = ends[ends[:, 0] >= begin].T
        lost = sum(time >= begin for time in self._lost)
        seconds, times = self._end - begin, took
        return Measured(
            answered=float(rows.sum() / seconds),
            in_time=float(rows[took <= allowed].sum() / seconds),
            mean=float(times.mean()) if len(times) else inf,
            p99=float(np.percentile(times, 99)) if len(times) else inf,
            lost=lost / max(lost + len(times), 1),
            requests=self._sent,
            client_cpu=worked / max(self._sent, 1),
            lag=float(np.percentile(self._lags, 99)),
        )


async def _ended(tasks: Collection[asyncio.Future[Any]], seconds: float) -> None:
    """Wait for `tasks` so many seconds, and cancel what has not ended then; raise what failed."""
    if not tasks:
        return
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()


def window(load: UserLoad, seconds: float) -> float:
    """Return for how many of `seconds` the load lasts: a trace may end earlier."""
    ends = []
    for part in load.load:
        if isinstance(part, ClosedLoad) or part.total is None:
            return seconds
        last = None
        for last in part.arrivals(0.0, np.random.default_rng(0)):
            if last.time >= seconds:
                return seconds
        ends.append(last.time if last is not None and not isinf(last.time) else 0.0)
    return max(max(ends), 1e-3)
