"""Both sides of a client's connection: to the client, and to gRPC's library.

`Opening` decides what passes until the client has acknowledged the library's settings. From then
on, all bytes pass both ways as they come. Both sides follow the heads of the frames, for which they
read nine bytes of each frame: `OpenCalls` knows so which calls have no end yet, and a frame of the
port's own can be put between two frames of the library.

| while | nothing is read from |
|---|---|
| the client does not read | the library; a client has `write_timeout_s` to read some |
| the library does not read | the client |
| the library cannot be reached | the client, behind the first bytes |
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from batcher.frontends.grpc.closing_log import ClosingLog
from batcher.frontends.grpc.frames import NO_MORE_CALLS, FrameFollower
from batcher.frontends.grpc.open_calls import OpenCalls
from batcher.frontends.grpc.opening import PREFACE, BadOpening, Opening
from batcher.frontends.listening.ending import DRAIN_GRACE_S
from batcher.frontends.listening.tls_transport import TlsTransport

NAME_KEPT_S = 5.0
"""Seconds for which it is known who stood behind a connection that has ended.

The library cancels the calls of a client that has left a little later, and their lines of the
access log name the client.
"""

LOOK_INTERVAL_S = 0.5
"""Seconds between two looks at clients whose turn it is; their limits are coarse by as much.

Looks are counted, not seconds of the clock: while the process is frozen nobody's time passes.
"""

LINGER_S = 2.0
"""Seconds that a TLS client has to say its last word, once everything is sent."""

CONNECT_AGAIN_S = 0.05
"""Seconds between two tries to reach the library, which may be beginning again."""


class GrpcLimits(NamedTuple):
    """Limits of connections, from the settings.

    Attributes:
        connections: most connections that shake hands at a time; the library counts the others.
        header_timeout: seconds that a connection has to open.
        write_timeout: seconds that a client has to read some of what waits for it.
    """

    connections: int
    header_timeout: float
    write_timeout: float


class Port(Protocol):
    """What the ends need of the port.

    Attributes:
        loop: the loop.
        has_tls: whether clients speak TLS.
        is_draining: whether every connection is to end behind its calls.
        is_over: whether the library has ended for good.
        ends: the clients' connections.
        waited_for: those of them whose client's turn it is.
        peers: who stands behind a connection of the library, by the name that the library gives.
        limits: returns the limits of today.
        closings: tells of connections that were closed for what came on them.
        is_answering: returns whether any call is being answered.
    """

    loop: asyncio.AbstractEventLoop
    has_tls: bool
    is_draining: bool
    is_over: bool
    ends: set[ClientEnd]
    waited_for: set[ClientEnd]
    peers: dict[str, str]
    limits: Callable[[], GrpcLimits]
    closings: ClosingLog
    is_answering: Callable[[], bool]

    def connected(self) -> socket.socket:
        """Return a new connection to the library; raises OSError where none can be had."""

    def unreachable(self, reason: OSError) -> None:
        """Hear why the library cannot be reached."""

    def begin(self, connecting: Any) -> None:
        """Run `connecting`, a coroutine."""

    def lost(self, end: ClientEnd) -> None:
        """Forget a client's connection that is closed."""

    def forget(self, name: str, peer: str) -> None:
        """Let go of the name of a client."""


class _End(asyncio.Protocol):
    """One side of a connection. Reactor thread.

    Attributes:
        transport: of this side; None until it is connected.
        other: the other side.
    """

    transport: Any = None
    other: _End

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def pause_writing(self) -> None:
        """Read no more on the other side while this side's peer does not read."""
        source = self.other.transport
        if source is not None and not source.is_closing():
            source.pause_reading()

    def resume_writing(self) -> None:
        source = self.other.transport
        if source is not None and not source.is_closing():
            source.resume_reading()


