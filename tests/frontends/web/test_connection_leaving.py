"""Clients that end their sending side, and clients that are gone."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import rows
from tests.support.transports import HIGH, Client

Serve = Callable[..., MemoryServer]

PREFIX = b"HTTP/1.1 "


def row(value: float) -> bytes:
    return rows(value).tobytes()


def cancelled(server: MemoryServer) -> dict[str, int]:
    return server.server.metrics.model("m", "1").cancelled_rows


def statuses(server: MemoryServer) -> list[int]:
    return [json.loads(line)["status"] for line in server.lines]


class TestHalfClose:
    def test_a_client_that_ended_its_sending_side_gets_its_whole_answer_once(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW))
        client.end()
        server.turn()
        assert bytes(client.received) == PREFIX, (
            "sent at once, to find out whether the client is there"
        )
        server.wait(3)
        assert not client.closed
        server.work()
        assert [answer.status for answer in client.answers] == [200]
        assert client.unparsed == b""
        assert client.received.count(b"HTTP/1.1") == 1
        assert client.closed
        assert not client.aborted

    def test_every_pipelined_request_is_answered_before_the_connection_closes(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_pipelined_requests=3)
        client = server.connect(kind)
        client.send(
            ask("/predict", row(1))
            + ask("/livez")
            + ask("/predict", row(2))
            + ask("/docs")
            + ask("/nowhere")
        )
        client.end()
        server.work()
        assert [answer.status for answer in client.answers] == [200, 200, 200, 200, 404]
        assert client.unparsed == b""
        assert client.closed
        assert not client.aborted

    def test_a_request_that_closes_too_is_answered_whole(self, serve: Serve, kind: str) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW, ("Connection", "close")))
        client.end()
        server.turn()
        server.work()
        assert [answer.status for answer in client.answers] == [200]
        assert client.received.count(b"HTTP/1.1") == 1
        assert client.closed

    def test_a_client_that_ends_after_its_answer_is_closed_without_another_byte(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW))
        server.work()
        size = len(client.received)
        client.end()
        server.turn()
        assert client.closed
        assert len(client.received) == size

    @pytest.mark.parametrize("sent", [b"", b"POST /predict HT", ask("/predict", ROW)[:-3]])
    def test_a_client_that_ends_in_the_middle_of_a_request_is_closed(
        self, serve: Serve, kind: str, sent: bytes
    ) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(sent)
        client.end()
        server.turn()
        assert client.closed
        assert server.hand_over() == 0

    def test_a_client_that_ends_in_the_middle_of_its_second_request_gets_its_first_answer(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW) + ask("/predict", ROW)[:-3])
        client.end()
        server.work()
        assert [answer.status for answer in client.answers] == [200]
        assert client.closed

    def test_a_half_closed_client_that_reads_slowly_gets_its_whole_answer(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
        client = server.connect(kind)
        client.stall()
        body = row(1) * (4 * HIGH // 16)
        client.send(ask("/predict", body))
        client.end()
        server.work()
        for _ in range(len(body) // 10_000 + 2):
            client.read(10_000)
            server.wait(1)
        assert client.closed
        assert [len(answer.body) for answer in client.answers] == [len(body)]

    def test_a_failure_is_answered_whole_too(self, serve: Serve, kind: str) -> None:
        server = serve()
        client = server.connect(kind)
        client.send(ask("/predict", ROW, ("X-Timeout-Ms", "100")))
        client.end()
        server.turn()
        server.wait(0.2, step=0.05)
        assert [answer.status for answer in client.answers] == [504]
        assert client.unparsed == b""


Leave = Callable[[MemoryServer, Client], None]


def vanish(server: MemoryServer, client: Client) -> None:
    client.reset()
    server.turn()


def close(server: MemoryServer, client: Client) -> None:
    client.leave()
    server.wait(0.1, step=0.01)


@pytest.mark.parametrize("leave", [vanish, close], ids=["reset", "closed"])
class TestGone:
    def test_a_queued_request_of_a_client_that_left_never_reaches_the_model(
        self, serve: Serve, kind: str, leave: Leave
    ) -> None:
        server = serve(defaults={"pipeline_depth": 1})
        first, second, third = (server.connect(kind) for _ in range(3))
        first.send(ask("/predict", row(1)))
        assert server.hand_over() == 1
        second.send(ask("/predict", row(2)) + ask("/predict", row(3)))
        third.send(ask("/predict", row(4)))
        leave(server, second)
        assert second.closed
        assert cancelled(server) == {"queued": 2, "in_flight": 0}
        server.work()
        assert [batch["x"][:, 0].tolist() for batch in server.model.batches] == [[1.0], [4.0]]
        assert [answer.status for answer in (*first.answers, *third.answers)] == [200, 200]
        assert sorted(statuses(server)) == [200, 200, 499, 499]

    def test_a_request_in_flight_of_a_client_that_left_does_not_harm_its_neighbours(
        self, serve: Serve, kind: str, leave: Leave
    ) -> None:
        server = serve()
        stays, leaves = server.connect(kind), server.connect(kind)
        leaves.send(ask("/predict", row(1)))
        stays.send(ask("/predict", row(2)))
        assert server.hand_over() == 1
        leave(server, leaves)
        assert cancelled(server) == {"queued": 0, "in_flight": 1}
        server.work()
        assert server.model.sizes() == [2]
        assert [np.frombuffer(answer.body, "<f4")[0] for answer in stays.answers] == [4.0]
        assert leaves.answers == []

    def test_pipelined_requests_that_were_not_begun_yet_are_forgotten(
        self, serve: Serve, kind: str, leave: Leave
    ) -> None:
        server = serve(max_pipelined_requests=8, defaults={"pipeline_depth": 1})
        client = server.connect(kind)
        client.send(b"".join(ask("/predict", row(number)) for number in range(5)))
        assert server.hand_over() == 1
        leave(server, client)
        server.work()
        assert server.model.sizes() == [5], "what was in flight, and nothing more"
        assert statuses(server) == [499] * 5


def test_a_client_that_vanishes_while_its_answers_wait_to_be_sent_is_forgotten(
    serve: Serve, kind: str
) -> None:
    server = serve(defaults={"max_batch_size": 100_000, "max_queue_rows": 100_000})
    client = server.connect(kind)
    client.stall()
    client.send(ask("/predict", row(1) * (4 * HIGH // 16)) + ask("/predict", row(2)))
    server.turn()
    server.workers["m/1"].perform()
    client.reset()
    server.work()
    assert client.closed
    assert server.server.metrics.connections == 0


def test_requests_beyond_the_pipelining_bound_are_dropped_when_their_client_vanishes(
    serve: Serve, kind: str
) -> None:
    server = serve(max_pipelined_requests=2)
    client = server.connect(kind)
    client.send(b"".join(ask("/predict", row(number)) for number in range(6)))
    server.turn()
    client.reset()
    server.work()
    assert server.model.sizes() == [2]
    assert statuses(server) == [499, 499], "requests that nobody began were never requests"


def test_a_client_that_is_gone_is_looked_for_only_as_long_as_it_is_half_closed(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW))
    client.end()
    server.wait(0.1, step=0.01)
    server.work()
    assert client.closed
    server.wait(1, step=0.01)
    before = server.clock.seconds()
    (look,) = [
        call.getTime() for call in server.clock.getDelayedCalls() if call.getTime() < before + 1
    ]
    assert look - before > 0.05, "at the usual pace of the sweep"
