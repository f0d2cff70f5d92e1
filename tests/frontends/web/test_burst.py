"""Answers of a burst leave together, behind the call that made them, each in its order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import KINDS, Client

REQUEST = ask("/predict", ROW)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def in_a_burst(server: MemoryServer, look: Callable[[], object]) -> None:
    """Run the batches there are in one burst, and `look` at its end."""

    def run() -> None:
        for worker in server.workers.values():
            while worker.batches:
                worker.perform()
        look()

    server.turn()
    server.front.burst(run)


def statuses(client: Client) -> list[int]:
    return [answer.status for answer in client.answers]


def test_nothing_leaves_before_the_call_is_over_and_everything_does_then(kind: str) -> None:
    server = MemoryServer()
    clients = [server.connect(kind) for _ in range(5)]
    for client in clients:
        client.send(REQUEST)
    seen: list[int] = []
    in_a_burst(server, lambda: seen.extend(len(client.received) for client in clients))
    server.turn()
    assert seen == [0] * 5
    assert [statuses(client) for client in clients] == [[200]] * 5
    server.check_nothing_is_left()


def test_pipelined_answers_of_one_burst_keep_their_order(kind: str) -> None:
    server = MemoryServer()
    client = server.connect(kind)
    client.send(
        ask("/predict", ROW, ("X-Request-Id", "1"))
        + ask("/predict", ROW * 2, ("X-Request-Id", "2"))
    )
    in_a_burst(server, lambda: None)
    server.turn()
    assert [answer.header("x-request-id") for answer in client.answers] == ["1", "2"]
    server.check_nothing_is_left()


def test_an_answer_that_closes_is_sent_before_the_connection_ends(kind: str) -> None:
    server = MemoryServer()
    client = server.connect(kind)
    client.send(ask("/predict", ROW, ("Connection", "close")))
    in_a_burst(server, lambda: None)
    server.turn()
    assert statuses(client) == [200]
    assert client.closed
    server.check_nothing_is_left()


def test_what_was_gathered_for_a_client_that_is_cut_off_meanwhile_is_dropped(kind: str) -> None:
    server = MemoryServer()
    client, other = server.connect(kind), server.connect(kind)
    client.send(REQUEST)
    other.send(REQUEST)
    in_a_burst(server, lambda: next(iter(server.front._connections)).abort())
    server.turn()
    assert sorted([statuses(client), statuses(other)]) == [[], [200]]
    server.check_nothing_is_left()


def test_a_call_that_raises_loses_no_answer(kind: str) -> None:
    server = MemoryServer()
    client = server.connect(kind)
    client.send(REQUEST)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_a_burst(server, fail)
    server.turn()
    assert statuses(client) == [200]
    server.check_nothing_is_left()
