"""How connections are taken, by a loop and sockets that the test moves."""

from __future__ import annotations

import asyncio
import errno
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from batcher.frontends.listening.asyncio_ports import LoopPorts
from batcher.frontends.listening.sockets import ACCEPT_PAUSE_S, ACCEPTS_PER_TURN
from batcher.frontends.listening.tls import Tls
from batcher.frontends.listening.tls_transport import MAX_TLS_WRITE_BYTES, TlsTransport
from tests.support.crossing import PATIENCE

LIMITS: Any = SimpleNamespace(connections=2, header_timeout=15.0)


def connection() -> Any:
    """Make no protocol: the loop of these tests has no use for one."""


class Listener:
    """A listening socket.

    Attributes:
        waiting: connections that were completed, and errors that taking the next one ends with.
    """

    def __init__(self, *waiting: object) -> None:
        self.waiting = list(waiting)

    def fileno(self) -> int:
        return 7

    def dup(self) -> Listener:
        return self

    def accept(self) -> tuple[Any, None]:
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found, None


class Loop:
    """What the ports need of a loop.

    Attributes:
        readers: by descriptor, what is called where there is something to read.
        later: what is to be called, after how many seconds.
        taken: connections that were given a protocol.
        how: what was said about the last of them.
    """

    def __init__(self) -> None:
        self.readers: dict[int, Any] = {}
        self.later: list[tuple[float, Any]] = []
        self.taken: list[object] = []
        self.how: dict[str, Any] = {}

    def add_reader(self, fileno: int, function: Any, *arguments: object) -> None:
        self.readers[fileno] = lambda: function(*arguments)

    def remove_reader(self, fileno: int) -> None:
        self.readers.pop(fileno, None)

    def call_later(self, seconds: float, function: Any, *arguments: object) -> None:
        self.later.append((seconds, lambda: function(*arguments)))

    def connect_accepted_socket(self, factory: object, connection: object, **how: object) -> object:
        self.how = how
        return connection

    def create_task(self, connection: object) -> Any:
        self.taken.append(connection)
        return Task()


class Task:
    """The taking of one connection."""

    def add_done_callback(self, function: object) -> None:
        pass


def opened(listener: Listener, tls: Tls | None = None) -> tuple[Loop, LoopPorts]:
    loop: Any = Loop()  # as much as is called
    listeners: Any = [listener]
    ports = LoopPorts(loop, connection, lambda: LIMITS, listeners, tls)
    ports.open()
    return loop, ports


class Encrypting:
    """A TLS transport of uvloop: what it has passed on it does not count.

    Attributes:
        written: the pieces that came.
        passed_on: whether nothing waits in it.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.passed_on = False

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0 if self.passed_on else len(b"".join(self.written))

    def close(self) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return SimpleNamespace(fileno=lambda: 7) if name == "socket" else None

    write_eof = can_write_eof = abort = pause_reading = resume_reading = close
    is_closing = set_protocol = close


def test_a_big_answer_is_encrypted_piece_by_piece() -> None:
    transport = Encrypting()
    data = bytes(range(256)) * (MAX_TLS_WRITE_BYTES // 256 * 2 + 1)
    TlsTransport(transport).write(data)
    assert [len(piece) for piece in transport.written] == [
        MAX_TLS_WRITE_BYTES,
        MAX_TLS_WRITE_BYTES,
        256,
    ]
    assert b"".join(transport.written) == data


def test_at_the_end_what_the_system_has_counts_as_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fcntl.ioctl", lambda fileno, request, empty: (300).to_bytes(4, sys.byteorder)
    )
    transport = Encrypting()
    tls = TlsTransport(transport)
    tls.write(b"answer")
    assert tls.get_write_buffer_size() == 6
    transport.passed_on = True
    assert tls.get_write_buffer_size() == 0
    tls.close()
    assert tls.get_write_buffer_size() == 300


def test_no_more_shake_hands_than_there_may_be_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    monkeypatch.setattr("batcher.frontends.listening.asyncio_ports.tls_context", lambda *_: context)
    waiting = [SimpleNamespace(closed=[]) for _ in range(4)]
    for connection in waiting:
        connection.close = lambda closed=connection.closed: closed.append(True)
    loop, _ = opened(Listener(*waiting), Tls(Path("c.pem"), Path("k.pem")))
    loop.readers[7]()
    assert loop.taken == waiting[:2]
    assert [bool(connection.closed) for connection in waiting] == [False, False, True, True]
    assert loop.how["ssl_handshake_timeout"] == LIMITS.header_timeout


def test_all_that_wait_are_taken_in_one_turn() -> None:
    loop, _ = opened(Listener(*range(10)))
    loop.readers[7]()
    assert loop.taken == list(range(10))


def test_of_a_flood_only_so_many_are_taken_in_one_turn_and_the_others_in_the_next() -> None:
    loop, _ = opened(Listener(*range(ACCEPTS_PER_TURN + 3)))
    loop.readers[7]()
    assert len(loop.taken) == ACCEPTS_PER_TURN
    loop.readers[7]()
    assert loop.taken == list(range(ACCEPTS_PER_TURN + 3))


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EINTR])
def test_one_that_is_gone_again_does_not_hold_up_the_next(number: int) -> None:
    loop, _ = opened(Listener(1, OSError(number, "gone"), 2))
    loop.readers[7]()
    assert loop.taken == [1, 2]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_descriptors_or_memory_it_rests_before_it_tries_again(number: int) -> None:
    listener = Listener(1, OSError(number, "none is left"), 2)
    loop, _ = opened(listener)
    loop.readers[7]()
    assert loop.taken == [1]
    assert loop.readers == {}, "it would be called in every turn"
    ((seconds, again),) = loop.later
    assert seconds == ACCEPT_PAUSE_S
    again()
    loop.readers[7]()
    assert loop.taken == [1, 2]


def test_a_port_that_was_closed_while_it_rested_stays_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "batcher.frontends.listening.asyncio_ports.take_all_and_close",
        lambda listener: iter(()),
    )
    monkeypatch.setattr(
        "batcher.frontends.listening.asyncio_ports.close_listeners", lambda listeners: None
    )
    listener = Listener(OSError(errno.EMFILE, "none is left"))
    loop, ports = opened(listener)
    loop.readers[7]()
    ports.close()
    loop.later[0][1]()
    assert loop.readers == {}


def test_a_connection_that_has_just_been_taken_is_no_hindrance_to_closing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def taken(*_: object, **__: object) -> None:
        """Be taken at once."""

    async def close() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "add_reader", lambda *_: None)
        monkeypatch.setattr(loop, "connect_accepted_socket", taken)
        listeners: Any = [Listener(1)]
        ports = LoopPorts(loop, connection, lambda: LIMITS, listeners, None)
        ports.open()
        ports._accept(Listener(1))  # type: ignore[arg-type]
        closed: asyncio.Future[Any] = loop.create_future()
        loop.call_soon(
            lambda: ports.close().addCallbacks(
                closed.set_result, lambda failure: closed.set_exception(failure.value)
            )
        )
        await asyncio.wait_for(closed, PATIENCE)

    monkeypatch.setattr(
        "batcher.frontends.listening.asyncio_ports.take_all_and_close",
        lambda listener: iter(()),
    )
    monkeypatch.setattr(
        "batcher.frontends.listening.asyncio_ports.close_listeners", lambda listeners: None
    )
    asyncio.run(close())
