"""Ports that an asyncio loop watches.

In one turn of the loop up to `ACCEPTS_PER_TURN` connections are taken. uvloop's own server takes
one connection a turn: of 200 clients that connect together under full load, the last client would
wait for 200 turns.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import sys
import termios
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.codecs.content import Buffer
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.front import Front
from batcher.frontends.web.listening.sockets import (
    ACCEPT_PAUSE_S,
    ACCEPTS_PER_TURN,
    close_listeners,
    take_all_and_close,
    take_connections,
)
from batcher.frontends.web.listening.tls import Tls, tls_context

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

MAX_TLS_WRITE_BYTES = 1 << 16
"""Bytes that are encrypted at a time. Bytes that were encrypted and passed on are in no count, so a
larger write would not pause a client that does not read.
"""


class TlsTransport:
    """A TLS transport of uvloop that keeps the rules of its plain ones. Reactor thread."""

    def __init__(self, transport: Any) -> None:
        """Wrap `transport`."""
        self._transport = transport
        self._closing = False
        self.write_eof, self.can_write_eof, self.abort = (
            transport.write_eof,
            transport.can_write_eof,
            transport.abort,
        )
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.get_extra_info = transport.get_extra_info

    def write(self, data: Buffer) -> None:
        """Send `data` in pieces, so that the transport notices when the client does not read."""
        if len(data) <= MAX_TLS_WRITE_BYTES:
            self._transport.write(data)
            return
        pieces = memoryview(data)
        for start in range(0, len(data), MAX_TLS_WRITE_BYTES):
            self._transport.write(pieces[start : start + MAX_TLS_WRITE_BYTES])

    def close(self) -> None:
        """Close once everything is sent."""
        self._closing = True
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait in the transport.

        Once `close` was called and none wait there: the bytes that the system holds and the client
        has not acknowledged.
        """
        return self._transport.get_write_buffer_size() or (
            self._in_the_system() if self._closing else 0
        )

    def _in_the_system(self) -> int:
        sock = self._transport.get_extra_info("socket")
        try:
            return int.from_bytes(
                fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder
            )
        except (
            AttributeError,
            OSError,
            ValueError,
        ):  # the socket is gone, or this system does not tell
            return 0


class TlsConnection(Connection):
    """A connection over TLS. Reactor thread."""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(TlsTransport(transport))


class LoopPorts:
    """Sockets that listen, and the connections that are being taken from them. Reactor thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        front: Front,
        listeners: list[socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        """Let `front` serve each connection, over TLS if there is a `context`; `open` begins."""
        self._loop = loop
        self._front = front
        self._listeners = listeners
        self._context = context
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
        fresh = tls_context(
            tls
        )  # the other one would keep the old certificate beside a new one with another kind of key

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
        if self._context is not None and len(self._taking) >= self._front.limits.connections:
            # those that shake hands are not counted as connections: nothing could be answered yet
            connection.close()
            return
        task = self._loop.create_task(self._taken_over(connection))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken_over(self, connection: socket.socket) -> Coroutine[Any, Any, Any]:
        if self._context is None:
            return self._loop.connect_accepted_socket(self._front.connection, connection)
        return self._loop.connect_accepted_socket(
            lambda: TlsConnection(self._front),
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._front.limits.header_timeout,
            ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
        )

    def _taken(self, task: asyncio.Task[Any]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # a client that left, or does not speak TLS: nobody need know
