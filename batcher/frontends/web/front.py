"""What all connections of a server share.

Routes, limits, the one sweep over them, and how they are brought to an end.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.server import Site

from batcher.core.waiters import Waiters
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.web.buffers import Buffers
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.http11.heads import SharedHeads
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.outgoing import Outgoing
from batcher.serving.metrics import ServerMetrics

SWEEP = 0.5
"""Seconds between two looks at all connections; every limit on time is coarse by as much."""

DRAIN_GRACE = 0.25
"""Seconds that a kept connection without a request stays open when the server is stopped: a request
may be on its way. Those in which the loop stood still do not count: what came meanwhile has not
been read.
"""

PROBE = 0.01
"""Seconds between two looks while some client has ended its sending side and may be gone."""


LAST_WORDS = 0.5
"""Seconds for the last answers to go out when the server ends: an answer that waits longer waits
for its client.
"""


@mypyc_attr(allow_interpreted_subclasses=True)
class Front:
    """Makes connections and looks after them. Reactor thread."""

    def __init__(
        self,
        router: Router,
        site: Site,
        limits: Limits,
        clock: IReactorTime,
        metrics: ServerMetrics,
    ) -> None:
        """Wire the parts; `start` begins to look after connections."""
        self.router = router
        self.site = site
        self.limits = limits
        self.stopping = False
        self.stopping_since = 0.0
        self.seconds = clock.seconds
        self.heads = SharedHeads()
        self.buffers = Buffers(limits.buffers, clock, metrics)
        self.log = Logger()
        self._clock = clock
        self._metrics = metrics
        self._connections: set[Connection] = set()
        self._half_closed: set[Connection] = set()
        self._timer: IDelayedCall | None = None
        self._next_sweep = self._look_at = 0.0
        self._emptied = Waiters()
        self.outbox: list[Outgoing] | None = (
            None  # those that have something for the burst, None outside of one
        )

    def renew(self, router: Router, site: Site, limits: Limits) -> None:
        """Answer by other routes within other limits, also on connections that are open.

        What has begun ends as it began.
        """
        self.router, self.site, self.limits = router, site, limits
        self.buffers.most = limits.buffers
        self.heads.clear()
        for connection in self._connections:
            connection.renew()

    def burst(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function`, and send what its call made connections write in one go afterwards.

        The answers of a batch are sent without a pause between them: a client that was woken by the
        first finds the others there, and is not woken for each.
        """
        outbox = self.outbox = []
        try:
            function(*arguments)
        finally:
            self.outbox = None
            for outgoing in outbox:
                try:
                    outgoing.flush()
                except Exception:  # one client's transport must not silence the others
                    self.log.failure("an answer could not be sent")
                    outgoing.abort()

    def is_stopping(self) -> bool:
        """Return whether the server is being stopped."""
        return self.stopping

    def is_idle_too_long(self, since: float, served: bool, now: float) -> bool:
        """Return whether a client has had its time for its next request, or its first unless it was `served`."""
        if self.stopping:
            return now - max(since, self.stopping_since) > DRAIN_GRACE
        return now - since > (self.limits.idle_timeout if served else self.limits.header_timeout)

    def connection(self) -> Connection:
        """Return the protocol for a new client."""
        return Connection(self)

    def start(self) -> None:
        """Begin to look after connections."""
        self._next_sweep = self._clock.seconds() + SWEEP
        self._look_at = self._next_sweep
        self._timer = self._clock.callLater(SWEEP, self._look)

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; return whether there is room for it."""
        self._connections.add(connection)
        self._metrics.connections = len(self._connections)
        return len(self._connections) <= self.limits.connections

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        self._half_closed.discard(connection)
        self.buffers.hold(connection, 0)
        self._metrics.connections = len(self._connections)
        self._tell_emptied()

    def watch(self, connection: Connection) -> None:
        """Look often at a connection whose client may be gone."""
        self._half_closed.add(connection)
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)

    def drain(self) -> Deferred[None]:
        """Let every connection end with the answers that are due on it.

        Fires when all are closed.
        """
        if not self.stopping:
            self.stopping = True
            self.stopping_since = self._clock.seconds()
        emptied = self._emptied.wait()
        if self._timer is not None and self._timer.active():
            self._look_at = self._clock.seconds() + PROBE
            self._timer.reset(PROBE)
        self._tell_emptied()
        return emptied

    def _tell_emptied(self) -> None:
        if not self._connections:
            self._emptied.release()

    def stop(self) -> Deferred[None]:
        """Close every connection that is left, behind what is written already.

        Fires when all are closed.

        Whoever does not read what is written within `LAST_WORDS` is cut off.
        """
        for connection in list(self._connections):
            connection.close()
        cut = self._clock.callLater(LAST_WORDS, self._cut_off)
        return self.drain().addCallback(self._stopped, cut)

    def _cut_off(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _stopped(self, _: None, cut: IDelayedCall) -> None:
        if cut.active():
            cut.cancel()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _look(self) -> None:
        now = self._clock.seconds()
        late = now - self._look_at
        if self.stopping and late > PROBE:
            self.stopping_since += late
        for connection in list(self._half_closed):
            connection.probe()
        if now >= self._next_sweep or self.stopping:
            self._next_sweep = now + SWEEP
            for connection in list(self._connections):
                connection.check(now)
        quick = self._half_closed or self.stopping
        wait = PROBE if quick else max(self._next_sweep - now, PROBE)
        self._look_at = now + wait
        self._timer = self._clock.callLater(wait, self._look)
