"""Ports on a Twisted reactor.

How many connections are taken in a turn, and what happens without room for another.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.frontends.listening.sockets import ACCEPT_PAUSE_S, ACCEPTS_PER_TURN
from batcher.frontends.web.listening.twisted_ports import _TwistedPort

ADDRESS = ("127.0.0.1", 1)


class Connection:
    """A connection that was accepted; it is closed here once the reactor has a copy."""

    family = socket.AF_INET
    closed = False

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


class Listener:
    """A socket at which `waiting` wait: numbers of connections, and errors instead of one."""

    def __init__(self, *waiting: int | OSError) -> None:
        self._waiting = iter(waiting)
        self.given: list[Connection] = []

    def fileno(self) -> int:
        return 7

    def accept(self) -> tuple[Connection, object]:
        found = next(self._waiting, None)
        if found is None:
            raise BlockingIOError
        if isinstance(found, OSError):
            raise found
        self.given.append(Connection(found))
        return self.given[-1], ADDRESS


class Reactor(Clock):
    """A reactor that remembers what it watches and which connections it was given.

    `full` makes it refuse one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.taken: list[int] = []
        self.full: Iterator[bool] = iter(())

    def addReader(self, port: Any) -> None:
        self.readers.add(port)

    def removeReader(self, port: Any) -> None:
        self.readers.discard(port)

    def adoptStreamConnection(self, number: int, family: int, factory: object) -> None:
        if next(self.full, False):
            raise OSError(errno.EMFILE, "none is left")
        self.taken.append(number)


def opened(*waiting: int | OSError) -> tuple[Reactor, _TwistedPort, Listener]:
    reactor, listener = Reactor(), Listener(*waiting)
    port = _TwistedPort(reactor, None, listener)  # type: ignore[arg-type]
    port.watch()
    return reactor, port, listener


def test_many_are_taken_in_one_turn_and_the_rest_in_the_next() -> None:
    reactor, port, listener = opened(*range(ACCEPTS_PER_TURN + 3))
    port.doRead()
    assert reactor.taken == list(range(ACCEPTS_PER_TURN))
    port.doRead()
    assert reactor.taken == list(range(ACCEPTS_PER_TURN + 3))
    assert all(connection.closed for connection in listener.given), "the reactor has copies"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_or_memory_the_port_rests_and_is_read_again(number: int) -> None:
    reactor, port, _ = opened(1, OSError(number, "none is left"), 2)
    port.doRead()
    assert (reactor.taken, reactor.readers) == ([1], set())
    reactor.advance(ACCEPT_PAUSE_S)
    assert reactor.readers == {port}
    port.doRead()
    assert reactor.taken == [1, 2]


def test_a_connection_that_there_is_no_copy_of_is_closed_and_the_port_rests() -> None:
    reactor, port, listener = opened(1, 2)
    reactor.full = iter([True])
    port.doRead()
    assert (reactor.taken, reactor.readers, listener.given[0].closed) == ([], set(), True)
    reactor.advance(ACCEPT_PAUSE_S)
    port.doRead()
    assert reactor.taken == [2]


def test_a_port_that_is_closed_takes_what_waits_and_is_not_watched_again() -> None:
    reactor, port, _ = opened(OSError(errno.EMFILE, "none is left"), 1, 2)
    port.doRead()
    port.close()
    assert reactor.taken == [1, 2]
    reactor.advance(ACCEPT_PAUSE_S)
    assert (reactor.readers, reactor.getDelayedCalls()) == (set(), [])


def test_closing_without_descriptors_ends_all_the_same() -> None:
    reactor, port, _ = opened(1, OSError(errno.EMFILE, "none is left"))
    port.close()
    assert (reactor.taken, reactor.readers) == ([1], set())
