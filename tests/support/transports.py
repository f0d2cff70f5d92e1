"""Clients in memory: one connection each, over a transport like asyncio's or like Twisted's.

Both transports keep the rules of the real ones that matter here: closing flushes first and is told
on a later turn, writing behind a close or an end of file is an error (asyncio) or nothing
(Twisted), a buffer over its high-water mark pauses the protocol within the very `write`, data that
arrives while reading is paused waits, and a peer that is gone answers what is written with a reset
that only the socket's error tells. Twisted's buffering is Twisted's: `FileDescriptor` itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from batcher.frontends.web.front import Front
from batcher.frontends.web.listening.twisted_transport import ConnectionFactory
from tests.support.http_answers import Answer, parse_answers

KINDS = ("loop", "twisted")
PEER = ("192.0.2.7", 50007)
HERE = ("192.0.2.1", 8080)
HIGH, LOW = 64 << 10, 16 << 10


class Socket:
    """What a probe looks at: a socket with an error once its peer has answered with a reset."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def getsockopt(self, level: int, option: int) -> int:
        return 104 if self._client.gone and self._client.written_to_nobody else 0


class Client:
    """The far end of one connection.

    Attributes:
        received: every byte that came.
        room: bytes that fit before the client reads again; None for any number.
        ended: whether the server has ended its sending side.
        closed: whether the server's protocol was told that the connection is closed.
        aborted: whether the server cut the connection off.
        gone: whether the client has closed its side altogether.
        peer: its address as asyncio tells it, None for one without.
        secure: whether it speaks TLS, which cannot be half closed.
        mute: whether it never says the last word of TLS, without which the server's transport does
            not close.
    """

    def __init__(self, clock: Clock, peer: Any, secure: bool) -> None:
        self.clock = clock
        self.peer = peer
        self.secure = secure
        self.received = bytearray()
        self.room: int | None = None
        self.ended = self.closed = self.aborted = self.gone = self.written_to_nobody = False
        self.inbox: deque[bytes | None] = deque()
        self.methods: list[str] = []
        self.reads = True
        self.mute = False

    def send(self, *pieces: bytes) -> None:
        """Send each of `pieces` as a segment of its own."""
        self.inbox.extend(piece for piece in pieces if piece)
        self.deliver()

    def end(self) -> None:
        """End the sending side only."""
        self.inbox.append(None)
        self.deliver()

    def leave(self) -> None:
        """Close altogether: an end of file, then a reset for whatever is written."""
        self.gone = True
        self.end()

    def reset(self) -> None:
        """Vanish: the server's protocol is told at once."""
        self.gone = True
        self.lose(ConnectionLost())

    def stall(self, room: int = 0) -> None:
        """Read no more than `room` further bytes."""
        self.room = room

    def read(self, size: int | None = None) -> None:
        """Read `size` further bytes, or everything from now on."""
        self.room = None if size is None else (self.room or 0) + size
        self.flush()

    def parsed(self) -> tuple[list[Answer], bytes]:
        """Return the whole answers that came, in their order, and what came behind them."""
        return parse_answers(bytes(self.received), self.methods, self.ended or self.closed)

    answers = property(lambda self: self.parsed()[0])
    unparsed = property(lambda self: self.parsed()[1])

    def take(self, data: bytes) -> int:
        """Accept what fits of `data` and return how much that is."""
        self.written_to_nobody = self.written_to_nobody or (self.gone and bool(data))
        size = len(data) if self.room is None or self.gone else min(len(data), self.room)
        if not self.gone:
            self.received += data[:size]
            self.room = None if self.room is None else self.room - size
        return size

    # What the transports do.

    deliver: Callable[[], None]
    flush: Callable[[], None]
    lose: Callable[[Exception | None], None]


