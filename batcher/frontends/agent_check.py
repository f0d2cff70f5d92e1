"""HAProxy's agent check: a port that tells the server's weight to whoever connects.

HAProxy connects every `agent-inter`, reads one line, and closes. The line is a percentage such as
`75%`: HAProxy gives the server that part of the weight in its configuration. `0%` takes the server
out, and HAProxy shows it as DRAIN.

The protocol knows words too (`drain`, `maint`, `down` and those that take them back). None is said:
`drain` could only be taken back by `ready`, and that would also undo what an operator has told
HAProxy by hand. Whether the server is up is the matter of HAProxy's health check.

Source: `agent-check` in HAProxy's configuration manual, section 5.2.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from batcher.errors import ConfigError
from batcher.frontends.listening.sockets import close_listeners, tcp_sockets

MAX_ASKING = 64
"""Connections at a time; more are closed. A balancer has one, for some milliseconds."""

ASKING_LIMIT_S = 5.0
"""Seconds after which a connection is closed that its other side has not closed."""


class AgentCheck(Factory):
    """Answers each connection with the weight. Reactor thread.

    Attributes:
        asking: connections that are open.
    """

    noisy = False

    def __init__(self, percent: Callable[[], int], clock: IReactorTime) -> None:
        """Store the arguments: `percent` returns the weight, 0 to 100."""
        self.percent = percent
        self.clock = clock
        self.asking = 0

    def buildProtocol(self, address: object) -> Asked | None:
        """Return what answers one connection; None closes it."""
        return Asked(self) if self.asking < MAX_ASKING else None


class Asked(Protocol):
    """One connection: says the weight, and waits until the other side closes. Reactor thread."""

    def __init__(self, check: AgentCheck) -> None:
        """Wait for the connection."""
        self._check = check
        self._limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Say the weight."""
        self._check.asking += 1
        transport: Any = self.transport
        self._limit = self._check.clock.callLater(ASKING_LIMIT_S, transport.abortConnection)
        transport.write(b"%d%%\n" % self._check.percent())
        # Not all of it: to close on what the other side has sent, unread, would take the line back.
        transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Pass over what `agent-send` may say: there is one weight for all who ask."""

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Forget the connection."""
        self._check.asking -= 1
        if self._limit is not None and self._limit.active():
            self._limit.cancel()


def listen_for_checks(
    reactor: Any, host: str, port: int, percent: Callable[[], int]
) -> Sequence[IListeningPort]:
    """Listen on `port` of every address of `host`, and answer with `percent()`.

    Raises:
        ConfigError: the port cannot be had.
    """
    try:
        listeners = tcp_sockets(host, port, reuse_port=False)
    except OSError as err:
        raise ConfigError(
            f"agent_check_port: expected a free port of {host}; got {port}: {err.strerror}"
        ) from err
    check = AgentCheck(percent, reactor)
    try:
        return [_adopted(reactor, each, check) for each in listeners]
    finally:
        close_listeners(listeners)  # the reactor has copies


def _adopted(reactor: Any, listener: socket.socket, check: AgentCheck) -> IListeningPort:
    found: IListeningPort = reactor.adoptStreamPort(listener.fileno(), listener.family, check)
    return found
