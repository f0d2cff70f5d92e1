"""Requests and answers on one connection.

Their order, how many at a time, and when the connection ends with them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec, rows
from tests.support.transports import HIGH

Serve = Callable[..., MemoryServer]


def row(value: float) -> bytes:
    return rows(value).tobytes()


def doubled(body: bytes) -> float:
    return float(np.frombuffer(body, "<f4")[0])


def test_a_kept_connection_serves_one_request_after_the_other(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    for number in range(1, 4):
        client.send(ask("/predict", row(number)))
        server.work()
        assert doubled(client.answers[-1].body) == 2 * number
        assert client.answers[-1].header("connection") is None
    assert len(client.answers) == 3
    assert not client.closed


def test_a_request_that_closes_is_answered_and_the_connection_closed(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW, ("Connection", "close")) + ask("/livez"))
    server.work()
    (answer,) = client.answers
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert client.closed
    assert client.unparsed == b""


@pytest.mark.parametrize("target", ["/predict", "/livez"])
def test_http_1_0_is_closed_after_its_answer_unless_it_asked_to_be_kept(
    serve: Serve, kind: str, target: str
) -> None:
    server = serve()
    body = ROW if target == "/predict" else b""
    client = server.connect(kind)
    client.send(ask(target, body, version="1.0"))
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, "close")
    ]
    assert client.closed
    keeper = server.connect(kind)
    for _ in range(2):
        keeper.send(ask(target, body, ("Connection", "keep-alive"), version="1.0"))
        server.work()
    assert [(answer.status, answer.header("connection")) for answer in keeper.answers] == [
        (200, "keep-alive")
    ] * 2
    assert not keeper.closed


def test_pipelined_answers_come_in_the_order_of_their_requests_though_they_end_in_another(
    serve: Serve, kind: str
) -> None:
    slow, fast = RecordingModel(model_spec(name="slow")), RecordingModel(model_spec(name="fast"))
    server = serve(slow, fast)
    client = server.connect(kind)
    client.send(
        ask("/models/slow/predict", row(1)),
        ask("/models/fast/predict", row(2)),
        ask("/livez"),
        ask("/models/slow/predict", row(3)) + ask("/nowhere"),
    )
    server.turn()
    server.workers["fast/1"].perform()
    server.turn()
    assert client.received == b"", "the first answer is not there"
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200, 200, 200, 404]
    assert [doubled(client.answers[index].body) for index in (0, 1, 3)] == [2, 4, 6]
    assert client.answers[2].decoded() == {"live": True}
    assert client.unparsed == b""


def test_pipelined_requests_of_one_connection_share_a_batch(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(b"".join(ask("/predict", row(number)) for number in range(10)))
    server.work()
    assert server.model.sizes() == [10]
    assert [doubled(answer.body) for answer in client.answers] == [
        2 * number for number in range(10)
    ]


def test_pipelining_stops_at_its_bound_and_goes_on_as_answers_are_written(
    serve: Serve, kind: str
) -> None:
    server = serve(max_pipelined_requests=4)
    client = server.connect(kind)
    client.send(b"".join(ask("/predict", row(number)) for number in range(10)))
    client.send(*(ask("/predict", row(number)) for number in range(10, 15)))
    version = next(iter(server.server))
    assert version.scheduler.pending == 4
    assert not client.reads
    assert len(client.inbox) == 5, "what is not read waits with the client, not here"
    server.work()
    assert [doubled(answer.body) for answer in client.answers] == [
        2 * number for number in range(15)
    ]
    assert max(server.model.sizes()) <= 4
    assert client.reads


def test_reading_stops_at_the_bound_itself_and_not_one_segment_later(
    serve: Serve, kind: str
) -> None:
    server = serve(max_pipelined_requests=2)
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    assert client.reads
    client.send(ask("/predict", ROW))
    assert not client.reads
    server.work()
    assert client.reads
    assert len(client.answers) == 2


@pytest.mark.parametrize("target", ["/livez", "/models/unknown/predict"])
def test_hundreds_of_requests_that_waited_behind_a_slow_one_are_answered_at_once(
    serve: Serve, kind: str, target: str
) -> None:
    server = serve(max_pipelined_requests=2)
    client = server.connect(kind)
    method = "GET" if target == "/livez" else "POST"
    client.send(ask("/predict", row(1)) * 3 + ask(target, method=method) * 500)
    server.work()
    assert len(client.answers) == 503
    assert client.unparsed == b""
    assert not client.closed


def test_a_client_that_does_not_read_its_answers_is_not_read_from(serve: Serve, kind: str) -> None:
    server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
    client = server.connect(kind)
    client.stall(1000)
    many = rows(1.0, width=4).tobytes() * (4 * HIGH // 16)
    client.send(ask("/predict", many))
    server.work()
    client.send(ask("/predict", row(7)))
    server.work()
    assert len(client.received) == 1000
    assert server.model.sizes() == [len(many) // 16], "the second request waits with the client"
    assert not client.reads
    client.read()
    server.work()
    assert [len(answer.body) for answer in client.answers] == [len(many), 16]
    assert doubled(client.answers[1].body) == 14


@pytest.mark.parametrize("target", ["/openapi.json", "/readyz"])
def test_nothing_more_is_begun_for_a_client_that_does_not_read(
    serve: Serve, kind: str, target: str
) -> None:
    server = serve(max_pipelined_requests=4)
    client = server.connect(kind)
    client.send(ask(target, method="GET"))
    server.work()
    length = len(client.received)
    many = 4 * HIGH // length + 50
    client.stall()
    client.send(
        ask("/predict", row(1)) * 8 + ask(target, method="GET") * many + ask("/predict", row(2))
    )
    for _ in range(4):
        server.work()
    assert 8 < len(server.lines) <= 1 + 8 + HIGH // length + 1 + 4, "of hundreds"
    client.end()
    for _ in range(2 * many):
        client.read(length)
        server.work()
    client.read()
    server.work()
    assert [answer.status for answer in client.answers] == [200] * (many + 10)
    assert doubled(client.answers[-1].body) == 4
    assert client.closed


def test_a_client_that_does_not_read_is_not_told_to_continue_before_the_answers_that_are_due(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.stall()
    pages = ask("/openapi.json", method="GET") * 8
    expecting = ask("/predict", row(3), ("Expect", "100-continue")).removesuffix(row(3))
    client.send(pages + expecting)
    server.work()
    client.read()
    server.work()
    client.send(row(3))
    server.work()
    assert [answer.status for answer in client.answers] == [200] * 8 + [100, 200]


def test_a_client_that_reads_slowly_gets_every_byte_once(serve: Serve, kind: str) -> None:
    server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
    client = server.connect(kind)
    client.stall()
    many = rows(*range(4 * HIGH // 16)).tobytes()
    for _ in range(3):
        client.send(ask("/predict", many))
        server.work()
    for _ in range(3 * len(many) // 7000 + 2):
        client.read(7000)
        server.work()
    expected = (np.frombuffer(many, "<f4") * 2).tobytes()
    assert [answer.body == expected for answer in client.answers] == [True] * 3


def test_neighbours_on_other_connections_are_not_held_up_by_a_client_that_does_not_read(
    serve: Serve, kind: str
) -> None:
    server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
    stalled, other = server.connect(kind), server.connect(kind)
    stalled.stall()
    stalled.send(ask("/predict", row(1) * (4 * HIGH // 16)))
    other.send(ask("/predict", row(2)))
    server.work()
    assert [doubled(answer.body) for answer in other.answers] == [4]


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_a_client_that_waits_for_it_is_told_to_continue(
    serve: Serve, kind: str, expectation: str
) -> None:
    server = serve()
    client = server.connect(kind)
    request = ask("/predict", ROW, ("Expect", expectation))
    client.send(request[:-16])
    server.turn()
    assert bytes(client.received) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(request[-16:])
    server.work()
    assert [answer.status for answer in client.answers] == [100, 200]


def test_a_pipelined_client_is_told_to_continue_only_after_the_answers_before(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    second = ask("/predict", row(2), ("Expect", "100-continue"))
    client.send(ask("/predict", row(1)) + second[:-16])
    server.turn()
    assert client.received == b""
    server.work()
    assert [answer.status for answer in client.answers] == [200, 100]
    client.send(second[-16:])
    server.work()
    assert [answer.status for answer in client.answers] == [200, 100, 200]


def test_who_did_not_wait_is_never_told_to_continue_behind_the_answer(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", row(1)) + ask("/predict", row(2), ("Expect", "100-continue")))
    server.work()
    client.send(ask("/predict", row(3)))
    server.work()
    statuses = [answer.status for answer in client.answers]
    assert statuses in ([200, 200, 200], [200, 100, 200, 200]), (
        "an interim answer belongs before its final one"
    )


def test_a_refused_expectation_is_answered_without_continue(serve: Serve, kind: str) -> None:
    server = serve(max_body_bytes=10)
    client = server.connect(kind)
    client.send(ask("/predict", ROW, ("Expect", "100-continue"))[:-16])
    server.work()
    assert [answer.status for answer in client.answers] == [413]
