"""Calls of the blocking form to one server, and how their connections are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import random
from socket import socket
from ssl import SSLContext
from typing import Any, NamedTuple, TypeVar

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.errors import ClientClosed, ClientFailure
from batcher.client.server_address import CurveKeys
from batcher.client.shared_sockets import Connect, Connection, Open, SharedSockets, tcp

Result = TypeVar("Result")


class BlockingCalls:
    """Runs the calls of one client. Any thread.

    Attributes:
        options: what holds for all calls.
        sockets: the connections.
    """

    def __init__(
        self,
        options: ClientOptions,
        sockets: SharedSockets,
        seconds: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        """Store the arguments."""
        self.options = options
        self.sockets = sockets
        self._seconds = seconds
        self._sleep = sleep

    def call(self, attempts: Attempts[Result]) -> Result:
        """Return what the operation's response says, after as many attempts as it takes."""
        while True:
            try:
                return attempts.read(self.sockets.exchange(attempts), time.time())
            except ClientFailure as err:
                if self.sockets.is_closed:
                    raise ClientClosed("expected an open client; got a closed one") from err
                wait = attempts.next_wait(err, self._seconds(), random())
            self._sleep(wait)

    def close(self) -> None:
        """End all connections; calls that have not ended raise `ClientClosed`."""
        self.sockets.close()


class BlockingSetup(NamedTuple):
    """How the calls of one client connect, wait and tell the time, whichever server they are to.

    Attributes:
        connections: most connections at once to a server.
        connect: makes a connected socket within so many seconds; None for one to the address.
        ssl_context: what an `https` server must prove; None for the system's usual.
        curve: keys for servers of ZeroMQ that ask for some.
        seconds: a clock that never goes back.
        sleep: waits for so many seconds.
    """

    connections: int
    connect: Callable[[float], socket] | None
    ssl_context: SSLContext | None
    curve: CurveKeys | None
    seconds: Callable[[], float]
    sleep: Callable[[float], None]

    def calls(self, options: ClientOptions) -> BlockingCalls:
        """Return what makes the calls to one server."""
        sockets = SharedSockets(self.connections, self._opening(options), self.seconds)
        return BlockingCalls(options, sockets, self.seconds, self.sleep)

    def _opening(self, options: ClientOptions) -> Open:
        """Return what opens a connection, of HTTP or of ZeroMQ as the address says."""
        if not options.address.endpoint:
            made: Connect = self.connect or tcp(options.address, self.ssl_context)
            return lambda left: Connection(made(left), options, self.seconds)
        # here, since only such an address needs the library
        from batcher.client.zeromq_blocking import ZeromqConnection

        def connected(left: float) -> Any:
            connection = ZeromqConnection(options, self.curve, self.seconds)
            try:
                connection.connect(left)
            except BaseException:
                connection.close()
                raise
            return connection

        return connected
