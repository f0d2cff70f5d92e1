"""The account itself finds whatever must not happen."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from tests.chaos.clients import Client
from tests.chaos.ledger import Ledger, Load, Sent

LOAD = Load("ok", pipelined=2, identified=True)


def answer(
    sent: Sent, *, of: Sent | None = None, request_id: int | None = None, fields: bytes = b""
) -> bytes:
    body = struct.pack("<d", 2 * (of or sent).number + (of or sent).load.key)
    head = b"HTTP/1.1 200 OK\r\nX-Request-Id: %d\r\nContent-Length: 8\r\n%b\r\n" % (
        request_id or sent.number,
        fields,
    )
    return head + body


@pytest.fixture
def client() -> Iterator[Client]:
    loop = asyncio.new_event_loop()
    client = Client(LOAD, Ledger(), loop.create_future())
    client.connection_made(Mock(spec=asyncio.Transport))
    client.resting = True
    yield client
    loop.close()


def test_right_answers_to_all_requests_are_no_fault(client: Client) -> None:
    client.data_received(b"".join(map(answer, client.pending)))
    client.connection_lost(None)
    client.ledger.check()
    assert client.ledger.outcomes("ok") == {"200": 2}


def test_an_answer_of_another_request_is_found(client: Client) -> None:
    first, second = client.pending
    client.data_received(answer(first, of=second) + answer(second))
    with pytest.raises(AssertionError, match=r"1 faults.*not its own"):
        client.ledger.check()


def test_an_answer_of_another_model_is_found(client: Client) -> None:
    first, second = client.pending
    client.data_received(answer(first, of=Sent(Load("slow"), first.number)) + answer(second))
    with pytest.raises(AssertionError, match=r"1 faults.*not its own"):
        client.ledger.check()


def test_an_answer_with_the_name_of_another_request_is_found(client: Client) -> None:
    first, second = client.pending
    client.data_received(answer(first, request_id=second.number) + answer(second))
    with pytest.raises(AssertionError, match=r"1 faults.*got the answer of"):
        client.ledger.check()


def test_a_second_answer_is_found(client: Client) -> None:
    first, second = client.pending
    client.data_received(answer(first) + answer(second) + answer(second))
    with pytest.raises(AssertionError, match=r"1 faults.*to no request"):
        client.ledger.check()


def test_a_missing_answer_is_found(client: Client) -> None:
    client.data_received(answer(client.pending[0]))
    client.connection_lost(None)
    with pytest.raises(AssertionError, match=r"1 faults.*never answered"):
        client.ledger.check()


def test_a_request_that_is_still_due_is_found(client: Client) -> None:
    client.data_received(answer(client.pending[0]))
    assert client.ledger.pending == 1
    with pytest.raises(AssertionError):
        client.ledger.check()


def test_what_was_sent_behind_the_last_request_that_the_server_takes_is_no_fault(
    client: Client,
) -> None:
    client.data_received(answer(client.pending[0], fields=b"Connection: close\r\n"))
    client.connection_lost(None)
    client.ledger.check()
    assert client.ledger.outcomes("ok") == {"200": 1, "not taken": 1}
