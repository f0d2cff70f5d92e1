"""The two ends of a connection, by transports and a port that the test moves."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.frontends.grpc.closing_log import LOG_INTERVAL_S, ClosingLog
from batcher.frontends.grpc.connection_ends import LINGER_S, LOOK_INTERVAL_S, ClientEnd, LibraryEnd
from batcher.frontends.grpc.frames import END_HEADERS, END_STREAM, HEADERS, NO_MORE_CALLS
from batcher.frontends.grpc.open_calls import MAX_OPEN_CALLS
from batcher.frontends.grpc.opening import PREFACE
from batcher.frontends.listening.ending import DRAIN_GRACE_S

SETTINGS = bytes(3) + struct.pack(">BBI", 4, 0, 0)
ACKNOWLEDGED = bytes(3) + struct.pack(">BBI", 4, 1, 0)
CALL = bytes(3) + struct.pack(">BBI", HEADERS, END_HEADERS, 1)
HALF_ANSWER = bytes(3) + struct.pack(">BBI", HEADERS, END_HEADERS, 1)
END_OF_ANSWER = bytes(3) + struct.pack(">BBI", HEADERS, END_HEADERS | END_STREAM, 1)
LIMITS = SimpleNamespace(connections=4, header_timeout=5.0, write_timeout=10.0)


class Transport:
    """One side's transport.

    Attributes:
        events: what was done with it.
        written: the bytes that were written.
        unsent: bytes of them that the peer has not read.
        peer: the address of the peer; None if the peer is gone.
    """

    def __init__(self, peer: tuple[str, int] | None = ("192.0.2.1", 5000)) -> None:
        self.events: list[str] = []
        self.written = b""
        self.unsent = 0
        self.peer = peer
        self.protocol: Any = None

    def __getattr__(self, name: str) -> Any:
        return lambda: self.events.append(name)

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        assert name == "peername"
        return self.peer

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return "abort" in self.events or "close" in self.events


class Port:
    """What the ends need of the port; connections to the library are made by `library`.

    Attributes:
        unreachable_for: tries for which the library cannot be reached.
    """

    def __init__(self) -> None:
        self.loop: Any = SimpleNamespace(call_later=lambda *_: None)
        self.loop.connect_accepted_socket = self.library
        self.has_tls = self.is_draining = self.is_over = False
        self.ends: set[ClientEnd] = set()
        self.waited_for: set[ClientEnd] = set()
        self.peers: dict[str, str] = {}
        self.limits: Any = lambda: LIMITS
        self.seconds = 0.0
        self.closings = ClosingLog(lambda: self.seconds)
        self.answering = True
        self.is_answering = lambda: self.answering
        self.unreachable_for = 0
        self.reasons: list[OSError] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.inner = Transport()

    async def library(self, protocol: Any, inner: Any) -> None:
        protocol().connection_made(self.inner)

    def connected(self) -> Any:
        if self.unreachable_for:
            self.unreachable_for -= 1
            raise ConnectionRefusedError
        return SimpleNamespace(getsockname=lambda: b"\x0000001")

    def unreachable(self, reason: OSError) -> None:
        self.reasons.append(reason)

    def begin(self, connecting: Any) -> None:
        self.tasks.append(connecting)

    def lost(self, end: ClientEnd) -> None:
        self.ends.discard(end)
        self.waited_for.discard(end)

    def forget(self, name: str, peer: str) -> None:
        pass

    def run(self) -> None:
        """Make the connections to the library."""
        for task in self.tasks:
            asyncio.run(task)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batcher.frontends.grpc.connection_ends.CONNECT_AGAIN_S", 0)


def taken(port: Port) -> tuple[ClientEnd, Transport]:
    end, transport = ClientEnd(port), Transport()
    end.connection_made(transport)
    return end, transport


def opened(port: Port) -> tuple[ClientEnd, Transport]:
    """Return a connection that has opened, and its client's transport."""
    end, transport = taken(port)
    port.run()
    library = end.other
    assert isinstance(library, LibraryEnd)
    library.data_received(SETTINGS)
    end.data_received(PREFACE + ACKNOWLEDGED)
    assert port.waited_for == set()
    return end, transport


