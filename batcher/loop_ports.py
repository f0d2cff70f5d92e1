"""Ports that an asyncio loop watches, many of whose connections are taken in one turn of it.

uvloop's own server takes one in each turn: behind a flood of two hundred, under full load, the last waited for as many turns.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.web.listening import AT_ONCE, REST, Tls, accepted, forget, tls_context, waiting

_log = Logger()

HANDSHAKE = 2.0
"""Seconds that connections have to be taken when the port closes: who is silent so long asks for nothing."""


class LoopPorts:
    """Sockets that listen, and the connections that are being taken from them. Reactor thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        factory: Callable[[], Any],
        listeners: list[socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        """Give each connection a protocol of `factory`, over TLS if there is a `context`; `open` begins."""
        self._loop = loop
        self._factory = factory
        self._listeners = listeners
        self._context = context
        self._taking: set[asyncio.Task[Any]] = set()
        self._closed = False

    def open(self) -> None:
        """Begin to take connections."""
        for listener in self._listeners:
            self._watch(listener)

    def close(self) -> Deferred[Any]:
        """Take no more connections; fires when those that the kernel had completed are taken."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            for connection in accepted(listener.dup()):
                self._take(connection)
        forget(self._listeners)
        if not self._taking:
            return succeed(None)
        taken = asyncio.wait({*self._taking}, timeout=HANDSHAKE)  # a copy: some are done before it begins
        return Deferred.fromFuture(asyncio.ensure_future(taken, loop=self._loop))

    def renew(self, tls: Tls) -> None:
        """Show another certificate."""
        fresh = tls_context(tls)  # the other one would keep the old certificate beside a new one with another kind of key

        def show(connection: ssl.SSLObject, *_: object) -> None:
            connection.context = fresh

        assert self._context is not None, "TLS is there from the start or not at all"
        self._context.sni_callback = show

    def _watch(self, listener: socket.socket) -> None:
        if not self._closed:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            for connection in waiting(listener, AT_ONCE):
                self._take(connection)
        except OSError as err:
            _log.warn("no connection is taken for {seconds} s: {reason}", seconds=REST, reason=err)
            self._loop.remove_reader(listener.fileno())
            self._loop.call_later(REST, self._watch, listener)

    def _take(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._factory, connection, ssl=self._context))
        self._taking.add(task)
        task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[Any]) -> None:
        self._taking.discard(task)
        if not task.cancelled():
            task.exception()  # a client that left, or does not speak TLS: nobody need know
