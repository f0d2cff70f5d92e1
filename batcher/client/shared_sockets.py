"""Sockets that the threads of a program share, each for one call at a time.

A process that was forked from one with a client begins with no connections: two processes that read
from one connection would get each other's answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from math import inf
from socket import IPPROTO_TCP, SHUT_RDWR, SOCK_STREAM, TCP_NODELAY, getaddrinfo, socket
from ssl import SSLContext, create_default_context
from threading import Lock
from time import monotonic
from typing import Any, Protocol
from weakref import WeakSet

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.connection_pool import ConnectionPool, Turn
from batcher.client.errors import AnswerLost, ClientClosed, NotConnected
from batcher.client.http_exchange import ResponseReader, request_bytes
from batcher.client.readiness import Readiness
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.retrying import CONNECT_TIMEOUT_S
from batcher.client.server_address import ServerAddress

_PIECE_BYTES = 1 << 16
MAX_WAIT_S = 1e6
"""Longest wait that is asked of the system, twelve days: much longer ones are an error there."""
_LEAST_WAIT_S = 1e-3
"""Least wait that is asked for: 0 would mean not to wait, and fail otherwise."""

_LATE_S = 1e-3
"""How much later than its time a call may end: the system counts such waits in milliseconds.

To set the wait of a socket anew is a call of the system, and another thread goes on meanwhile.
"""

Connect = Callable[[float], socket]
"""Makes a connected socket within so many seconds."""

Open = Callable[[float], Any]
"""Makes a connection within so many seconds; raises OSError."""


def tcp(server: ServerAddress, ssl_context: SSLContext | None) -> Connect:
    """Return what connects to `server` by TCP, and by TLS where its address is `https`."""
    secure = (ssl_context or create_default_context()) if server.is_secure else None

    def connect(seconds: float) -> socket:
        made = _connected(server, seconds)
        made.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if secure is None:
            return made
        try:
            return secure.wrap_socket(made, server_hostname=server.host)
        except BaseException:
            made.close()
            raise

    return connect


def _connected(server: ServerAddress, seconds: float) -> socket:
    """Return a socket to the first of the server's addresses that answers.

    Each address gets its share of the seconds that are left, so that one that is silent, as that
    of a network that is not there, does not keep the call from the others.

    Raises:
        OSError: none answers; the error is that of the first address.
    """
    end = monotonic() + seconds
    addresses = getaddrinfo(server.host, server.port, type=SOCK_STREAM)
    errors: list[OSError] = []
    for index, (family, kind, protocol, _, where) in enumerate(addresses):
        made = socket(family, kind, protocol)
        try:
            made.settimeout(max((end - monotonic()) / (len(addresses) - index), _LEAST_WAIT_S))
            made.connect(where)
            made.settimeout(max(end - monotonic(), _LEAST_WAIT_S))
            return made
        except BaseException as err:
            made.close()
            if not isinstance(err, OSError):
                raise
            errors.append(err)
    raise errors[0]


class Connection:
    """A connection of the client's; one request at a time, of one thread."""

    def __init__(
        self, connected: socket, options: ClientOptions, seconds: Callable[[], float]
    ) -> None:
        """Ask by a connected socket."""
        self._options = options
        self._socket = connected
        self._seconds = seconds
        self._wait = -1.0  # seconds that the socket waits, once they are set
        self._reader = ResponseReader(options.max_answer_bytes)
        self._has_come = Readiness(connected.fileno())

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent: a server that closed, or sent unasked, is left."""
        return self._reader.is_reusable and not self._has_come

    @property
    def is_reusable(self) -> bool:
        """Whether the last response allows another request."""
        return self._reader.is_reusable

    def ask(self, request: HttpRequest, attempts: Attempts[Any]) -> HttpResponse:
        """Send a request and return the response.

        Raises:
            AnswerLost: the connection ended before the response was whole.
            DeadlineExceeded: the time is over.
        """
        self._reader.expect()
        try:
            broken = self._send(request_bytes(request, self._options), attempts)
            return self._receive(attempts, broken)
        except TimeoutError as err:
            raise attempts.expired() from err

    def stop(self) -> None:
        """Wake the thread that waits for the response."""
        with suppress(OSError):  # the other side may be faster
            self._socket.shutdown(SHUT_RDWR)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _send(self, data: bytes, attempts: Attempts[Any]) -> OSError | None:
        """Send; a server that refuses a large request may answer, and close, before its end."""
        try:
            self._bound(attempts)
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as err:
            return err
        return None

    def _receive(self, attempts: Attempts[Any], broken: OSError | None) -> HttpResponse:
        response, data = None, b"-"
        while response is None and data:
            self._bound(attempts)
            try:
                data = self._socket.recv(_PIECE_BYTES)
            except TimeoutError:
                raise
            except (OSError, ValueError) as err:  # ValueError: TLS that `stop` has ended
                raise _lost(broken or err) from err
            response = self._reader.feed(data) if data else self._reader.end()
        if response is None:
            raise _lost(broken or "the server closed it")
        return response

    def _bound(self, attempts: Attempts[Any]) -> None:
        seconds_left = attempts.seconds_left(self._seconds())
        if seconds_left <= 0:
            raise attempts.expired()
        wait = min(seconds_left, MAX_WAIT_S)
        if abs(wait - self._wait) > _LATE_S:
            self._wait = wait
            self._socket.settimeout(wait if seconds_left < inf else None)


class SharedSockets:
    """The connections of one client, which many threads share.

    Attributes:
        is_closed: whether the client is closed.
    """

    def __init__(self, limit: int, connect: Open, seconds: Callable[[], float]) -> None:
        """Keep at most `limit` connections, which `connect` makes."""
        self._limit = limit
        self._connect = connect
        self._seconds = seconds
        self.is_closed = False
        self._start()
        OF_THIS_PROCESS.add(self)

    def exchange(self, attempts: Attempts[Any]) -> HttpResponse:
        """Send the request of the next attempt, and return the response.

        Raises:
            ClientFailure: there is none.
        """
        connection = self.take(attempts)
        try:
            request, _ = attempts.next_request(self._seconds())
            response = connection.ask(request, attempts)
        except BaseException:
            self.end(connection)
            raise
        self.give_back(connection)
        return response

    def take(self, attempts: Attempts[Any]) -> Connection:
        """Return a connection for one exchange; the caller gives it back, or ends it.

        Raises:
            ClientClosed: the client is closed.
            DeadlineExceeded: the time was over before the turn had come.
            NotConnected: no connection could be made.
        """
        with self._lock:
            connection = self._pool.idle(self._seconds())
            needs_turn = connection is None and not self._pool.has_place()
        if needs_turn:
            connection = self._granted(attempts)
        if connection is not None:
            if connection.is_usable:
                return connection
            self._close(connection)
        try:
            return self._opened(attempts)
        except BaseException:
            with self._lock:
                self._pool.give_up()
            raise

    def give_back(self, connection: Connection) -> None:
        """Pass on a connection after an exchange; it ends if it may not be used again."""
        if connection.is_reusable and not self.is_closed:
            with self._lock:
                self._pool.give_back(connection, self._seconds())
        else:
            self.end(connection)

    def end(self, connection: Connection) -> None:
        """End a connection whose exchange failed, and pass on its place."""
        self._close(connection)
        with self._lock:
            self._pool.give_up()

    def close(self) -> None:
        """End all connections; who waits for one is told."""
        with self._lock:
            self.is_closed = True
            for turn in self._pool.close():
                turn.grant(None)
            for connection in list(self._all):
                connection.stop()

    def begin_anew(self) -> None:
        """Leave the connections to the process that this one was forked from."""
        inherited = self._all
        self._start()
        for connection in inherited:
            connection.close()

    def _start(self) -> None:
        self._lock = Lock()
        self._all: set[Connection] = set()
        self._pool: ConnectionPool[Connection] = ConnectionPool(self._limit, self._close)

    def _granted(self, attempts: Attempts[Any]) -> Connection | None:
        waiting = Lock()  # taken twice: whose turn has come lets go of it for the one who waits
        waiting.acquire()
        turn: Turn[Connection] = Turn(waiting.release)
        with self._lock:
            self._pool.wait(turn)
        try:
            seconds_left = attempts.seconds_left(self._seconds())
            if not waiting.acquire(
                timeout=min(seconds_left, MAX_WAIT_S) if seconds_left > 0 else 0
            ):
                raise attempts.expired()
        except BaseException:
            with self._lock:
                self._pool.leave(turn, self._seconds())
            raise
        return turn.connection

    def _opened(self, attempts: Attempts[Any]) -> Connection:
        if self.is_closed:
            raise _closed()
        seconds_left = attempts.seconds_left(self._seconds())
        if seconds_left <= 0:
            raise attempts.expired()
        try:
            connection: Connection = self._connect(min(seconds_left, CONNECT_TIMEOUT_S))
        except OSError as err:
            if attempts.seconds_left(self._seconds()) <= 0:
                raise attempts.expired() from err
            raise NotConnected(f"expected a connection; got none: {err}") from err
        with self._lock:
            self._all.add(connection)
        if self.is_closed:  # meanwhile: `close` may not have seen this connection
            self._close(connection)
            raise _closed()
        return connection

    def _close(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()


class Forked(Protocol):
    """What begins anew in a process that was forked from its own."""

    def begin_anew(self) -> None:
        """Leave to the other process what belongs to it."""
        ...


OF_THIS_PROCESS: WeakSet[Forked] = WeakSet()
"""What a forked process must not share with the one that it was forked from."""


def _begin_anew() -> None:
    for each in list(OF_THIS_PROCESS):
        each.begin_anew()


if hasattr(os, "register_at_fork"):  # not every system forks
    os.register_at_fork(after_in_child=_begin_anew)


def _closed() -> ClientClosed:
    return ClientClosed("expected an open client; got a closed one")


def _lost(reason: object) -> AnswerLost:
    return AnswerLost(f"expected an answer; the connection broke: {reason}")
