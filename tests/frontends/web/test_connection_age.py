"""The age of a connection: its next answer is its last, and nothing is lost by it."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import Client

Serve = Callable[..., MemoryServer]


def assert_third_answer_closes(client: Client) -> None:
    """Check that there are three good answers, and that the connection ended with the last."""
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (200, None),
        (200, None),
        (200, "close"),
    ]
    assert client.closed


def test_the_first_answer_after_the_age_closes_the_connection(serve: Serve, kind: str) -> None:
    server = serve(max_connection_age_s=100)
    client = server.connect(kind)
    for seconds in (0, 89):
        server.wait(seconds, step=1)
        client.send(ask("/livez"))
    server.wait(22, step=1)
    assert not client.closed, "a request may be on its way"
    client.send(ask("/predict", ROW))
    server.work()
    assert_third_answer_closes(client)


def test_requests_that_were_sent_together_are_all_answered(serve: Serve, kind: str) -> None:
    server = serve(max_connection_age_s=10)
    client = server.connect(kind)
    server.wait(12, step=1)
    client.send(ask("/predict", ROW) * 3)
    server.work()
    assert_third_answer_closes(client)


def test_without_the_setting_a_connection_has_no_age(serve: Serve, kind: str) -> None:
    server = serve(idle_timeout_s=80_000)
    client = server.connect(kind)
    client.send(ask("/livez"))
    server.wait(70_000, step=1000)
    client.send(ask("/livez"))
    server.turn()
    assert [answer.header("connection") for answer in client.answers] == [None, None]


def test_connections_that_were_made_together_do_not_all_end_together(serve: Serve) -> None:
    server = serve(max_connection_age_s=1000)
    ages = [server.front.retires_at(50.0) - 50.0 for _ in range(200)]
    assert 900 <= min(ages) < 950
    assert 1050 < max(ages) <= 1100
