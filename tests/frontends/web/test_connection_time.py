"""Clients that take too long, by a clock that the test turns: idle, slow, blocked, lingering."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import rows
from tests.support.transports import HIGH, Client

Serve = Callable[..., MemoryServer]

BIG = {"defaults": {"max_batch_size": 100_000, "max_queue_rows": 100_000}}
MANY = rows(1).tobytes() * (4 * HIGH // 16)


def answer_one(server: MemoryServer, client: Client) -> None:
    client.send(ask("/predict", ROW))
    server.work()
    assert len(client.answers) == 1


def test_a_kept_connection_without_a_request_is_closed_after_its_idle_time(
    serve: Serve, kind: str
) -> None:
    server = serve(idle_timeout_s=75)
    client = server.connect(kind)
    answer_one(server, client)
    server.wait(74)
    assert not client.closed
    server.wait(2)
    assert client.closed
    assert len(client.answers) == 1
    assert client.unparsed == b""


def test_the_idle_time_begins_anew_with_each_answer(serve: Serve, kind: str) -> None:
    server = serve(idle_timeout_s=75)
    client = server.connect(kind)
    for _ in range(3):
        client.send(ask("/livez"))
        server.wait(60)
    assert not client.closed
    assert len(client.answers) == 3


def test_a_connection_that_never_says_anything_is_closed_after_the_time_for_a_head(
    serve: Serve, kind: str
) -> None:
    server = serve(header_timeout_s=15)
    client = server.connect(kind)
    server.wait(14)
    assert not client.closed
    server.wait(2)
    assert client.closed
    assert client.received == b""


def test_a_slow_head_is_refused_with_408_and_the_connection_closed(serve: Serve, kind: str) -> None:
    server = serve(header_timeout_s=15)
    client = server.connect(kind)
    for byte in ask("/predict", ROW, ("X-Request-Id", "7"))[:30]:
        client.send(bytes([byte]))
        server.wait(0.6)
    (answer,) = client.answers
    assert (answer.status, answer.header("connection"), answer.decoded()["code"]) == (
        408,
        "close",
        "request_timeout",
    )
    assert client.ended
    server.wait(3)
    assert client.closed


def test_a_slow_body_is_refused_with_408_and_its_request_id(serve: Serve, kind: str) -> None:
    server = serve(body_timeout_s=30, min_body_rate=1000)
    client = server.connect(kind)
    client.send(ask("/predict", ROW, ("X-Request-Id", "7"))[:-1])
    server.wait(29)
    assert client.answers == []
    server.wait(2)
    (answer,) = client.answers
    assert (answer.status, answer.header("x-request-id")) == (408, "7")
    assert server.hand_over() == 0


def test_a_body_at_the_least_rate_is_served(serve: Serve, kind: str) -> None:
    server = serve(body_timeout_s=5, min_body_rate=100, **BIG)
    client = server.connect(kind)
    request = ask("/predict", ROW * 100)
    at = len(request) - 1600
    client.send(request[:at])
    for start in range(at, len(request), 100):
        server.wait(1)
        client.send(request[start : start + 100])
    server.work()
    assert [answer.status for answer in client.answers] == [200]


def test_a_request_in_flight_keeps_its_connection_open_beyond_every_idle_time(
    serve: Serve, kind: str
) -> None:
    server = serve(
        idle_timeout_s=5, header_timeout_s=5, body_timeout_s=5, defaults={"timeout_ms": 100_000}
    )
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    server.wait(60)
    assert not client.closed
    server.work()
    assert [answer.status for answer in client.answers] == [200]


@pytest.mark.parametrize(
    "part", [20, -3], ids=["in the middle of a head", "in the middle of a body"]
)
def test_time_in_which_the_server_itself_does_not_read_is_not_held_against_a_request(
    serve: Serve, kind: str, part: int
) -> None:
    server = serve(
        max_pipelined_requests=2,
        header_timeout_s=15,
        body_timeout_s=15,
        defaults={"timeout_ms": 100_000},
    )
    client = server.connect(kind)
    third = ask("/predict", ROW)
    client.send(ask("/predict", ROW) * 2 + third[:part], third[part:])
    server.wait(20)
    assert not client.reads
    server.work()
    server.wait(1)
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200, 200]


def test_a_client_that_reads_nothing_is_cut_off_after_the_write_time(
    serve: Serve, kind: str
) -> None:
    server = serve(write_timeout_s=60, **BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY))
    server.work()
    server.wait(58)
    assert not client.closed
    server.wait(4)
    assert client.aborted
    assert client.closed


def test_a_client_that_reads_slowly_but_steadily_is_never_cut_off(serve: Serve, kind: str) -> None:
    server = serve(write_timeout_s=10, **BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY))
    server.work()
    for _ in range(len(MANY) // 10_000 + 2):
        client.read(10_000)
        server.wait(8)
    assert [len(answer.body) for answer in client.answers] == [len(MANY)]


@pytest.mark.parametrize(
    "size", [HIGH // 2, 4 * HIGH], ids=["below the high-water mark", "above it"]
)
@pytest.mark.parametrize("how", [("Connection", "close"), ("X", "1.0")], ids=["close", "HTTP/1.0"])
def test_a_slow_reader_of_a_closing_connection_gets_its_whole_answer(
    serve: Serve, kind: str, size: int, how: tuple[str, str]
) -> None:
    server = serve(write_timeout_s=10, **BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", ROW * (size // 16), how, version="1.0" if how[0] == "X" else "1.1"))
    server.work()
    for _ in range(60):
        client.read(8_000)
        server.wait(5)
    assert [len(answer.body) for answer in client.answers] == [size]
    assert client.closed
    assert not client.aborted


@pytest.mark.parametrize(
    "size", [HIGH // 2, 4 * HIGH], ids=["below the high-water mark", "above it"]
)
def test_a_closing_connection_is_closed_as_soon_as_its_client_has_read_everything(
    serve: Serve, kind: str, size: int
) -> None:
    server = serve(**BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", ROW * (size // 16), ("Connection", "close")))
    server.work()
    server.wait(1)
    assert not client.closed
    client.read()
    server.wait(0.3)
    assert client.closed
    assert not client.aborted


def test_a_client_that_never_reads_its_last_answer_is_cut_off(serve: Serve, kind: str) -> None:
    server = serve(write_timeout_s=10, **BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY, ("Connection", "close")))
    server.work()
    server.wait(12)
    assert client.closed
    assert client.aborted


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "closing"])
def test_a_tls_client_that_never_says_its_last_word_is_not_waited_for(
    serve: Serve, kind: str, kept: bool
) -> None:
    server = serve(write_timeout_s=60, idle_timeout_s=5)
    client = server.connect(kind, secure=True)
    client.mute = True
    client.send(ask("/predict", ROW, ("Connection", "keep-alive" if kept else "close")))
    server.work()
    server.wait(6 if kept else 0.1)
    assert len(client.answers) == 1
    assert not client.closed, "it may still read, and say its last word"
    server.wait(3)
    assert client.closed


def test_a_tls_client_that_reads_its_last_answer_slowly_gets_it_whole(
    serve: Serve, kind: str
) -> None:
    server = serve(write_timeout_s=10, **BIG)
    client = server.connect(kind, secure=True)
    client.stall()
    client.send(ask("/predict", MANY, ("Connection", "close")))
    server.work()
    for _ in range(len(MANY) // 10_000 + 2):
        client.read(10_000)
        server.wait(8)
    assert [len(answer.body) for answer in client.answers] == [len(MANY)]


def test_a_refused_client_may_go_on_sending_for_a_while(serve: Serve, kind: str) -> None:
    server = serve(max_body_bytes=1000)
    client = server.connect(kind)
    client.send(ask("/predict", b"b" * 2000)[:-1900])
    server.turn()
    assert [answer.status for answer in client.answers] == [413]
    assert client.ended
    assert not client.closed, "a reset now could destroy the answer before the client has read it"
    client.send(b"b" * 1000)
    assert not client.inbox, "it is read, and thrown away"
    server.wait(1.5)
    assert not client.closed
    server.wait(1.5)
    assert client.closed


def test_a_refused_client_that_closes_is_let_go_at_once(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(b"nonsense\r\n\r\n")
    server.turn()
    assert not client.closed
    client.end()
    server.turn()
    assert client.closed
    assert not client.aborted


def test_a_refused_client_that_has_read_a_big_answer_before_is_told_that_it_was_the_last(
    serve: Serve, kind: str
) -> None:
    server = serve(**BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY) + b"nonsense\r\n\r\n")
    server.work()
    client.read()
    server.turn()
    assert [answer.status for answer in client.answers] == [200, 400]
    assert client.ended
    assert not client.closed
    server.wait(3)
    assert client.closed


def test_a_refusal_behind_a_big_answer_does_not_cut_the_answer_off(serve: Serve, kind: str) -> None:
    server = serve(write_timeout_s=10, **BIG)
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", MANY) + b"nonsense\r\n\r\n")
    server.work()
    for _ in range(40):
        client.read(10_000)
        server.wait(5)
    assert [answer.status for answer in client.answers] == [200, 400]
    assert len(client.answers[0].body) == len(MANY)
    assert client.closed


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /predict HTTP/1.1\r\nHo", ask("/predict", ROW)[:-3]],
    ids=["nothing", "half a head", "half a body"],
)
def test_time_in_which_the_process_stood_still_is_given_to_every_client(
    serve: Serve, kind: str, sent: bytes
) -> None:
    server = serve(header_timeout_s=10, body_timeout_s=10, idle_timeout_s=10, min_body_rate="1GiB")
    stood_still = [0.0]
    server.front._stood_still = lambda: stood_still[0]
    client = server.connect(kind)
    client.send(sent)
    server.wait(8)
    stood_still[0] = 90.0
    server.clock.advance(90)
    server.wait(1)
    assert not client.closed
    assert client.received == b"", "it has had 9 of its 10 seconds"
    server.wait(5)
    assert client.closed or client.answers[0].status == 408
