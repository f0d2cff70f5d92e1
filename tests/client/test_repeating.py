"""When a client repeats what may have run."""

from __future__ import annotations

import pytest

from batcher.client import AnswerLost, ClientFailure, NotConnected
from batcher.client.attempts import Attempts, ClientOptions, checked_options
from batcher.client.request_building import ReadyOperation, infer_operation
from batcher.client.response_reading import HttpResponse, InferResult

OPTIONS = ("http://batcher.test", 10.0, 3)
HEAD = b'{"model_name":"m","model_version":"1","outputs":[]}'
LOST = AnswerLost("cut off")


def call(client: ClientOptions) -> Attempts[InferResult]:
    operation = infer_operation("m", {"x": [[1.0]]}, "", None, 0, "")
    return client.attempts(operation, None, 0.0)


def key(attempts: Attempts[InferResult]) -> str | None:
    return attempts.next_request(0.0)[0].headers.get("idempotency-key")


def answered(attempts: Attempts[InferResult], *fields: str) -> None:
    attempts.next_request(0.0)
    headers = {"content-type": "application/json", **dict.fromkeys(fields, "false")}
    attempts.read(HttpResponse(200, headers, HEAD), 0.0)


def test_each_call_has_a_key_which_all_its_attempts_share() -> None:
    client = checked_options(*OPTIONS)
    first, second = call(client), call(client)
    assert key(first) == key(first) != key(second)
    assert len(key(first) or "") == 34
    ready = client.attempts(ReadyOperation(), None, 0.0)
    assert "idempotency-key" not in ready.next_request(0.0)[0].headers


def test_a_lost_answer_is_asked_for_again_where_the_server_keeps_answers() -> None:
    client = checked_options(*OPTIONS)
    unknown = call(client)
    key(unknown)
    with pytest.raises(AnswerLost):
        unknown.next_wait(LOST, 0.0, 0.0)
    answered(call(client), "idempotency-replayed")
    known = call(client)
    key(known)
    assert known.next_wait(LOST, 0.0, 0.0) == 0.1


@pytest.mark.parametrize("between", [[], [NotConnected("it starts anew")]])
def test_a_request_that_ends_the_server_is_repeated_once(between: list[ClientFailure]) -> None:
    client = checked_options(*OPTIONS)
    answered(call(client), "idempotency-replayed")
    fatal = call(client)
    key(fatal)
    for failure in (LOST, *between):
        assert fatal.next_wait(failure, 0.0, 0.0) > 0
    with pytest.raises(AnswerLost):
        fatal.next_wait(LOST, 0.0, 0.0)


def test_to_a_server_that_keeps_none_no_more_keys_are_sent() -> None:
    client = checked_options(*OPTIONS)
    answered(call(client))
    later = call(client)
    assert key(later) is None
    with pytest.raises(AnswerLost):
        later.next_wait(LOST, 0.0, 0.0)
