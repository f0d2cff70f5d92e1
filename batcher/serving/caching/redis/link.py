"""A connection to a Redis that comes back by itself, and what may be under way on it.

Nobody waits for the connection: while it is not there, requests go on without it. Requests have it
made, at most once in `RETRY_S`, and an attempt that takes longer is given up.

What txredisapi returns is never handed out to be cancelled: its Deferred fires on, and nobody may
listen any more.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from batcher.config.redis_address import RedisAddress
from batcher.core.error_text import cut

RETRY_S: Final = 1.0
"""Seconds from one attempt to connect to the next."""

MAX_UNANSWERED_BYTES: Final = 8 << 20
"""Bytes of values that were sent to a Redis which has not said that it has them."""

MAX_WHY_CHARS: Final = 200


class Link(Protocol):
    """What the store asks of a connection. Reactor thread.

    Attributes:
        why: why the connection was refused last, in words.
    """

    why: str

    def want(self) -> bool:
        """Return whether Redis can be asked; if not, see to it that it can be later."""

    def get(self, key: bytes, most: int) -> Deferred[Any]:
        """Ask for the value of `key`, at most the first `most` bytes. Not to be cancelled."""

    def put(self, key: bytes, value: bytes, ttl_s: float) -> Deferred[Any] | None:
        """Send a value; None if too much is under way. Not to be cancelled."""

    def drop(self) -> None:
        """End the connection: what is under way fails; the next `want` begins anew."""

    def close(self) -> None:
        """End the connection for ever."""


class RedisLink:
    """A `Link` through txredisapi. Reactor thread.

    Raises ImportError at its making: the extra `redis` is not installed.
    """

    def __init__(
        self,
        address: RedisAddress,
        clock: IReactorTime,
        connect: Callable[[Any], Deferred[Any]],
    ) -> None:
        """Connect to `address` by `connect`, which takes a factory; nothing starts."""
        # Here, since most servers are installed without it, and it needs a reactor.
        from batcher.serving.caching.redis.protocol import RedisFactory

        self.why = ""
        self._password = address.password
        self._seconds, self._connect = clock.seconds, connect
        self._factory = RedisFactory(
            clock.callLater, address, self._ready, self._lost, self._refused
        )
        self._began = -inf
        self._closed = False
        self._attempt: Deferred[Any] | None = None
        self._fresh: Any = None
        """A connection that is not ready yet."""
        self._protocol: Any = None
        self._unanswered_bytes = 0

    def want(self) -> bool:
        """Return whether Redis can be asked; else begin to connect, where that is due."""
        if self._protocol is not None:
            return True
        now = self._seconds()
        if not self._closed and now >= self._began + RETRY_S:
            self._began = now
            self._give_up()
            attempt = maybeDeferred(self._connect, self._factory)
            if not attempt.called:
                self._attempt = attempt
            attempt.addCallbacks(self._connected, self._failed)
        return self._protocol is not None

    def get(self, key: bytes, most: int) -> Deferred[Any]:
        """Ask for the first `most` bytes of the value of `key`; no bytes where there is none."""
        # The range bounds what somebody else's value may bring.
        asked: Deferred[Any] = self._protocol.execute_command("GETRANGE", key, 0, most - 1)
        return asked

    def put(self, key: bytes, value: bytes, ttl_s: float) -> Deferred[Any] | None:
        """Send a value that Redis drops after `ttl_s` seconds."""
        nbytes = len(value)
        if self._unanswered_bytes + nbytes > MAX_UNANSWERED_BYTES or not self.want():
            return None
        self._unanswered_bytes += nbytes
        sent: Deferred[Any] = self._protocol.set(key, value, pexpire=max(round(ttl_s * 1e3), 1))
        return sent.addBoth(self._answered, nbytes)

    def drop(self) -> None:
        """End the connection: what is under way fails; the next `want` connects."""
        self._give_up()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.transport.abortConnection()

    def close(self) -> None:
        """End the connection for ever."""
        self._closed = True
        self.drop()

    def _give_up(self) -> None:
        """End what was begun and is not ready."""
        attempt, self._attempt = self._attempt, None
        fresh, self._fresh = self._fresh, None
        if attempt is not None:
            attempt.cancel()
        if fresh is not None:
            fresh.transport.abortConnection()

    def _connected(self, protocol: Any) -> None:
        self._attempt = None
        if protocol is not self._protocol:
            self._fresh = protocol
            if self._closed:
                self._give_up()

    def _ready(self, protocol: Any) -> None:
        self._fresh = None
        if not self._closed:
            self._protocol = protocol
            self.why = ""

    def _lost(self, protocol: Any) -> None:
        if self._protocol is protocol:
            self._protocol = None
        if self._fresh is protocol:
            self._fresh = None

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        self._refused(cut(failure.getErrorMessage(), MAX_WHY_CHARS))

    def _refused(self, why: str) -> None:
        # A Redis may repeat what it was sent.
        hidden = why if self._password is None else why.replace(self._password, "…")
        self.why = hidden[:MAX_WHY_CHARS]

    def _answered(self, result: Any, nbytes: int) -> Any:
        self._unanswered_bytes -= nbytes
        return result


def connector(address: RedisAddress, reactor: Any) -> Callable[[Any], Deferred[Any]]:
    """Return what connects a factory to `address` by the sockets of `reactor`. Reactor thread."""

    def connect(factory: Any) -> Deferred[Any]:
        endpoint: Any = HostnameEndpoint(reactor, address.host, address.port, timeout=RETRY_S)
        if address.has_tls:
            endpoint = wrapClientTLS(optionsForClientTLS(address.host), endpoint)
        connected: Deferred[Any] = endpoint.connect(factory)
        return connected

    return connect