class LibraryEnd(_End):
    """The connection to the library that stands for one client's. Reactor thread."""

    def __init__(self, client: ClientEnd, calls: OpenCalls) -> None:
        """Belong to `client`, whose calls are `calls`."""
        self.other = self._client = client
        self.has_spoken = False
        self._frames = FrameFollower(calls.answered)
        self._own_frame = b""  # waits for a place between two frames of the library

    def connection_made(self, transport: Any) -> None:
        """Begin, unless the client has left meanwhile."""
        super().connection_made(transport)
        self._client.reached()

    def data_received(self, data: bytes) -> None:
        """Pass on what comes first, the library's settings."""
        if self.transport.is_closing():  # the client has left
            return
        self.has_spoken = True
        self._pass_on(data)
        self.transport.set_protocol(_Passing(self, self._pass_on))

    def _pass_on(self, data: bytes) -> None:
        """Pass on what the library sends."""
        if self._own_frame:
            data = self._pass_own_frame(data)
        self._frames.follow(data)
        self._client.has_moved = True
        self._client.transport.write(data)

    def tell(self, frame: bytes) -> None:
        """Send `frame` to the client, between two frames of the library."""
        self._own_frame = frame
        self._pass_on(b"")

    def _pass_own_frame(self, data: bytes) -> bytes:
        """Send the own frame if it may stand in `data`; return what comes behind it."""
        gap = self._frames.follow_to_gap(data)
        self._client.transport.write(data[:gap])
        if self._frames.is_between_frames():
            self._client.transport.write(self._own_frame)
            self._own_frame = b""
        return data[gap:]

    def connection_lost(self, reason: Exception | None) -> None:
        """End the client's side, too, once the client has read what is on the way."""
        self._client.end()
        self._client.forget()