def looks(end: ClientEnd, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_INTERVAL_S)):
        end.look()


def test_a_client_that_is_gone_again_is_let_go() -> None:
    port, transport = Port(), Transport(peer=None)
    end = ClientEnd(port)
    end.connection_made(transport)
    assert transport.events == ["abort"]
    end.connection_lost(None)
    assert (port.ends, port.waited_for, port.tasks) == (set(), set(), [])


def test_a_client_waits_for_a_library_that_begins_again_and_loses_no_byte() -> None:
    port = Port()
    port.unreachable_for = 3
    end, transport = taken(port)
    end.data_received(PREFACE[:5])
    end.data_received(PREFACE[5:])
    port.run()
    assert len(port.reasons) == 3
    assert port.inner.written == PREFACE
    assert transport.events == ["pause_reading", "resume_reading"]
    assert port.peers == {"unix-abstract:00001": "192.0.2.1:5000"}


def test_once_the_library_has_ended_for_good_no_client_waits() -> None:
    port = Port()
    port.unreachable_for = 3
    port.is_over = True
    _, transport = taken(port)
    port.run()
    assert transport.events == ["abort"]


def test_a_client_that_leaves_while_the_library_is_reached_is_written_nothing() -> None:
    port = Port()
    end, transport = taken(port)
    transport.abort()
    end.connection_lost(None)
    asyncio.run(port.library(lambda: end.other, None))
    assert port.inner.events == ["abort"]
    end.other.data_received(b"settings")
    assert transport.written == b""
    port.tasks[0].close()


def test_a_connection_has_limited_time_to_open_whatever_it_reads() -> None:
    port = Port()
    end, transport = taken(port)
    port.run()
    looks(end, LIMITS.header_timeout - LOOK_INTERVAL_S)
    transport.unsent = 1
    assert transport.events == []
    looks(end, LOOK_INTERVAL_S)
    assert transport.events == ["abort"]


def test_a_client_that_reads_however_slowly_stays_and_one_that_reads_nothing_goes() -> None:
    port = Port()
    end, transport = opened(port)
    transport.unsent = 100
    end.pause_writing()
    assert port.inner.events == ["pause_reading"]
    for unsent in (99, 98):
        looks(end, LIMITS.write_timeout - LOOK_INTERVAL_S)
        transport.unsent = unsent
        end.look()
    end.resume_writing()
    assert port.waited_for == set()
    end.pause_writing()
    assert port.waited_for == {end}
    looks(end, LIMITS.write_timeout)
    assert transport.events == ["abort"]
    end.connection_lost(None)
    assert port.inner.events[-1] == "abort", "its calls are cancelled"
    assert port.waited_for == set()


def test_when_the_library_ends_a_connection_its_client_has_time_to_read_the_last_bytes() -> None:
    port = Port()
    end, transport = opened(port)
    transport.unsent = 100
    end.other.connection_lost(None)
    assert transport.events == ["close"]
    looks(end, LIMITS.write_timeout - LOOK_INTERVAL_S)
    transport.unsent = 0
    end.look()
    looks(end, LINGER_S - LOOK_INTERVAL_S)
    assert transport.events == ["close"], "the last word of TLS may come yet"
    end.look()
    assert transport.events == ["close", "abort"]


def drain(port: Port) -> None:
    port.is_draining = True
    for end in list(port.ends):
        end.drain()


def drained_looks(end: ClientEnd, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_INTERVAL_S)):
        end.look_drained()


def test_a_drained_connection_ends_behind_its_calls_and_its_client_is_told_at_once() -> None:
    port = Port()
    end, transport = opened(port)
    transport.protocol.data_received(CALL)
    drain(port)
    assert transport.written == SETTINGS + NO_MORE_CALLS
    drained_looks(end, 30)
    port.inner.protocol.data_received(END_OF_ANSWER)
    drained_looks(end, DRAIN_GRACE_S - LOOK_INTERVAL_S)
    assert (transport.events, port.inner.events) == ([], [])
    drained_looks(end, LOOK_INTERVAL_S)
    assert (transport.events, port.inner.events) == (["close"], ["abort"])
    drained_looks(end, 30)
    assert (transport.events, port.inner.events) == (["close"], ["abort"])
    assert transport.written == SETTINGS + NO_MORE_CALLS + END_OF_ANSWER


