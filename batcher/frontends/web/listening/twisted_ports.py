"""Ports that a Twisted reactor watches, for programs that brought their own."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLContextFactory,
    IProtocolFactory,
    IReadDescriptor,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.frontends.listening.sockets import (
    ACCEPT_PAUSE_S,
    ACCEPTS_PER_TURN,
    BACKLOG_CONNECTIONS,
    Listening,
    close_listeners,
    take_connections,
)
from batcher.frontends.listening.tls import Tls
from batcher.frontends.web.front import Front
from batcher.frontends.web.listening.twisted_transport import ConnectionFactory

_log = Logger()

Listen = Callable[[Front, list[socket.socket], Tls | None], "Deferred[Listening]"]
"""Lets a front take connections from sockets that listen."""


def twisted_listen(reactor: Any) -> Listen:
    """Return what listens through `reactor`."""

    def listen(
        front: Front, listeners: list[socket.socket], tls: Tls | None
    ) -> Deferred[Listening]:
        factory = ConnectionFactory(front)
        if tls is None:
            return succeed(_TwistedPorts(reactor, factory, listeners))
        certificate = _Certificate(tls)
        return succeed(
            _TwistedPorts(reactor, _encrypted(factory, certificate), listeners, certificate)
        )

    return listen


def _encrypted(factory: ConnectionFactory, certificate: _Certificate) -> IProtocolFactory:
    from twisted.protocols.tls import TLSMemoryBIOFactory

    return TLSMemoryBIOFactory(certificate, False, factory)


@implementer(IOpenSSLContextFactory)
class _Certificate:
    """What Twisted asks for the context of each connection; its own TLS stands on pyOpenSSL."""

    def __init__(self, tls: Tls) -> None:
        self.show(tls)

    def show(self, tls: Tls) -> None:
        from OpenSSL import SSL

        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.use_certificate_chain_file(str(tls.certificate))
        context.use_privatekey_file(str(tls.key))
        self._context = context

    def getContext(self) -> Any:
        """Return the newest."""
        return self._context


class _TwistedPorts:
    """Sockets that a Twisted reactor watches.

    Its own ports would change and remove the file of a Unix socket.
    """

    def __init__(
        self,
        reactor: Any,
        factory: IProtocolFactory,
        listeners: list[socket.socket],
        certificate: _Certificate | None = None,
    ) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._certificate = certificate
        self._ports = [_TwistedPort(reactor, factory, listener) for listener in listeners]
        for port in self._ports:
            port.watch()

    def close(self) -> Deferred[None]:
        """Take no more connections.

        Fires a turn later, when what clients have sent until now has been read.
        """
        for port in self._ports:
            port.close()
        close_listeners(self._listeners)
        return deferLater(self._reactor, 0, lambda: None)

    def renew(self, tls: Tls) -> None:
        """Show another certificate."""
        assert self._certificate is not None, "TLS is there from the start or not at all"
        self._certificate.show(tls)


@implementer(IReadDescriptor)
class _TwistedPort:
    """One of them."""

    def __init__(self, reactor: Any, factory: IProtocolFactory, listener: socket.socket) -> None:
        self._reactor = reactor
        self._factory = factory
        self._listener = listener
        self._rest: IDelayedCall | None = None

    def fileno(self) -> int:
        return self._listener.fileno()

    def logPrefix(self) -> str:
        return "port"

    def watch(self) -> None:
        """Take connections from now on."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Take those that the kernel had completed, and no more."""
        self._reactor.removeReader(self)
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        with suppress(OSError):  # those that there is no descriptor for are reset
            for connection in take_connections(self._listener, BACKLOG_CONNECTIONS):
                self._take(connection)

    def doRead(self) -> None:
        """Take some of those that wait.

        Rest if the system cannot have another: a port that raises is never read again.
        """
        try:
            for connection in take_connections(self._listener, ACCEPTS_PER_TURN):
                self._take(connection)
        except OSError as err:
            _log.warn(
                "no connection is taken for {seconds} s: {reason}",
                seconds=ACCEPT_PAUSE_S,
                reason=err,
            )
            self._reactor.removeReader(self)
            self._rest = self._reactor.callLater(ACCEPT_PAUSE_S, self.watch)

    def _take(self, connection: socket.socket) -> None:
        with connection:
            self._reactor.adoptStreamConnection(
                connection.fileno(), connection.family, self._factory
            )

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has ended."""
