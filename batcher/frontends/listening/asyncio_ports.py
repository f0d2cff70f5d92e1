"""Ports that an asyncio loop watches.

In one turn of the loop up to `ACCEPTS_PER_TURN` connections are taken. uvloop's own server takes
one connection a turn: of 200 clients that connect together under full load, the last client would
wait for 200 turns.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.frontends.listening.sockets import (
    ACCEPT_PAUSE_S,
    ACCEPTS_PER_TURN,
    close_listeners,
    take_all_and_close,
    take_connections,
)
from batcher.frontends.listening.tls import HTTP_1, Tls, tls_context

_log = Logger()

HANDSHAKE_WAIT_S = 2.0
"""Seconds that connections have to finish their TLS handshake when the port closes: a client that
is silent for so long asks for nothing.
"""

TLS_SHUTDOWN_TIMEOUT_S = 1e6
"""Seconds after which uvloop cuts off a TLS client that has not closed its side. So long that
uvloop never does: the limits of the connection end such a client, and the connection knows whether
an answer is still on the way.
"""


class ConnectionLimits(Protocol):
    """Bounds of connections.

    Attributes:
        connections: most connections at a time.
        header_timeout: seconds that a client has until the server knows what the client wants.
    """

    @property
    def connections(self) -> int: ...  # noqa: D102
    @property
    def header_timeout(self) -> float: ...  # noqa: D102


class LoopPorts:
    """Sockets that listen, and the connections that are being taken from them. Reactor thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: Callable[[], Any],
        limits: Callable[[], ConnectionLimits],
        listeners: list[socket.socket],
        tls: Tls | None,
        protocol: str = HTTP_1,
    ) -> None:
        """Store the arguments; `open` begins.

        Args:
            loop: watches the sockets.
            connection: makes the protocol of a new connection.
            limits: returns the limits of today.
            listeners: sockets that listen; they are the ports' own from now on.
            tls: the certificate; None for connections without TLS.
            protocol: what the connections speak, by its name in ALPN.
        """
        self._loop, self._connection, self._limits = loop, connection, limits
        self._listeners = listeners
        self._protocol = protocol
        self._context = tls_context(tls, protocol) if tls is not None else None
        self._taking: set[asyncio.Task[Any]] = set()
        self._closed = False

    def open(self) -> None:
        """Begin to take connections."""
        for listener in self._listeners:
            self._watch(listener)

    def close(self) -> Deferred[Any]:
        """Take no more; fires when the connections that the kernel had completed are taken."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            for connection in take_all_and_close(listener.dup()):
                self._take(connection)
        close_listeners(self._listeners)
        if not self._taking:
            return succeed(None)
        taken = asyncio.wait(
            {*self._taking}, timeout=HANDSHAKE_WAIT_S
        )  # a copy: some are done before it begins
        return Deferred.fromFuture(asyncio.ensure_future(taken, loop=self._loop))

    def renew(self, tls: Tls) -> None:
        """Show another certificate."""
        # A new context: the first would keep the old certificate beside a new one whose key is of
        # another kind.
        fresh = tls_context(tls, self._protocol)

        def show(connection: ssl.SSLObject, *_: object) -> None:
            connection.context = fresh

        assert self._context is not None, "TLS is there from the start or not at all"
        self._context.sni_callback = show

    def _watch(self, listener: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            for connection in take_connections(listener, ACCEPTS_PER_TURN):
                self._take(connection)
        except OSError as err:
            _log.warn(
                "no connection is taken for {seconds} s: {reason}",
                seconds=ACCEPT_PAUSE_S,
                reason=err,
            )
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(ACCEPT_PAUSE_S, self._watch, listener)

    def _take(self, connection: socket.socket) -> None:
        if self._context is not None and len(self._taking) >= self._limits().connections:
            # those that shake hands are not counted as connections: nothing could be answered yet
            connection.close()
            return
        task = self._loop.create_task(self._taken_over(connection))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken_over(self, connection: socket.socket) -> Coroutine[Any, Any, Any]:
        if self._context is None:
            return self._loop.connect_accepted_socket(self._connection, connection)
        return self._loop.connect_accepted_socket(
            self._connection,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._limits().header_timeout,
            ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
        )

    def _taken(self, task: asyncio.Task[Any]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # a client that left, or does not speak TLS: nobody need know
