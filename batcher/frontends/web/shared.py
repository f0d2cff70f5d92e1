"""What all connections of a server share: routes, limits, known heads, buffers, and the burst.

The front owns all of it and looks after the connections. A connection needs only this part of the
front, so the part stands below the connection and the front above it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from random import uniform

from mypy_extensions import mypyc_attr
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Site

from batcher.frontends.endpoints.routing import Router
from batcher.frontends.listening.ending import DRAIN_GRACE_S
from batcher.frontends.web.buffers import Buffers
from batcher.frontends.web.http11.heads import SharedHeads
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.turn_budget import TurnBudget
from batcher.serving.metrics import ServerMetrics

AGE_JITTER = 0.1
"""Part of `max_connection_age_s` by which the ages of connections differ, either way: connections
that were made together do not all end together. gRPC's library does the same.
"""


class BurstSender(ABC):
    """The sending side of a connection, as a burst sees it. Reactor thread."""

    @abstractmethod
    def flush(self) -> None:
        """Send what was gathered for the burst."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the client off."""


@mypyc_attr(allow_interpreted_subclasses=True)
class TrackedConnection(ABC):
    """A connection, as the front sees it. Reactor thread."""

    @abstractmethod
    def renew(self) -> None:
        """Hold the client to the limits that the front has now, and find routes anew."""

    @abstractmethod
    def retire(self) -> None:
        """Have the next answer that has nothing behind it be the last, and say so."""

    @abstractmethod
    def check(self, now: float, stood_still: float) -> None:
        """Close, refuse or cut off a client that takes too long.

        `stood_still` are the seconds since the last check in which the loop stood still, and so has
        not seen what the client did.
        """

    @abstractmethod
    def probe(self) -> None:
        """See whether a client that ended its sending side is gone altogether."""

    @abstractmethod
    def recount(self, now: float) -> None:
        """Count anew the bytes that the client has not read."""

    @abstractmethod
    def give_way(self) -> None:
        """Hold no bytes any more: others need the memory."""

    @abstractmethod
    def close(self) -> None:
        """End the connection with what is written already."""

    @abstractmethod
    def abort(self) -> None:
        """Cut the client off."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Shared(ABC):
    """What a connection asks of its front. Reactor thread.

    Attributes:
        router: finds routes and answers by them.
        site: where twisted.web looks for what Klein answers.
        limits: how much, and how slowly, a client may send.
        stopping: whether the server is being stopped.
        stopping_since: when that began, in seconds.
        seconds: the clock.
        heads: heads that clients send again and again.
        buffers: bytes that all connections together hold.
        turns: does what may take long, a part in each turn of the loop.
        outbox: connections that have something for the present burst; None outside of a burst.
    """

    def __init__(
        self,
        router: Router,
        site: Site,
        limits: Limits,
        clock: IReactorTime,
        metrics: ServerMetrics,
    ) -> None:
        """Store what is shared."""
        self.router = router
        self.site = site
        self.limits = limits
        self.stopping = False
        self.stopping_since = 0.0
        self.seconds = clock.seconds
        self.heads = SharedHeads()
        self.buffers = Buffers(limits.buffers, clock, metrics)
        self.turns = TurnBudget(clock)
        self.outbox: list[BurstSender] | None = None
        self._log = Logger()

    def burst(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function`, and send what its call made connections write in one go afterwards.

        The answers of a batch leave without a pause between them: a client that the first answer
        wakes finds the others there, and is not woken for each.
        """
        outbox = self.outbox = []
        try:
            function(*arguments)
        finally:
            self.outbox = None
            for sender in outbox:
                try:
                    sender.flush()
                except Exception:  # one client's transport must not silence the others
                    self._log.failure("an answer could not be sent")
                    sender.abort()

    def retires_at(self, made_at: float) -> float:
        """Return when a connection that was made at `made_at` is so old that it retires.

        It is infinity without a limit. The answer differs from call to call, by `AGE_JITTER`.
        """
        age = self.limits.connection_age
        return made_at + age * uniform(1 - AGE_JITTER, 1 + AGE_JITTER) if age else inf

    def is_idle_too_long(self, since: float, has_sent_request: bool, now: float) -> bool:
        """Return whether a client that waits `since` then has had its time for a request.

        `has_sent_request` says whether the client has sent a request before.
        """
        if self.stopping:
            return now - max(since, self.stopping_since) > DRAIN_GRACE_S
        limits = self.limits
        return now - since > (limits.idle_timeout if has_sent_request else limits.header_timeout)

    @abstractmethod
    def opened(self, connection: TrackedConnection) -> bool:
        """Note a new connection; return whether there is room for it."""

    @abstractmethod
    def lost(self, connection: TrackedConnection) -> None:
        """Forget a connection that is closed."""

    @abstractmethod
    def watch(self, connection: TrackedConnection) -> None:
        """Look often at a connection whose client may be gone."""
