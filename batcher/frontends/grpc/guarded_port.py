"""The port of gRPC: it guards the library's server, which listens where nobody else can connect.

Clients connect here. Each connection has one of its own to the library, over a Unix socket in a
folder that only this process's user may enter. `Opening` decides what passes until the client has
acknowledged the library's settings; from then on, bytes pass both ways without a look, and without
any code in Python: the loop hands what it has read on one side to the other side's `write`.

    client -- TLS, if any -- ClientEnd -- bytes -- LibraryEnd -- Unix socket -- grpcio

The library sees a Unix socket as the address of each client; `peer_of` says who is behind it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError
from batcher.frontends.grpc.opening import BadOpening, Opening
from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.sockets import tcp_sockets
from batcher.frontends.listening.tls import HTTP_2, Tls
from batcher.frontends.listening.tls_transport import TlsTransport

_log = Logger()

SOCKET_NAME = "grpc"
MEMORY_FOLDER = "/dev/shm"
"""A folder that most containers can write to whose other folders are read-only."""

MAX_SOCKET_PATH_BYTES = 100
"""Longest path of a Unix socket on every system; Linux takes 107."""

NAME_KEPT_S = 5.0
"""Seconds for which it is known who stood behind a connection that has ended.

The library cancels the calls of a client that has left a little later, and their lines of the
access log name the client.
"""


class GrpcLimits(NamedTuple):
    """Limits of connections, from the settings.

    Attributes:
        connections: most connections that shake hands at a time; the library counts the others.
        header_timeout: seconds that a connection has to open.
        write_timeout: seconds that a client has to read the last bytes of a connection that ends.
    """

    connections: int
    header_timeout: float
    write_timeout: float


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

    def __init__(self, client: ClientEnd) -> None:
        """Belong to `client`."""
        self.other = self._client = client
        self.has_spoken = False

    def data_received(self, data: bytes) -> None:
        """Pass on what comes first, the library's settings."""
        self.has_spoken = True
        self._client.transport.write(data)
        self.transport.set_protocol(_Passing(self, self._client.transport.write))

    def connection_lost(self, reason: Exception | None) -> None:
        """End the client's side, too, once the client has read what is on the way."""
        self._client.end()
        self._client.forget()


class ClientEnd(_End):
    """A client's connection. Reactor thread."""

    def __init__(self, port: GuardedPort) -> None:
        """Belong to `port`."""
        self._port = port
        self.other = self._library = LibraryEnd(self)
        self._opening = Opening()
        self._timer: asyncio.TimerHandle | None = None
        self._name = self._peer = ""
        self._early = b""

    def connection_made(self, transport: Any) -> None:
        """Connect to the library."""
        self.transport = TlsTransport(transport) if self._port.has_tls else transport
        self._port.ends.add(self)
        self._timer = self._port.loop.call_later(self._port.limits().header_timeout, self.abort)
        try:
            inner = self._port.connected()
        except OSError as err:  # the library has just ended; `RpcFront` begins it again
            _log.warn("gRPC: a client cannot reach the library's server: {reason}", reason=err)
            self.abort()
            return
        self._name = _name_of(inner)
        host, number, *_ = transport.get_extra_info("peername")
        self._peer = f"{host}:{number}"
        self._port.peers[self._name] = self._peer
        self._port.begin(self._connect(inner))

    async def _connect(self, inner: socket.socket) -> None:
        await self._port.loop.connect_accepted_socket(lambda: self._library, inner)
        if self.transport.is_closing():
            self._library.transport.abort()
        else:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Pass on what may pass, until the client has acknowledged the library's settings."""
        if self._library.transport is None:  # for a turn of the loop
            self._early += data
            return
        data, self._early = self._early + data, b""
        try:
            passed = self._opening.receive(data, self._library.has_spoken)
        except BadOpening as err:
            _log.info("gRPC: closed the connection of {who}: {why}", who=self._peer, why=err)
            self.abort()
            return
        write = self._library.transport.write
        if passed:
            write(b"".join(passed))
        if self._opening.over:
            self._stop_timer()
            self.transport.set_protocol(_Passing(self, write))

    def eof_received(self) -> None:
        """End as the library does: a client that sends no more wants no answer."""
        self.end()

    def connection_lost(self, reason: Exception | None) -> None:
        """End the library's side; its calls are cancelled."""
        self._stop_timer()
        self._port.ends.discard(self)
        if self._library.transport is not None:
            self._library.transport.abort()

    def end(self) -> None:
        """Close, once the client has read what is on the way, or has had its time for that."""
        if self.transport.is_closing():
            return
        self._stop_timer()
        self.transport.close()
        self._timer = self._port.loop.call_later(self._port.limits().write_timeout, self.abort)

    def forget(self) -> None:
        """Let go of the client's name in a while: the library's side has ended."""
        self._port.loop.call_later(NAME_KEPT_S, self._port.forget, self._name, self._peer)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Passing(asyncio.Protocol):
    """What one side becomes whose bytes pass without a look.

    Attributes:
        data_received: the other side's `write`, so that no code in Python runs for a piece.
    """

    def __init__(self, end: _End, write: Callable[[bytes], None]) -> None:
        self.data_received = write  # type: ignore[assignment, method-assign]
        self.pause_writing = end.pause_writing  # type: ignore[method-assign]
        self.resume_writing = end.resume_writing  # type: ignore[method-assign]
        self.eof_received = end.eof_received  # type: ignore[method-assign]
        self.connection_lost = end.connection_lost  # type: ignore[method-assign]


