"""The port of gRPC: it guards the library's server, which listens where nobody else can connect.

Clients connect here. Each connection has one of its own to the library, over a Unix socket in a
folder that only this process's user may enter. No call passes before the client has acknowledged
the library's settings (`opening`).

    client -- TLS, if any -- ClientEnd -- bytes -- LibraryEnd -- Unix socket -- grpcio

The library sees a Unix socket as the address of each client; `peer_of` says who is behind it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from batcher.config.settings import ServerSettings
from batcher.core.own_folder import OwnFolder
from batcher.core.waiters import Waiters
from batcher.errors import ConfigError
from batcher.frontends.grpc.closing_log import ClosingLog
from batcher.frontends.grpc.connection_ends import LOOK_INTERVAL_S, ClientEnd, GrpcLimits
from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.ending import LAST_ANSWERS_S
from batcher.frontends.listening.sockets import tcp_sockets
from batcher.frontends.listening.tls import HTTP_2, Tls

_log = Logger()

FOLDER_PREFIX = "batcher-grpc-"
SOCKET_NAME = "grpc"
MEMORY_FOLDER = "/dev/shm"
"""A folder that most containers can write to whose other folders are read-only."""


class GuardedPort:
    """The sockets that clients connect to, and the way from there to the library. Reactor thread.

    Attributes:
        loop: the loop.
        port: the TCP port where clients connect.
        inner: the path where the library has to listen.
        limits: returns the limits of today.
        ends: the clients' connections.
        waited_for: those of them whose client's turn it is.
        is_draining: whether every connection is to end behind its calls.
        is_over: whether the library has ended for good.
        peers: who stands behind a connection of the library, by the name that the library gives.
        closings: tells of connections that were closed for what came on them.
        is_answering: returns whether any call is being answered.
    """

    is_answering: Callable[[], bool]
    is_draining = False
    is_over = False
    _closed = False
    _is_reachable = True
    _looking: asyncio.TimerHandle | None = None
    _cutting: asyncio.TimerHandle | None = None

    def __init__(
        self, settings: ServerSettings, limits: Callable[[], GrpcLimits], tls: Tls | None
    ) -> None:
        """Take the port; no connection is taken before `open`. A loop has to run.

        Raises:
            ConfigError: the address cannot be had, or there is no place for the inner socket.
        """
        self.loop = asyncio.get_running_loop()
        self.has_tls = tls is not None
        self.limits = limits
        self.ends: set[ClientEnd] = set()
        self.waited_for: set[ClientEnd] = set()
        self._emptied = Waiters()
        self.peers: dict[str, str] = {}
        self.closings = ClosingLog(self.loop.time)
        self._connecting: set[asyncio.Task[None]] = set()
        listeners = _listeners(settings)
        self.port: int = listeners[0].getsockname()[1]
        self._folder = _own_folder(settings)
        self.inner = self._folder.path / SOCKET_NAME
        connection = partial(ClientEnd, self)
        self._ports = LoopPorts(self.loop, connection, limits, listeners, tls, HTTP_2)

    def open(self) -> None:
        """Begin to take connections: the library listens."""
        self._ports.open()
        self._look()

    def _look(self) -> None:
        for end in list(self.waited_for):
            end.look()
        if self.is_draining:
            for end in list(self.ends):
                end.look_drained()
        self._looking = self.loop.call_later(LOOK_INTERVAL_S, self._look)

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

    def drain(self) -> Deferred[None]:
        """Take no more connections, and let every one end behind the calls that come on it.

        Fires when all are closed. The library has to serve until then.
        """
        closed = self.close()
        # A server whose time to drain is over may be told to drain only after its end.
        if not (self.is_draining or self.is_over):
            self.is_draining = True
            for end in list(self.ends):
                end.drain()
            self._look_from_now()
        return closed.addCallback(lambda _: self._all_closed())

    def _look_from_now(self) -> None:
        """Look first in `LOOK_INTERVAL_S`, so that no client has less time than it should."""
        if self._looking is not None:
            self._looking.cancel()
        self._looking = self.loop.call_later(LOOK_INTERVAL_S, self._look)

    def _all_closed(self) -> Deferred[None]:
        emptied = self._emptied.wait()
        self._release_if_empty()
        return emptied

    def lost(self, end: ClientEnd) -> None:
        """Forget a client's connection that is closed."""
        self.ends.discard(end)
        self.waited_for.discard(end)
        self._release_if_empty()

    def _release_if_empty(self) -> None:
        if not self.ends:
            self._emptied.release()

    def stop(self) -> Deferred[None]:
        """Close every connection behind what is on the way; fires when no socket is left.

        The library has ended.
        """
        self.is_over = True
        self.cut_off_soon()
        return self._all_closed().addCallback(self._stopped)

    def cut_off_soon(self) -> None:
        """Cut off clients that are still there in `LAST_ANSWERS_S`; no more are taken."""
        if self._cutting is None:
            self._cutting = self.loop.call_later(LAST_ANSWERS_S, self._cut_off)

    def _cut_off(self) -> None:
        for end in list(self.ends):
            end.abort()

    def _stopped(self, _: None) -> None:
        for timer in (self._cutting, self._looking):
            if timer is not None:
                timer.cancel()
        self._folder.remove()

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
        self._is_reachable = True
        return inner

    def unreachable(self, reason: OSError) -> None:
        """Log why the library cannot be reached, once until it can."""
        if self._is_reachable and not self.is_over:
            self._is_reachable = False
            _log.warn("gRPC: clients wait for the library's server: {reason}", reason=reason)

    def begin(self, connecting: Any) -> None:
        """Run `connecting`, a coroutine."""
        task = self.loop.create_task(connecting)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)


def _listeners(settings: ServerSettings) -> list[socket.socket]:
    try:
        return tcp_sockets(settings.host, settings.grpc_port or 0, settings.reuse_port)
    except OSError as err:
        raise ConfigError(
            f"{settings.origin('grpc_port')}: grpc_port: expected an address to listen on; got "
            f"{settings.host}:{settings.grpc_port}: {err.strerror}"
        ) from err


def _own_folder(settings: ServerSettings) -> OwnFolder:
    """Make a folder, which only this process's user may enter, where a socket can listen."""
    reason = ""
    for parent in (gettempdir, lambda: MEMORY_FOLDER):
        try:
            folder = OwnFolder(FOLDER_PREFIX, parent())
        except OSError as err:
            reason = reason or str(err)
            continue
        try:
            _try_to_listen(folder.path / SOCKET_NAME)
            return folder
        except OSError as err:
            folder.remove()
            reason = reason or f"{folder.path / SOCKET_NAME}: {err}"
    raise ConfigError(
        f"{settings.origin('grpc_port')}: grpc_port: expected a folder for a temporary socket, "
        f"TMPDIR or {MEMORY_FOLDER}, that can be written to and whose path is short; got {reason}"
    )


def _try_to_listen(path: Path) -> None:
    """Raise OSError where no socket can have the address `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.bind(str(path))
    path.unlink()
