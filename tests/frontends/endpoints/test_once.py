"""`Idempotency-Key` over HTTP, in every protocol."""

from __future__ import annotations

import pytest

from batcher.errors import InvalidInput
from batcher.frontends.endpoints.stage_wishes import MAX_ONCE_CHARS, once_key
from tests.frontends.endpoints.test_quotas import ROUTES, Stack
from tests.support.http import ROW, MemoryServer, ask


def server() -> MemoryServer:
    return MemoryServer(idempotency_ttl_s=60, sagemaker=True, vertex_predict_route="/vertex")


@pytest.mark.parametrize("route", ROUTES)
def test_a_repetition_gets_the_same_bytes_and_hears_it(stack: Stack, route: str) -> None:
    memory = server()
    body, content_type = ROUTES[route]
    request = ask(route, body, ("Idempotency-Key", '"abc"'), content_type=content_type)
    first, second = stack(memory, request), stack(memory, request)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    assert first.header("idempotency-replayed") == "false"
    assert second.header("idempotency-replayed") == "true"
    assert len(memory.model.batches) == 1


@pytest.mark.parametrize("route", ROUTES)
def test_another_body_under_the_key_is_refused(stack: Stack, route: str) -> None:
    memory = server()
    body, content_type = ROUTES[route]
    other = body.replace(b"1, 2", b"5, 2") if content_type == "application/json" else body * 2
    bodies = (body, other)
    answers = [
        stack(memory, ask(route, each, ("Idempotency-Key", "abc"), content_type=content_type))
        for each in bodies
    ]
    assert [answer.status for answer in answers] == [200, 422]
    assert "expected a key of its own for each request" in answers[1].decoded()["error"]


def test_a_repetition_may_be_written_in_another_form(stack: Stack) -> None:
    memory = server()
    key = ("Idempotency-Key", "abc")
    first = stack(memory, ask("/predict", ROW, key, ("Accept", "application/json")))
    body = b'{"inputs": {"x": [[1, 1, 1, 1]]}}'
    second = stack(memory, ask("/predict", body, key, content_type="application/json"))
    assert second.header("idempotency-replayed") == "true"
    assert first.body == second.body


def test_a_version_that_is_named_answers_itself(stack: Stack) -> None:
    memory = server()
    key = ("Idempotency-Key", "abc")
    told = [
        stack(memory, ask(path, ROW, key)).header("idempotency-replayed")
        for path in ("/models/m/predict", "/models/m/versions/1/predict", "/models/m/predict")
    ]
    assert told == ["false", "false", "true"]
    assert len(memory.model.batches) == 2


def test_without_a_key_or_without_the_setting_nothing_is_said(stack: Stack) -> None:
    for memory, fields in ((server(), ()), (MemoryServer(), (("Idempotency-Key", "abc"),))):
        for _ in range(2):
            answer = stack(memory, ask("/predict", ROW, *fields))
            assert answer.header("idempotency-replayed") is None
        assert len(memory.model.batches) == 2


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", ""),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),
        (r'"a \"b\" \\"', r'a "b" \ '.strip()),
        (" abc ", "abc"),
        ("a" * MAX_ONCE_CHARS, "a" * MAX_ONCE_CHARS),
    ],
)
def test_a_key_may_stand_in_quotes(text: str, key: str) -> None:
    assert once_key(text) == key


@pytest.mark.parametrize("text", ['"', '""', "a, b", '"a", "b"', "a b", "ä", "a" * 256, '"a'])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="Idempotency-Key: expected one key"):
        once_key(text)
