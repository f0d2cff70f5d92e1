"""A Redis in memory, whose replies come when the clock says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure


class Wire(StringTransport):
    """One connection, from the client's side.

    Attributes:
        is_open: whether neither side has ended it.
    """

    def __init__(self, redis: MemoryRedis, clock: Clock) -> None:
        super().__init__()
        self._redis, self._clock = redis, clock
        self.protocol: Any = None
        self.is_open = True
        self._unread = b""

    def write(self, data: bytes) -> None:
        """Take the bytes of commands, and reply to each after the delay of now."""
        self._unread += data
        while (command := self._command()) is not None:
            reply = self._redis.reply(command)
            if self._redis.delay is not None:
                self._clock.callLater(self._redis.delay, self.send, reply)

    def send(self, data: bytes) -> None:
        """Have the client get `data`, if it still listens."""
        if self.is_open:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self.end(ConnectionDone())

    def abortConnection(self) -> None:
        self.end(ConnectionAborted())

    def end(self, error: Exception) -> None:
        """End the connection; the client hears of it on a later turn."""
        if self.is_open:
            self.is_open = False
            self._clock.callLater(0, self.protocol.connectionLost, Failure(error))

    def _command(self) -> list[bytes] | None:
        """Take one whole command off what has come."""
        head, found, rest = self._unread.partition(b"\r\n")
        if not found:
            return None
        words = []
        for _ in range(int(head[1:])):
            length, _, rest = rest.partition(b"\r\n")
            size = int(length[1:])
            words.append(rest[:size])
            rest = rest[size + 2 :]
        self._unread = rest
        return words


class MemoryRedis:
    """What several clients share.

    Attributes:
        values: by key.
        commands: every command that came, but logins.
        wires: every connection so far.
        delay: seconds from a command to its reply; None for a Redis that hangs.
        is_down: whether it refuses connections.
        shake_hands: what becomes of the handshake of a new connection, where clients want TLS.
        password: what a client has to log in with.
        logins: attempts to log in.
        forge: makes another reply of one.
    """

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.commands: list[list[bytes]] = []
        self.wires: list[Wire] = []
        self.delay: float | None = 0.0
        self.is_down = False
        self.shake_hands: Callable[[Wire], object] = lambda wire: None
        self.password = b""
        self.logins = 0
        self.forge: Callable[[bytes], bytes] = lambda reply: reply

    @property
    def open_wires(self) -> list[Wire]:
        """The connections that are there."""
        return [wire for wire in self.wires if wire.is_open]

    def at(self, clock: Clock) -> Callable[[Any], Deferred[Any]]:
        """Return what connects a factory of a client whose time is `clock`."""

        def connect(factory: Any) -> Deferred[Any]:
            if self.is_down:
                return fail(ConnectionRefusedError())
            wire = Wire(self, clock)
            wire.protocol = factory.buildProtocol(None)
            self.wires.append(wire)
            wire.protocol.makeConnection(wire)
            clock.callLater(0, self.shake_hands, wire)
            return succeed(wire.protocol)

        return connect

    def reply(self, command: list[bytes]) -> bytes:
        """Do what `command` says."""
        name, *words = command
        if name == b"AUTH":
            self.logins += 1
            right = words[-1] == self.password
            return b"+OK\r\n" if right else b"-WRONGPASS for " + words[-1] + b"\r\n"
        if name == b"SELECT":
            return b"+OK\r\n"
        self.commands.append(command)
        if name == b"SET":
            self.values[words[0]] = words[1]
            return b"+OK\r\n"
        assert name == b"GETRANGE", command
        value = self.values.get(words[0], b"")[: int(words[2]) + 1]
        return self.forge(b"$%d\r\n%b\r\n" % (len(value), value))

    def close(self) -> None:
        """End every connection, and begin no more."""
        self.is_down = True
        for wire in self.open_wires:
            wire.end(ConnectionDone())
