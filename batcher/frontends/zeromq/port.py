"""The library's sockets on the reactor: a ROUTER for messages, and a monitor of its connections.

The library has threads of its own for the network. A socket of the library has one descriptor, and
the descriptor tells one thing alone: that the library's threads have said something since we looked
last. It tells so once. Whatever we do with the socket, sending included, may take note of what was
said, and then the descriptor stays silent although messages wait. So

- each wake-up reads ZMQ_EVENTS, and takes messages until none is left;
- where a turn of the loop ends before none is left, the next turn goes on by itself;
- after anything was sent, the next turn looks once more.

No part of this needs asyncio, so every reactor that watches descriptors will do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import zmq
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from batcher.codecs.content import Buffer
from batcher.frontends.zeromq.peers import (
    PIPE_MESSAGES,
    RECEIVE_MESSAGES,
    TRACKED_BYTES,
    Sent,
    Unread,
)

PING_AFTER_MS: Final = 60_000
PING_TIMEOUT_MS: Final = 20_000
"""Silence after which the library pings a client, and the time that the client has for an answer.

Both are milliseconds, and those of gRPC.
"""

# Numbers, not flags of an enumeration: to join two of these takes half a microsecond.
_NOW: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_send: Final[Any] = zmq.backend.Socket.send
"""Not `zmq.Socket.send`, which calls this one and takes as long besides."""

_EVENT: Final = struct.Struct("=hi")
_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


class ZmqPort:
    """The ROUTER socket, and the monitor of its connections. Reactor thread.

    Attributes:
        open_connections: descriptors of connections that are open.
        socket: the ROUTER.
        monitor: on which the library tells of connections.
    """

    def __init__(self, context: Any, max_part_bytes: int, cut_off_s: float) -> None:
        """Make the socket; it is not open yet.

        Args:
            context: the library's, to which the socket belongs.
            max_part_bytes: clients that send a longer part are cut off by the library.
            cut_off_s: seconds after which a client is cut off that does not read.
        """
        self.open_connections: set[int] = set()
        self.socket = socket = context.socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)  # else answers for slow readers vanish unseen
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, PIPE_MESSAGES)
        socket.set(zmq.RCVHWM, RECEIVE_MESSAGES)
        socket.set(zmq.MAXMSGSIZE, max_part_bytes)
        socket.set(zmq.HEARTBEAT_IVL, PING_AFTER_MS)
        socket.set(zmq.HEARTBEAT_TIMEOUT, PING_TIMEOUT_MS)
        socket.set(zmq.TCP_MAXRT, int(cut_off_s * 1000))
        self.monitor = socket.get_monitor_socket(_EVENTS)

    def receive_identity(self) -> bytes | None:
        """Return the first part of the next message, who has sent it; None if none is there."""
        try:
            identity: bytes = self.socket.recv(_NOW)
        except zmq.Again:
            return None
        return identity

    def receive(self, copied: bool) -> tuple[Buffer, bool]:
        """Return the next part of a message that has begun, and whether more follow."""
        # A frame knows whether more follow; to ask the socket takes longer than to receive.
        frame = self.socket.recv(_NOW, False)
        return frame.bytes if copied else frame.buffer, frame.more

    def receive_with_origin(self) -> tuple[Buffer, bool, tuple[int, str]]:
        """Do so, and return the descriptor and the address of what has sent the part, too."""
        frame = self.socket.recv(_NOW, False)
        origin = _property(frame, zmq.SRCFD, -1), _property(frame, "Peer-Address", "")
        return frame.buffer, frame.more, origin

    def send(self, identity: bytes, parts: list[Buffer], track: bool) -> tuple[Sent, Unread | None]:
        """Hand all parts to the library, or none; see `peers.Send`."""
        socket = self.socket
        try:
            _send(socket, identity, _MORE)
        except zmq.Again:
            return Sent.FULL, None
        except zmq.ZMQError:  # EHOSTUNREACH: nobody has this identity any more
            return Sent.GONE, None
        last, unread = len(parts) - 1, None
        for place, part in enumerate(parts):
            flags = _MORE if place < last else _NOW
            if track and len(part) >= TRACKED_BYTES:
                unread = _later(unread, _send(socket, part, flags, False, True))
            else:
                _send(socket, part, flags)
        return Sent.TAKEN, unread

    def note_connections(self, left: Callable[[int], object]) -> None:
        """Note who has come, and call `left` with the descriptor of each connection that ended."""
        while True:
            try:
                event, descriptor = _EVENT.unpack(self.monitor.recv(_NOW))
                self.monitor.recv()  # the address
            except zmq.Again:
                return
            if event == zmq.EVENT_ACCEPTED:
                self.open_connections.add(descriptor)
            else:
                self.open_connections.discard(descriptor)
                left(descriptor)

    def close(self) -> None:
        """Close both sockets now; what is not written by then is lost."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


class _Both:
    """Two trackers of one answer."""

    def __init__(self, first: Unread, second: Unread) -> None:
        self._pair = first, second

    @property
    def done(self) -> bool:
        return self._pair[0].done and self._pair[1].done


def _later(first: Unread | None, second: Unread) -> Unread:
    return second if first is None else _Both(first, second)


def _property(frame: Any, name: Any, default: Any) -> Any:
    try:
        return frame.get(name)
    except zmq.ZMQError:  # a connection of this kind has none
        return default


@implementer(IReadDescriptor)
class SocketReader:
    """Has the reactor watch the descriptor of a socket of the library. Reactor thread."""

    def __init__(self, socket: Any, look: Callable[[], object]) -> None:
        """Call `look` whenever something may have happened on `socket`."""
        self._socket = socket
        self._descriptor: int = socket.get(zmq.FD)
        self._look = look

    def fileno(self) -> int:
        """Return the descriptor, -1 once the reader is closed."""
        return self._descriptor

    def doRead(self) -> None:
        """Take note of what the library's threads have said, and look at what it is."""
        self._socket.get(zmq.EVENTS)
        self._look()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the descriptor is the library's, and closes with its socket."""

    def logPrefix(self) -> str:
        """Return what lines of the log begin with."""
        return "zeromq"

    def close(self) -> None:
        """Have no descriptor any more."""
        self._descriptor = -1
