"""The connection as a Twisted protocol, for programs that brought their own reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.codecs.content import Buffer
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.front import Front


class TwistedTransport:
    """A Twisted transport with the names of asyncio's."""

    def __init__(self, transport: Any) -> None:
        """Wrap `transport`."""
        self._transport = transport
        self.pause_reading = transport.pauseProducing
        self.resume_reading = transport.resumeProducing

    def write(self, data: Buffer) -> None:
        """Send `data`; Twisted takes bytes alone."""
        self._transport.write(data if isinstance(data, bytes) else bytes(data))

    def close(self) -> None:
        """Close once everything is sent."""
        self._transport.unregisterProducer()  # it has nothing more, and would hold up the closing
        # TLS waits for the client's last word, and a pause would keep that out
        self._transport.resumeProducing()
        self._transport.loseConnection()

    def abort(self) -> None:
        """Close now; what the system has taken to send, it sends."""
        if self.get_write_buffer_size():
            self._transport.abortConnection()
        # to abort would take from the client what it has not read yet; and TLS would wait for its
        # last word
        else:
            self._transport.unregisterProducer()
            getattr(self._transport, "transport", self._transport).loseConnection()

    def can_write_eof(self) -> bool:
        """Whether the transport can end its sending side alone."""
        return hasattr(self._transport, "loseWriteConnection") and not hasattr(
            self._transport, "getPeerCertificate"
        )

    def write_eof(self) -> None:
        """End the sending side once everything is sent."""
        self._transport.unregisterProducer()  # one that is paused would be told to go on instead
        self._transport.loseWriteConnection()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        transport = getattr(
            self._transport, "transport", self._transport
        )  # under TLS they are all in the one below
        return (
            int(getattr(transport, "_tempDataLen", 0))
            + len(getattr(transport, "dataBuffer", b""))
            - getattr(transport, "offset", 0)
        )

    def get_extra_info(self, name: str) -> Any:
        """Return what asyncio's transports know under `name`."""
        if name == "socket":
            return self._transport.getHandle() if hasattr(self._transport, "getHandle") else None
        if name == "sslcontext":
            return self._transport if hasattr(self._transport, "getPeerCertificate") else None
        address = self._transport.getPeer() if name == "peername" else self._transport.getHost()
        return (address.host, address.port) if hasattr(address, "port") else None


@implementer(IHalfCloseableProtocol, IPushProducer)
class TwistedConnection(Protocol):
    """Passes what a Twisted transport says on to a connection. Reactor thread."""

    def __init__(self, connection: Connection) -> None:
        """Serve one client by `connection`."""
        self._connection = connection

    def connectionMade(self) -> None:
        """Begin."""
        transport: Any = self.transport
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self._connection.connection_made(TwistedTransport(transport))

    def dataReceived(self, data: bytes) -> None:
        """Read what came."""
        self._connection.data_received(data)

    def readConnectionLost(self) -> None:
        """The client has ended its sending side."""
        if not self._connection.eof_received() and self.transport is not None:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our own sending side has ended, as asked."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is closed."""
        self._connection.connection_lost(reason)

    def pauseProducing(self) -> None:
        """The client does not read."""
        self._connection.pause_writing()

    def resumeProducing(self) -> None:
        """The client reads again."""
        self._connection.resume_writing()

    def stopProducing(self) -> None:
        """The transport wants no more; it says so again when it is lost."""


class ConnectionFactory(Factory):
    """Makes a protocol for each client, for Twisted's own listening."""

    noisy = False

    def __init__(self, front: Front) -> None:
        """Make connections of `front`."""
        self._front = front

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return the protocol for a new client."""
        return TwistedConnection(self._front.connection())