def test_a_call_whose_message_does_not_come_holds_up_no_drain() -> None:
    port = Port()
    end, transport = opened(port)
    transport.protocol.data_received(CALL)
    drain(port)
    drained_looks(end, 30)
    assert transport.events == [], "it may be the call that is being answered"
    port.answering = False
    for _ in range(5):
        transport.protocol.data_received(HALF_ANSWER)  # its message comes, however slowly
        drained_looks(end, DRAIN_GRACE_S)
    transport.unsent = 1
    drained_looks(end, 30)
    assert transport.events == [], "the client has still to read something"
    transport.unsent = 0
    drained_looks(end, DRAIN_GRACE_S)
    assert (transport.events, port.inner.events) == (["close"], ["abort"])


def test_of_connections_that_open_badly_few_lines_tell() -> None:
    port = Port()
    lines: list[str] = []

    def note(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(note)
    for seconds in (0.0, 1.0, LOG_INTERVAL_S - 0.1, LOG_INTERVAL_S, LOG_INTERVAL_S + 1):
        port.seconds = seconds
        end, transport = taken(port)
        port.run()
        port.tasks.clear()
        end.data_received(b"GET / HTTP/1.1")
        assert transport.events == ["abort"]
    globalLogPublisher.removeObserver(note)
    assert len(lines) == 2
    assert "192.0.2.1:5000: expected the preface of HTTP/2" in lines[0]
    assert lines[1].endswith("(2 more since the last such line)")


def test_the_ports_own_frame_stands_between_two_frames_of_the_library() -> None:
    port = Port()
    _, transport = opened(port)
    transport.protocol.data_received(CALL)
    answer = HALF_ANSWER + END_OF_ANSWER
    port.inner.protocol.data_received(answer[:5])
    drain(port)
    assert transport.written == SETTINGS + answer[:5]
    for place in range(5, len(answer)):
        port.inner.protocol.data_received(answer[place : place + 1])
    assert transport.written == SETTINGS + HALF_ANSWER + NO_MORE_CALLS + END_OF_ANSWER


def test_a_client_whose_connection_opens_while_the_port_drains_is_told_with_its_first_call() -> (
    None
):
    port = Port()
    end, transport = taken(port)
    drain(port)
    port.run()
    end.other.data_received(SETTINGS)
    end.data_received(PREFACE + ACKNOWLEDGED)
    assert transport.written == SETTINGS
    drained_looks(end, DRAIN_GRACE_S - LOOK_INTERVAL_S)
    transport.protocol.data_received(CALL)
    assert transport.written == SETTINGS + NO_MORE_CALLS
    drained_looks(end, 30)
    assert transport.events == []


def test_a_client_that_the_library_has_told_of_the_end_is_not_told_again() -> None:
    port = Port()
    _, transport = opened(port)
    port.inner.protocol.data_received(NO_MORE_CALLS)
    drain(port)
    assert transport.written == SETTINGS + NO_MORE_CALLS


def test_a_client_whose_calls_never_end_is_cut_off_before_they_fill_the_memory() -> None:
    port = Port()
    end, transport = opened(port)
    heads = [
        bytes(3) + struct.pack(">BBI", HEADERS, END_HEADERS, 2 * number + 1)
        for number in range(MAX_OPEN_CALLS + 1)
    ]
    transport.protocol.data_received(b"".join(heads[:-1]))
    assert transport.events == []
    transport.protocol.data_received(heads[-1])
    assert transport.events == ["abort"]
    assert not port.inner.written.endswith(heads[-1]), "the library does not see it"
    end.connection_lost(None)
    assert port.ends == set()


def test_a_connection_that_never_reaches_the_library_ends_with_the_grace() -> None:
    port = Port()
    end, transport = taken(port)
    drain(port)
    drained_looks(end, DRAIN_GRACE_S)
    assert transport.events == ["close"]
    port.tasks[0].close()