class ClientEnd(_End):
    """A client's connection. Reactor thread.

    A client whose turn it is, to open the connection or to read, has limited time for that.

    While the port drains, a connection ends in this way:

    | when | what happens |
    |---|---|
    | the connection is open, or has its first call | the client is told to begin no more calls |
    | the client reads that | it closes the connection once it has the answers to its calls |
    | the connection has had no call for `DRAIN_GRACE_S` | the port closes it |
    | no call is answered, and nothing comes or goes for as long | the port closes it, too |

    The last row is of calls whose message does not come: the library waits for it for ever.

    Attributes:
        has_moved: whether anything has passed, either way, since the last look.
    """

    has_moved = False

    def __init__(self, port: Port) -> None:
        """Belong to `port`."""
        self._port = port
        self._calls = OpenCalls()
        self.other = self._library = LibraryEnd(self, self._calls)
        self._opening = Opening()
        self._frames = FrameFollower(self._calls.asked)
        self._grace_left = DRAIN_GRACE_S  # while the port drains and the client has no call
        self._left = port.limits().header_timeout  # seconds that the client has for its turn
        self._unsent = 0  # bytes that the client had still to read at the last look
        self._ending = False
        self._name = self._peer = ""
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        """Connect to the library."""
        self.transport = TlsTransport(transport) if self._port.has_tls else transport
        address = transport.get_extra_info("peername")
        if address is None:  # the client is gone again
            self.abort()
            return
        self._peer = f"{address[0]}:{address[1]}"
        self._port.ends.add(self)
        self._port.waited_for.add(self)
        self._port.begin(self._connect())

    async def _connect(self) -> None:
        """Connect to the library, which may have to begin again before it can be reached."""
        while not self.transport.is_closing():
            try:
                inner = self._port.connected()
            except OSError as err:
                self._port.unreachable(err)
                if self._port.is_over:
                    self.abort()
                await asyncio.sleep(CONNECT_AGAIN_S)
                continue
            self._name = _name_of(inner)
            self._port.peers[self._name] = self._peer
            await self._port.loop.connect_accepted_socket(lambda: self._library, inner)
            return

    def reached(self) -> None:
        """Hand over what came before the library was reached."""
        if self.transport.is_closing():
            self._library.transport.abort()
        elif self._early:
            data, self._early = self._early, b""
            self.transport.resume_reading()
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Pass on what may pass, until the client has acknowledged the library's settings."""
        if self._library.transport is None:
            if not self._early:
                self.transport.pause_reading()
            self._early += data
            return
        try:
            passed = self._opening.receive(data, self._library.has_spoken)
        except BadOpening as err:
            self._port.closings.write(self._peer, err)
            self.abort()
            return
        if passed and passed[0] is PREFACE:
            self._library.transport.write(passed.pop(0))
        self._pass_on(b"".join(passed))
        if self._opening.over:
            self._port.waited_for.discard(self)
            self.transport.set_protocol(_Passing(self, self._pass_on))

    def _pass_on(self, data: bytes) -> None:
        """Pass on frames of the client."""
        self.has_moved = True
        self._frames.follow(data)
        if self._calls.are_too_many:
            self._port.closings.write(self._peer, "too many calls")
            self.abort()
            return
        self._library.transport.write(data)
        if self._port.is_draining and self._calls.numbers:
            self._tell_no_more_calls()

    def drain(self) -> None:
        """Have the client begin no more calls: the port drains."""
        if self._opening.over:
            self._tell_no_more_calls()

    def _tell_no_more_calls(self) -> None:
        if not self._calls.are_last and not self.transport.is_closing():
            self._calls.are_last = True
            self._library.tell(NO_MORE_CALLS)

    def look_drained(self) -> None:
        """Close the connection once the client has had no call for long enough; the port drains."""
        if self._awaits_answers() or self.transport.is_closing():
            self._grace_left = DRAIN_GRACE_S
            return
        self._grace_left -= LOOK_INTERVAL_S
        if self._grace_left <= 0:
            self.end()
            if self._library.transport is not None:
                self._library.transport.abort()

    def _awaits_answers(self) -> bool:
        """Return whether a call of the client may still get its answer."""
        has_moved, self.has_moved = self.has_moved, False
        if not self._calls.numbers:
            return False
        has_unread = self.transport.get_write_buffer_size() > 0
        return has_moved or has_unread or self._port.is_answering()

    def eof_received(self) -> None:
        """End as the library does: a client that sends no more wants no answer."""
        self.end()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        if self._opening.over and not self._ending:
            self._await_reading()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self._opening.over and not self._ending:
            self._port.waited_for.discard(self)

    def connection_lost(self, reason: Exception | None) -> None:
        """End the library's side; its calls are cancelled."""
        if self._library.transport is not None:
            self._library.transport.abort()
        self._port.lost(self)

    def end(self) -> None:
        """Close, once the client has read what is on the way, or has had its time for that."""
        if self.transport.is_closing():
            return
        self._ending = True
        self.transport.close()
        self._await_reading()

    def look(self) -> None:
        """See what the client has read in `LOOK_INTERVAL_S`; cut it off once its time is over."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent and (self._opening.over or self._ending):
            self._await_reading()  # it reads, however slowly
            return
        self._left -= LOOK_INTERVAL_S
        if self._left <= 0:
            self.abort()

    def _await_reading(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        lingers = self._ending and not self._unsent
        self._left = LINGER_S if lingers else self._port.limits().write_timeout
        self._port.waited_for.add(self)

    def forget(self) -> None:
        """Let go of the client's name in a while: the library's side has ended."""
        self._port.loop.call_later(NAME_KEPT_S, self._port.forget, self._name, self._peer)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()


class _Passing(asyncio.Protocol):
    """What one side becomes whose bytes pass as they come.

    Attributes:
        data_received: passes a piece on, so that no other code in Python runs for a piece.
    """

    def __init__(self, end: _End, pass_on: Callable[[bytes], None]) -> None:
        self.data_received = pass_on  # type: ignore[assignment, method-assign]
        self.pause_writing = end.pause_writing  # type: ignore[method-assign]
        self.resume_writing = end.resume_writing  # type: ignore[method-assign]
        self.eof_received = end.eof_received  # type: ignore[method-assign]
        self.connection_lost = end.connection_lost  # type: ignore[method-assign]


def _name_of(inner: socket.socket) -> str:
    """Return what the library calls the client at this end, empty where it has no name."""
    name = inner.getsockname()
    return f"unix-abstract:{name[1:].decode()}" if isinstance(name, bytes) else ""