class GuardedPort:
    """The sockets that clients connect to, and the way from there to the library. Reactor thread.

    Attributes:
        loop: the loop.
        port: the TCP port where clients connect.
        inner: the path where the library has to listen.
        limits: returns the limits of today.
        ends: the clients' connections.
        peers: who stands behind a connection of the library, by the name that the library gives.
    """

    def __init__(
        self,
        settings: ServerSettings,
        limits: Callable[[], GrpcLimits],
        tls: Tls | None,
    ) -> None:
        """Take the port; no connection is taken before `open`. A loop has to run.

        Raises:
            ConfigError: the address cannot be had, or there is no place for the inner socket.
        """
        self.loop = asyncio.get_running_loop()
        self.has_tls = tls is not None
        self.limits = limits
        self.ends: set[ClientEnd] = set()
        self.peers: dict[str, str] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False
        listeners = _listeners(settings)
        self.port: int = listeners[0].getsockname()[1]
        self._folder = _own_folder(settings)
        self.inner = self._folder / SOCKET_NAME
        connection = partial(ClientEnd, self)
        self._ports = LoopPorts(self.loop, connection, limits, listeners, tls, HTTP_2)

    def open(self) -> None:
        """Begin to take connections: the library listens."""
        self._ports.open()

    def renew(self, tls: Tls) -> None:
        """Show the certificate in the files of `tls` to clients that connect from now on."""
        self._ports.renew(tls)

    def close(self) -> Deferred[Any]:
        """Take no more connections; those that are there go on.

        Fires when the connections that the kernel had completed are taken.
        """
        if self._closed:
            return succeed(None)
        self._closed = True
        return self._ports.close()

    def stop(self) -> None:
        """Take no more connections, close every one, and remove the inner socket."""
        self.close()
        for end in list(self.ends):
            end.abort()
        shutil.rmtree(self._folder, ignore_errors=True)

    def peer_of(self, name: str) -> str:
        """Return who is behind the connection that the library calls `name`."""
        return self.peers.get(name, name)

    def forget(self, name: str, peer: str) -> None:
        """Let go of `peer`, unless the kernel has given `name` to another one's connection."""
        if self.peers.get(name) is peer:
            del self.peers[name]

    def connected(self) -> socket.socket:
        """Return a new connection to the library.

        Raises:
            OSError: the library does not listen.
        """
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            inner.setblocking(False)
            if sys.platform == "linux":
                inner.bind("")  # the kernel gives the connection a name, by which `peers` knows it
            inner.connect(str(self.inner))
        except OSError:
            inner.close()
            raise
        return inner

    def begin(self, connecting: Any) -> None:
        """Run `connecting`, a coroutine."""
        task = self.loop.create_task(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


def _name_of(inner: socket.socket) -> str:
    """Return what the library calls the client at this end, empty where it has no name."""
    name = inner.getsockname()
    return f"unix-abstract:{name[1:].decode()}" if isinstance(name, bytes) else ""


def _listeners(settings: ServerSettings) -> list[socket.socket]:
    try:
        return tcp_sockets(settings.host, settings.grpc_port or 0, settings.reuse_port)
    except OSError as err:
        raise ConfigError(
            f"{settings.origin('grpc_port')}: grpc_port: expected an address to listen on; got "
            f"{settings.host}:{settings.grpc_port}: {err.strerror}"
        ) from err


def _own_folder(settings: ServerSettings) -> Path:
    """Make a folder that only this process's user may enter."""
    for parent in (None, MEMORY_FOLDER):
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="batcher-grpc-", dir=parent)
            if len(folder) + len(SOCKET_NAME) < MAX_SOCKET_PATH_BYTES:
                return Path(folder)
            os.rmdir(folder)
    raise ConfigError(
        f"{settings.origin('grpc_port')}: grpc_port: expected a folder for a temporary socket, "
        f"TMPDIR or {MEMORY_FOLDER}, that can be written to and whose path is short; got none"
    )
