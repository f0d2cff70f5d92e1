"""All connections of a server: the one sweep that looks after them, and how they are ended.

One timer looks at all connections every half second; no request has a timer of its own. While a
client may be gone, or the server is being stopped, the timer looks every 10 ms.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web.server import Site

from batcher.core.standstill import stood_still_of
from batcher.core.waiters import Waiters
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.listening.ending import LAST_ANSWERS_S
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.limits import Limits
from batcher.frontends.web.shared import Shared, TrackedConnection
from batcher.serving.metrics import ServerMetrics

SWEEP_INTERVAL_S = 0.5
"""Seconds between two looks at all connections; every limit on time is coarse by as much."""

PROBE_INTERVAL_S = 0.01
"""Seconds between two looks while a client has ended its sending side and may be gone."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Front(Shared):
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
        super().__init__(router, site, limits, clock, metrics)
        self._clock = clock
        self._metrics = metrics
        self._connections: set[TrackedConnection] = set()
        self._half_closed: set[TrackedConnection] = set()
        self._timer: IDelayedCall | None = None
        self._next_sweep = self._next_look = 0.0
        self._emptied = Waiters()
        self._stood_still = stood_still_of(clock)
        self._granted = self._stood_still()  # seconds of standstill that clients were given

    def renew(self, router: Router, site: Site, limits: Limits) -> None:
        """Answer by other routes within other limits, also on connections that are open.

        What has begun ends as it began.
        """
        self.router, self.site, self.limits = router, site, limits
        self.buffers.max_bytes = limits.buffers
        self.heads.clear()
        for connection in self._connections:
            connection.renew()

    def connection(self) -> Connection:
        """Return the protocol for a new client."""
        return Connection(self)

    def start(self) -> None:
        """Begin to look after connections."""
        self._next_sweep = self._clock.seconds() + SWEEP_INTERVAL_S
        self._next_look = self._next_sweep
        self._timer = self._clock.callLater(SWEEP_INTERVAL_S, self._look)

    def opened(self, connection: TrackedConnection) -> bool:
        """Note a new connection; return whether there is room for it."""
        self._connections.add(connection)
        self._metrics.connections = len(self._connections)
        return len(self._connections) <= self.limits.connections

    def lost(self, connection: TrackedConnection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        self._half_closed.discard(connection)
        self.buffers.hold(connection, 0)
        self._metrics.connections = len(self._connections)
        self._release_if_empty()

    def watch(self, connection: TrackedConnection) -> None:
        """Look often at a connection whose client may be gone."""
        self._half_closed.add(connection)
        if self._timer is not None and self._timer.active():
            self._timer.reset(0)

    def drain(self) -> Deferred[None]:
        """Let every connection end with the answers that are due on it.

        A request that still comes on a kept connection is answered, too. Fires when all are closed.
        """
        if not self.stopping:
            self.stopping = True
            self.stopping_since = self._clock.seconds()
            for connection in self._connections:
                connection.retire()
        emptied = self._emptied.wait()
        if self._timer is not None and self._timer.active():
            self._next_look = self._clock.seconds() + PROBE_INTERVAL_S
            self._timer.reset(PROBE_INTERVAL_S)
        self._release_if_empty()
        return emptied

    def _release_if_empty(self) -> None:
        if not self._connections:
            self._emptied.release()

    def stop(self) -> Deferred[None]:
        """Close every connection that is left, behind what is written already.

        Fires when all are closed. A client that does not read within `LAST_ANSWERS_S` is cut off.
        """
        for connection in list(self._connections):
            connection.close()
        cut = self._clock.callLater(LAST_ANSWERS_S, self._cut_off)
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
        late = now - self._next_look
        if self.stopping and late > PROBE_INTERVAL_S:
            self.stopping_since += late
        for connection in list(self._half_closed):
            connection.probe()
        if now >= self._next_sweep or self.stopping:
            self._next_sweep = now + SWEEP_INTERVAL_S
            granted, self._granted = self._granted, self._stood_still()
            for connection in list(self._connections):
                connection.check(now, self._granted - granted)
        quick = self._half_closed or self.stopping
        wait = PROBE_INTERVAL_S if quick else max(self._next_sweep - now, PROBE_INTERVAL_S)
        self._next_look = now + wait
        self._timer = self._clock.callLater(wait, self._look)