class LoopClient(Client):
    """A client behind a transport with asyncio's names and manners, as uvloop's."""

    def __init__(self, front: Front, clock: Clock, peer: Any, secure: bool) -> None:
        super().__init__(clock, peer, secure)
        self.buffer = bytearray()
        self.closing = self.eof_due = self.blocked = False
        self.protocol = front.connection()
        self.protocol.connection_made(self)  # type: ignore[arg-type]

    def deliver(self) -> None:
        while self.inbox and self.reads and not self.closing and not self.closed:
            piece = self.inbox.popleft()
            if piece is not None:
                self.protocol.data_received(piece)
                continue
            self.reads = False
            if not self.protocol.eof_received():
                self.close()

    def flush(self) -> None:
        del self.buffer[: self.take(bytes(self.buffer))]
        if self.blocked and len(self.buffer) <= LOW:
            self.blocked = False
            self.protocol.resume_writing()
        if not self.buffer:
            self.ended = self.ended or self.eof_due
            if self.closing and not self.mute:
                self.lose(None)

    def lose(self, reason: Exception | None) -> None:
        self.closing = True
        self.clock.callLater(0, self._lost, reason)

    def _lost(self, reason: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(reason)

    # What the server calls.

    def write(self, data: bytes) -> None:
        assert not self.closing, "written behind a close"
        assert not self.eof_due, "written behind an end of file"
        self.buffer += data
        del self.buffer[: self.take(bytes(self.buffer))]
        if len(self.buffer) > HIGH and not self.blocked:
            self.blocked = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        assert not self.secure, "TLS has no half-closed connections"
        self.eof_due = True
        self.flush()

    def can_write_eof(self) -> bool:
        return not self.secure

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.buffer and not self.mute:
                self.lose(None)

    def abort(self) -> None:
        self.buffer.clear()
        self.aborted = True
        self.lose(None)

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True
        self.clock.callLater(0, self.deliver)

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def get_extra_info(self, name: str) -> Any:
        known = {
            "peername": self.peer,
            "sockname": HERE,
            "socket": Socket(self),
            "sslcontext": self if self.secure else None,
        }
        return known.get(name)


class TwistedClient(Client, FileDescriptor):
    """A client behind one of Twisted's own transports, with memory where the socket would be."""

    def __init__(self, front: Front, clock: Clock, peer: Any, secure: bool) -> None:
        Client.__init__(self, clock, peer, secure)
        # it is its own little reactor
        FileDescriptor.__init__(self, self)  # type: ignore[arg-type]
        self.connected = 1
        self._flushing = False
        if secure:
            self.getPeerCertificate = lambda: None  # how Twisted's TLS transports are told
        protocol = ConnectionFactory(front).buildProtocol(None)
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self)

    # The reactor that it stands on.

    def addReader(self, reader: object) -> None:
        self.reads = True
        self.clock.callLater(0, self.deliver)

    def removeReader(self, reader: object) -> None:
        self.reads = False

    def addWriter(self, writer: object) -> None:
        if not self._flushing:
            self._flushing = True
            self.clock.callLater(0, self.flush)

    def removeWriter(self, writer: object) -> None:
        self._flushing = False

    # What a socket does.

    def deliver(self) -> None:
        while self.inbox and self.reads and self.connected:
            piece = self.inbox.popleft()
            if piece is not None:
                self.protocol.dataReceived(piece)
                continue
            self.reads = False
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self.connectionLost(Failure(CONNECTION_DONE))
            else:
                half.readConnectionLost()

    def flush(self) -> None:
        while (
            self.connected
            and self._flushing
            and (self.room is None or self.room or not self._waiting())
        ):
            if self.doWrite() is not None:
                self.connectionLost(Failure(ConnectionDone()))

    def _waiting(self) -> int:
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def writeSomeData(self, data: Any) -> int:
        return self.take(bytes(data))

    def _closeWriteConnection(self) -> None:
        self.ended = True
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.writeConnectionLost()

    def lose(self, reason: Exception | None) -> None:
        self.connectionLost(Failure(reason or ConnectionDone()))

    def connectionLost(self, reason: Failure) -> None:
        if not self.closed:
            self.closed = True
            FileDescriptor.connectionLost(self, reason)
            self.protocol.connectionLost(reason)

    def loseConnection(self) -> None:
        if not self.mute:
            FileDescriptor.loseConnection(self)
        self.mute = False  # the second time it is the transport below TLS that is asked

    def abortConnection(self) -> None:
        if not self.aborted and not self.closed:
            self.aborted = True
            self.stopReading()
            self.stopWriting()
            self.clock.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def getPeer(self) -> Any:
        if not self.peer:
            return UNIXAddress(None)
        return (
            IPv6Address("TCP", *self.peer)
            if ":" in self.peer[0]
            else IPv4Address("TCP", *self.peer)
        )

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", *HERE)

    def getHandle(self) -> Socket:
        return Socket(self)


def connect(
    kind: str, front: Front, clock: Clock, peer: Any = PEER, secure: bool = False
) -> Client:
    """Return a new client of `front` over a transport of `kind`.

    `peer` is its address, `secure` whether it speaks TLS.
    """
    return (LoopClient if kind == "loop" else TwistedClient)(front, clock, peer, secure)
