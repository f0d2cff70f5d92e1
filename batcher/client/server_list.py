"""Which of several servers gets a call, without any I/O.

For each server the client counts the calls that are not answered yet. Two servers are drawn at
random, by their weights. The call goes to the one with fewer such calls for its weight:

    load = outstanding / weight

Example: `a` has weight 2 and 6 calls, `b` has weight 1 and 4 calls. Loads are 3 and 4: `a` is next.

Refused alternatives: the least loaded of all servers, since clients that see the same loads would
all go to the same server; turns, since a slow server would get as many calls as a fast one.

| a server is | after | until |
|---|---|---|
| able | it is listed | |
| resting | it refused a call for some seconds | these are over, or `MAX_REST_S` |
| ejected | it had no connection, or lost or failed calls in a row | it answers: a call, a probe |
| unlisted | the list has left it out | its last call has ended: it is forgotten |

Calls go to able servers that have the model. Where there are none, calls go to any that is listed:
a client that has lost all its servers, or has lost the network for a moment, still tries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from itertools import accumulate
from math import inf
from random import random
from typing import Any, NamedTuple

from batcher.client.errors import (
    AnswerLost,
    ClientClosed,
    ClientFailure,
    DeadlineExceeded,
    InferenceFailed,
    NotConnected,
)
from batcher.client.listed_server import ListedServer

MAX_FAILURES = 3
"""Calls in a row that end without an answer, after which a server is ejected: one may be the fault
of the call.
"""

MAX_ERRORS = 10
"""Calls in a row that end with an error of the server's (500, 503 without `Retry-After`, and so on,
but no 504), after which it is ejected: it answers sooner than others, and so would get more calls
than they. Calls that are faulty themselves fail in every server, but seldom ten in a row.
"""

MAX_REST_S = 1.0
"""Longest rest of a server that refused a call: one of its models may be full, and others idle."""

FIRST_PROBE_S = 1.0
"""Seconds from the ejection of a server to the first probe: less than a process takes to start."""

MAX_PROBE_S = 10.0
"""Longest time between two probes, so that a server that is back does not stand idle."""

MAX_CHOICES = 256
"""Most models whose servers are kept chosen: names of models may come from anywhere."""

_LEAST_WEIGHT = 1e-9


class Upstream:
    """A server, and what the client knows of it.

    Attributes:
        server: the server as the list names it.
        calls: the connections to it, once there was a call.
        outstanding: calls that are not answered yet.
        failures: calls in a row that ended without an answer.
        errors: calls in a row that ended with an error of the server's.
        probes: probes since a call was answered last.
        probe_at: when the next probe is due; infinity for a server that is not ejected.
        rests_until: when the rest is over.
        is_listed: whether the list has it.
    """

    __slots__ = (
        "calls",
        "errors",
        "failures",
        "is_listed",
        "outstanding",
        "probe_at",
        "probes",
        "rests_until",
        "server",
    )

    def __init__(self, server: ListedServer) -> None:
        """Begin with a server of which nothing is known."""
        self.server = server
        self.calls: Any = None
        self.outstanding = 0
        self.failures = 0
        self.errors = 0
        self.probes = 0
        self.probe_at = inf
        self.rests_until = 0.0
        self.is_listed = True


class _Choice(NamedTuple):
    """Servers to draw from; `bounds` are the running sums of their weights."""

    upstreams: list[Upstream]
    bounds: list[float]


class ServerList:
    """The servers of one client. It has no lock: callers take turns."""

    def __init__(self, draw: Callable[[], float] = random) -> None:
        """Begin without servers; `draw` returns a random number from 0 to 1."""
        self._draw = draw
        self._upstreams: dict[str, Upstream] = {}
        self._ejected: list[Upstream] = []
        self._has_unlisted = False
        self._choices: dict[str, _Choice] = {}  # by model; empty once something has changed
        self._changes_at = 0.0  # when a rest ends, so that the choices are made anew

    @property
    def upstreams(self) -> Collection[Upstream]:
        """All servers, those that are unlisted and still have calls included."""
        return self._upstreams.values()

    def follow(self, servers: Iterable[ListedServer]) -> None:
        """Let `servers` be those that are listed."""
        wanted = {server.address: server for server in servers}
        for address, upstream in self._upstreams.items():
            upstream.is_listed = address in wanted
            self._has_unlisted = self._has_unlisted or not upstream.is_listed
        for address, server in wanted.items():
            if address in self._upstreams:
                self._upstreams[address].server = server
            else:
                self._upstreams[address] = Upstream(server)
        self._choices.clear()

    def take(self, model: str, tried: Collection[Upstream], now: float) -> Upstream | None:
        """Return the server of the next call, which is counted; None if none is listed.

        `tried` are the servers that this call has been to: another one is better.
        """
        if now >= self._changes_at or len(self._choices) > MAX_CHOICES:
            self._choices.clear()
        choice = self._choices.get(model)
        if choice is None:
            choice = self._choices[model] = self._choice(model, now)
        if tried:
            choice = _without(choice, tried)
        if not choice.upstreams:
            return None
        upstream = self._drawn(choice)
        upstream.outstanding += 1
        return upstream

    def has_other(self, model: str, tried: Collection[Upstream], now: float) -> bool:
        """Return whether there is an able server that a call has not been to."""
        return any(_is_able(each, model, now) and each not in tried for each in self.upstreams)

    def begin_anew(self) -> None:
        """Forget the calls of another process."""
        for upstream in self.upstreams:
            upstream.outstanding = 0

    def give_back(self, upstream: Upstream, failure: BaseException | None, now: float) -> None:
        """Count a call as ended, and learn from how it did; None for a result."""
        upstream.outstanding -= 1
        if isinstance(failure, NotConnected):
            self._eject(upstream, now)
        elif isinstance(failure, AnswerLost | DeadlineExceeded):
            upstream.failures += 1
            if upstream.failures >= MAX_FAILURES:
                self._eject(upstream, now)
        elif failure is None or (
            isinstance(failure, ClientFailure) and not isinstance(failure, ClientClosed)
        ):
            if isinstance(failure, InferenceFailed) and _is_of_server(failure):
                self._count_error(upstream, now)
                return
            upstream.probes = upstream.errors = 0
            self._answered(upstream)
            if isinstance(failure, InferenceFailed) and failure.status == 503:
                self._rest(upstream, failure.retry_after, now)

    def forget(self) -> list[Upstream]:
        """Return the unlisted servers that have no call any more; they are forgotten."""
        if not self._has_unlisted:
            return []
        unlisted = [each for each in self.upstreams if not each.is_listed]
        gone = [each for each in unlisted if not each.outstanding]
        for upstream in gone:
            del self._upstreams[upstream.server.address]
        self._ejected = [each for each in self._ejected if each not in gone]
        self._has_unlisted = len(gone) < len(unlisted)
        return gone

    def next_probe(self) -> Upstream | None:
        """Return the server whose probe is due first; None if none is ejected."""
        ejected = [each for each in self._ejected if each.is_listed]
        return min(ejected, key=lambda each: each.probe_at, default=None)

    def probed(self, upstream: Upstream, is_ready: bool, now: float) -> None:
        """Learn what a probe has found."""
        upstream.probes += 1  # also if it is ready: it may fail all calls still
        if is_ready:
            self._answered(upstream)
        elif upstream.probe_at < inf:  # no call was answered meanwhile
            upstream.probe_at = now + min(FIRST_PROBE_S * 2**upstream.probes, MAX_PROBE_S)

    def _eject(self, upstream: Upstream, now: float) -> None:
        if upstream.probe_at == inf:  # a call that fails puts off no probe
            upstream.probe_at = now + min(FIRST_PROBE_S * 2**upstream.probes, MAX_PROBE_S)
            self._ejected.append(upstream)
            self._choices.clear()

    def _count_error(self, upstream: Upstream, now: float) -> None:
        upstream.failures = 0
        upstream.errors += 1
        if upstream.errors >= MAX_ERRORS:
            upstream.errors = 0
            self._eject(upstream, now)

    def _answered(self, upstream: Upstream) -> None:
        upstream.failures = 0
        if upstream.probe_at < inf:
            upstream.probe_at = inf
            self._ejected.remove(upstream)
            self._choices.clear()

    def _rest(self, upstream: Upstream, retry_after: float | None, now: float) -> None:
        if retry_after is not None:
            upstream.rests_until = now + min(retry_after, MAX_REST_S)
            self._choices.clear()

    def _choice(self, model: str, now: float) -> _Choice:
        """Return what calls of `model` are drawn from, and note when that changes by itself."""
        listed = [each for each in self.upstreams if each.is_listed]
        rests = [each.rests_until for each in listed if each.rests_until > now]
        self._changes_at = min(rests, default=inf)
        having = [each for each in listed if _has(each, model)] or listed
        return _weighted([each for each in having if _is_able(each, "", now)] or having)

    def _drawn(self, choice: _Choice) -> Upstream:
        """Return the less loaded of two."""
        upstreams, count = choice.upstreams, len(choice.upstreams)
        if count == 1:
            return upstreams[0]
        first, second = self._index(choice.bounds), self._index(choice.bounds)
        if second == first:
            second = (first + 1 + int(self._draw() * (count - 1))) % count
        one, other = upstreams[first], upstreams[second]
        return other if _load(other) < _load(one) else one

    def _index(self, bounds: list[float]) -> int:
        return min(bisect_right(bounds, self._draw() * bounds[-1]), len(bounds) - 1)


def _has(upstream: Upstream, model: str) -> bool:
    models = upstream.server.models
    return not model or not models or model in models


def _is_able(upstream: Upstream, model: str, now: float) -> bool:
    return (
        upstream.is_listed
        and upstream.probe_at == inf
        and upstream.rests_until <= now
        and upstream.server.weight > 0
        and _has(upstream, model)
    )


def _is_of_server(failure: InferenceFailed) -> bool:
    """Return whether the server could not answer, for another reason than its load."""
    return failure.status >= 500 and failure.status != 504 and failure.retry_after is None


def _weight(upstream: Upstream) -> float:
    return max(upstream.server.weight, _LEAST_WEIGHT)


def _load(upstream: Upstream) -> float:
    return upstream.outstanding / _weight(upstream)


def _weighted(upstreams: list[Upstream]) -> _Choice:
    return _Choice(upstreams, list(accumulate(_weight(each) for each in upstreams)))


def _without(choice: _Choice, tried: Collection[Upstream]) -> _Choice:
    """Return `choice` without the servers that were tried; `choice` itself if that leaves none."""
    others = [each for each in choice.upstreams if each not in tried]
    return _weighted(others) if others else choice
