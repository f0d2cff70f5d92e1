"""Bringing connections to an end: every answer that is due is given, and clients are told to go."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred

from batcher.frontends.web.connection import LAST_REQUESTS_S
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import rows
from tests.support.transports import HIGH, Client

Serve = Callable[..., MemoryServer]


def drain(server: MemoryServer) -> list[None]:
    """Begin to stop `server`; the returned list is filled when that is done."""
    done: list[None] = []
    drained: Deferred[None] = server.front.drain()
    drained.addCallback(done.append)
    return done


def test_without_connections_there_is_nothing_to_wait_for(serve: Serve) -> None:
    assert drain(serve()) == [None]


def test_a_request_in_flight_is_answered_with_close_and_its_connection_closed(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    assert server.hand_over() == 1
    done = drain(server)
    server.wait(2)
    assert not client.closed
    server.work()
    (answer,) = client.answers
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert client.closed
    assert not client.aborted
    assert done == [None]


def test_only_the_last_of_pipelined_answers_says_close(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW) + ask("/docs") + ask("/predict", ROW))
    assert server.hand_over() == 1
    done = drain(server)
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, None),
        (200, "close"),
    ], "a client reads nothing behind an answer that closes"
    assert client.closed
    assert done == [None]


def test_requests_beyond_the_pipelining_bound_are_answered_too(serve: Serve, kind: str) -> None:
    server = serve(max_pipelined_requests=2)
    client = server.connect(kind)
    client.send(ask("/predict", ROW) * 5)
    done = drain(server)
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None)
    ] * 4 + [(200, "close")]
    assert done == [None]


def test_a_kept_connection_is_closed_after_the_grace_and_not_before(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/livez"))
    server.wait(10)
    done = drain(server)
    server.wait(0.9, step=0.01)
    assert not client.closed, "a request may be on its way"
    server.wait(0.2, step=0.01)
    assert client.closed
    assert done == [None]
    assert len(client.answers) == 1


def test_the_grace_does_not_pass_while_the_loop_stands_still(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/livez"))
    drain(server)
    server.wait(5, step=5)
    client.send(ask("/predict", ROW))  # was there long ago, but nobody has looked
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, "close"),
    ]
    assert client.closed


def test_a_connection_made_while_stopping_has_the_grace_for_its_request(
    serve: Serve, kind: str
) -> None:
    server = serve()
    server.connect(kind).send(b"POST /pre")
    drain(server)
    server.wait(1)
    client, silent = server.connect(kind), server.connect(kind)
    server.wait(0.9, step=0.01)
    assert not client.closed
    client.send(ask("/predict", ROW))
    server.work()
    server.wait(0.2, step=0.01)
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, "close")
    ]
    assert client.closed
    assert silent.closed


def test_a_request_on_a_kept_connection_is_answered_then_the_connection_closes(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/livez"))
    server.wait(10)
    done = drain(server)
    server.wait(0.1, step=0.01)
    client.send(ask("/predict", ROW, ("X-Request-Id", "7")))
    server.work()
    answer = client.answers[-1]
    assert (answer.status, answer.header("connection"), answer.header("x-request-id")) == (
        200,
        "close",
        "7",
    )
    assert client.closed
    assert done == [None]


def test_a_request_that_comes_behind_one_in_flight_is_answered_too(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    assert server.hand_over() == 1
    drain(server)
    client.send(ask("/predict", ROW))
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, "close"),
    ]
    assert client.closed


@pytest.mark.parametrize("cut", [1, 30, -5], ids=["first byte", "in the head", "in the body"])
def test_a_request_of_which_a_part_came_behind_another_is_answered_too(
    serve: Serve, kind: str, cut: int
) -> None:
    server = serve()
    client = server.connect(kind)
    request = ask("/predict", ROW)
    client.send(request + request[:cut])
    done = drain(server)
    server.work()
    client.send(request[cut:])
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, "close"),
    ]
    assert done == [None]


def test_a_request_whose_first_byte_came_before_is_served(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    request = ask("/predict", ROW)
    client.send(request[:1])
    done = drain(server)
    server.wait(1)
    client.send(request[1:])
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, "close")
    ]
    assert client.closed
    assert done == [None]


def test_a_page_of_klein_that_was_asked_for_in_time_closes_too(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    request = ask("/docs")
    client.send(request[:5])
    drain(server)
    client.send(request[5:])
    server.turn()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, "close")
    ]
    assert client.closed


def test_a_slow_reader_gets_its_whole_answer(serve: Serve, kind: str) -> None:
    server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
    client = server.connect(kind)
    client.stall()
    body = rows(1).tobytes() * (4 * HIGH // 16)
    client.send(ask("/predict", body))
    assert server.hand_over() == 1
    done = drain(server)
    server.work()
    for _ in range(len(body) // 20_000):
        assert done == []
        client.read(20_000)
        server.wait(1)
    client.read()
    server.wait(1)
    assert [len(answer.body) for answer in client.answers] == [len(body)]
    assert done == [None]


def test_whoever_is_left_at_the_end_is_cut_off(serve: Serve, kind: str) -> None:
    server = serve()
    clients = [server.connect(kind) for _ in range(3)]
    clients[0].send(ask("/predict", ROW))
    clients[1].send(b"POST /pre")
    done = drain(server)
    server.turn()
    server.front.stop()
    server.turn()
    assert all(client.closed for client in clients)
    assert done == [None]
    assert [call for call in server.clock.getDelayedCalls() if "Front" in repr(call)] == []
    server.front.start()


def test_a_request_that_is_never_answered_in_time_gets_503_before_its_connection_is_cut_off(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    assert server.hand_over() == 1
    drain(server)
    server.wait(1)
    server.server.stop()  # as the service does when the time to drain is over
    server.front.stop()
    server.turn()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (503, "close")
    ]
    assert client.closed
    server.front.start()


def test_a_client_that_reads_nothing_does_not_outlive_the_stop_for_ever(
    serve: Serve, kind: str
) -> None:
    server = serve(
        write_timeout_s=10, defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000}
    )
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", rows(1).tobytes() * (4 * HIGH // 16)))
    server.work()
    done = drain(server)
    server.wait(1)
    server.server.stop()
    server.front.stop()
    server.wait(15)
    assert client.closed
    assert done == [None]
    server.front.start()


def test_a_half_closed_client_gets_its_answer_while_the_server_stops(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    client.end()
    done = drain(server)
    server.wait(1)
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, "close")
    ]
    assert client.received.count(b"HTTP/1.1") == 1
    assert done == [None]


def pipeline_without_a_pause(
    server: MemoryServer, kind: str, seconds: float
) -> tuple[Client, list[None]]:
    """Send the beginning of the next request with the end of each, ten a second, for `seconds`."""
    client = server.connect(kind)
    request = ask("/predict", ROW)
    client.send(request[:20])
    done = drain(server)
    for _ in range(round(seconds * 10)):
        client.send(request[20:] + request[:20])
        server.wait(0.1, step=0.01)
        server.work()
    return client, done


def test_a_client_that_pipelines_without_a_pause_is_served_for_a_while(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client, _ = pipeline_without_a_pause(server, kind, LAST_REQUESTS_S - 0.2)
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None)
    ] * round(10 * LAST_REQUESTS_S - 2)
    assert not client.closed


def test_a_client_that_pipelines_without_a_pause_gets_all_answers_to_what_was_read(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client, done = pipeline_without_a_pause(server, kind, LAST_REQUESTS_S + 1)
    *others, last = [(answer.status, answer.header("connection")) for answer in client.answers]
    assert last == (200, "close")
    assert set(others) == {(200, None)}
    assert abs(len(others) - 10 * LAST_REQUESTS_S) <= 2
    client.end()  # it reads the last answer, and closes
    server.wait(1)
    assert client.closed
    assert done == [None]


def test_what_comes_behind_the_last_request_that_is_read_is_dropped(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    done = drain(server)
    client.send(ask("/predict", ROW) * 2 + b"POST /predict HTTP/1.1\r\n")
    server.wait(LAST_REQUESTS_S + 0.5)
    client.send(b"Host: here\r\n\r\n" + ask("/predict", ROW))
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, "close"),
    ]
    client.end()
    server.wait(1)
    assert client.closed
    assert not client.aborted
    assert done == [None]
