"""The connections of the generator, with sockets and transports in memory."""

from __future__ import annotations

from typing import Any, cast

import pytest

from benchmarks.loadgen.client import Connection, Pool, Target
from benchmarks.loadgen.traffic import Traffic
from tests.benchmarks.loadgen.doubles import open_loop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class Sockets:
    """Socket, transport and future of one connection, in memory."""

    def __init__(self, accepts: int | type[OSError] = 1000) -> None:
        self.accepts = accepts
        self.written = b""
        self.events: list[str] = []

    def send(self, data: bytes) -> int:
        if not isinstance(self.accepts, int):
            raise self.accepts
        self.written += data[: self.accepts]
        return min(len(data), self.accepts)

    def write(self, data: bytes) -> None:
        self.events.append("write")
        self.written += data

    def abort(self) -> None:
        self.events.append("abort")

    def close(self) -> None:
        self.events.append("close")

    def done(self) -> bool:
        return "closed" in self.events

    def set_result(self, result: None) -> None:
        self.events.append("closed")


class Trip:
    """A connection in memory with one request, due at 1.0, under way."""

    def __init__(self, sockets: Sockets | None = None) -> None:
        self.sockets = sockets or Sockets()
        traffic, self.tally, self.clock = open_loop(1.0, 50.0)
        self.traffic: Traffic = traffic
        self.pool = Pool(Target(0, (), b"REQUEST", 5.0), traffic, self.clock)
        self.pool.tally = self.tally
        self.connection = Connection(self.pool, cast(Any, self.sockets), cast(Any, self.sockets))
        self.connection.connection_made(cast(Any, self.sockets))
        self.clock.now = 1.0
        traffic.send_due(1.0)
        self.clock.now = 3.0

    @property
    def ends(self) -> tuple[int, dict[str, int]]:
        return self.tally.answers, {
            kind: count for kind, count in self.tally.errors.items() if count
        }


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_an_answer_in_two_pieces_is_one_answer(cut: int) -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER[:cut])
    assert trip.ends == (0, {})
    trip.connection.data_received(ANSWER[cut:])
    assert trip.ends == (1, {})
    assert list(trip.tally.latencies[200]) == [2.0]


def test_a_connection_carries_one_request_after_the_other() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.clock.now = 50.0
    trip.traffic.send_due(50.0)
    trip.connection.data_received(ANSWER.replace(b"200 OK", b"503 Busy"))
    assert trip.sockets.written == b"REQUEST" * 2
    assert {status: len(times) for status, times in trip.tally.latencies.items()} == {
        200: 1,
        503: 1,
    }


def test_an_informational_answer_is_passed_over() -> None:
    trip = Trip()
    trip.connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert trip.ends == (0, {})
    trip.connection.data_received(ANSWER)
    assert trip.ends == (1, {})


def test_an_answer_that_closes_ends_the_connection_without_an_error() -> None:
    trip = Trip()
    trip.connection.data_received(CLOSING)
    assert trip.sockets.events == ["close"]
    assert not trip.connection.open
    trip.connection.connection_lost(None)
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["close", "closed"]


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        ANSWER + ANSWER,
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
def test_what_is_not_one_answer_is_a_protocol_error_and_ends_the_connection(data: bytes) -> None:
    trip = Trip()
    trip.connection.data_received(data)
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"protocol": 1})
    assert trip.sockets.events == ["abort", "closed"]


def test_bytes_behind_a_good_answer_cost_the_connection_but_not_the_answer() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER + b"garbage")
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["close"]


def test_an_answer_nobody_asked_for_ends_the_connection_and_counts_nowhere() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.connection.data_received(ANSWER)
    assert trip.ends == (1, {})
    assert trip.sockets.events == ["abort"]


def test_a_lost_connection_resets_the_request_under_way_once() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER[:-1])
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"reset": 1})
    assert trip.pool.connections == set()


def test_a_lost_idle_connection_is_no_error() -> None:
    trip = Trip()
    trip.connection.data_received(ANSWER)
    trip.connection.connection_lost(ConnectionResetError())
    assert trip.ends == (1, {})


def test_a_request_without_an_answer_times_out_once_and_ends_its_connection() -> None:
    trip = Trip()
    trip.pool.expire(1.0)
    assert trip.pool.busy
    trip.pool.expire(1.5)
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"timeout": 1})
    assert not trip.pool.busy


@pytest.mark.parametrize("accepts", [3, BlockingIOError])
def test_what_the_socket_does_not_take_goes_to_the_transport_in_order(
    accepts: int | type[OSError],
) -> None:
    trip = Trip(Sockets(accepts))
    assert trip.sockets.written == b"REQUEST"
    trip.sockets.accepts = (
        1000  # it has room again, but the transport may still hold bytes that come first
    )
    trip.connection.data_received(ANSWER)
    trip.clock.now = 50.0
    trip.traffic.send_due(50.0)
    assert trip.sockets.written == b"REQUEST" * 2
    assert trip.sockets.events == ["write", "write"]


def test_a_broken_socket_is_a_reset() -> None:
    trip = Trip(Sockets(BrokenPipeError))
    assert trip.sockets.events == ["abort"]
    trip.connection.connection_lost(None)
    assert trip.ends == (0, {"reset": 1})
