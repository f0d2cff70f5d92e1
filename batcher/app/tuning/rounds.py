"""Rounds of real load on several settings, in turn.

A round sends the same load, at the same times, to each of them. Every second round goes backwards,
so that a machine that gets slower or faster favours nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple

from batcher.app.tuning.child_server import ChildServer
from batcher.app.tuning.sending import Measured, Sending, window
from batcher.app.tuning.time_box import Note, TimeBox
from batcher.app.tuning.user_load import UserLoad
from batcher.client.asynchronous import AsyncClient

LEAST_ROUNDS, MOST_ROUNDS = 3, 9
"""Rounds that are made at least, whatever the time; and as many as there is time for."""

LEAST_S, MOST_S = 0.5, 4.0
"""Seconds of one run: less says little about a 99th percentile; more rounds say more than longer
ones."""

PROBE_S = 1.0
"""Seconds of load that show what a request costs the server's loop, and the client."""

WANTED_REQUESTS, LEAST_REQUESTS = 500, 200
"""Requests that a run should have, and has whatever the time, if they come within `MOST_S`: five of
500 are slower than the 99th percentile. In half a second a model whose batches take 300 ms answers
one batch or two, which is a difference of a half."""

CONNECTIONS = 2048
"""Connections of the client at most. More requests than these at once wait for their turn, which
the server never sees; so few models are tuned for more."""


class Costs(NamedTuple):
    """What a request costs beside the model.

    Attributes:
        loop: seconds of the server's event loop; 0 where that is not known.
        client: seconds of the client in this process.
    """

    loop: float
    client: float


class Rounds:
    """Sends load to one server."""

    def __init__(
        self, server: ChildServer, user: UserLoad, inputs: Callable[[int], Any], box: TimeBox
    ) -> None:
        """Send requests of `inputs` as `user` says, within the time of `box`."""
        self._server = server
        self._user = user
        self._inputs = inputs
        self._box = box

    async def costs(self, model: str) -> Costs:
        """Return what a request to `model` costs, under the user's load."""
        before = self._server.loop_seconds
        found = await self._sent(model, window(self._user, PROBE_S), seed=0)
        loop = (self._server.loop_seconds - before) / max(found.requests, 1)
        return Costs(loop, found.client_cpu)

    async def compare(self, models: Sequence[str], rate: float, note: Note) -> list[list[Measured]]:
        """Return the rounds of each of `models`, of which `rate` requests/s are to be expected."""
        found: dict[str, list[Measured]] = {model: [] for model in models}
        seconds = window(self._user, run_seconds(self._box.left() / len(models), rate))
        for number in range(MOST_ROUNDS):
            if number >= LEAST_ROUNDS and self._box.left() < seconds * len(models):
                break
            note(f"real load, round {number + 1}")
            for model in models if number % 2 == 0 else models[::-1]:
                found[model].append(await self._sent(model, seconds, seed=number))
        return list(found.values())

    async def _sent(self, model: str, seconds: float, seed: int) -> Measured:
        address = self._server.address
        async with AsyncClient(address, timeout=inf, retries=0, connections=CONNECTIONS) as client:
            sending = Sending(client, model, self._user, self._inputs)
            return await sending.run(seconds, seed)


def run_seconds(left: float, rate: float) -> float:
    """Return the seconds of one run, where settings have `left` seconds each.

    A run has requests enough, and all the time there is, if that leaves enough rounds; and some
    requests whatever the time.
    """
    wanted = max(WANTED_REQUESTS / max(rate, 1.0), left / MOST_ROUNDS)
    least = max(LEAST_REQUESTS / max(rate, 1.0), LEAST_S)
    return min(max(min(wanted, left / LEAST_ROUNDS), least), MOST_S)
