"""`POST /v1/embeddings` and `GET /v1/models`, over both stacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batcher.errors import InvalidInput, ModelError
from batcher.frontends.endpoints import embeddings
from tests.frontends.endpoints.conftest import MORE
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, double, model_spec, tensor

Both = Callable[[MemoryServer, bytes], Answer]
ROUTE = "/v1/embeddings"
SPEC = model_spec(
    inputs=(tensor("text", "BYTES", ()), tensor("ids", "INT64", (-1,), is_optional=True)),
    outputs=(tensor("vector", "FP32", (2,)), tensor("tokens", "INT64", ())),
    name="words",
)


def lengths(inputs: Any) -> dict[str, Any]:
    ids = inputs.get("ids")
    counts = np.array(
        [len(text) for text in inputs["text"]] if ids is None else (ids >= 0).sum(axis=1)
    )
    if 13 in counts.tolist():
        raise ModelError("thirteen")
    return {"vector": np.stack([counts, counts * 0], 1).astype("f4"), "tokens": counts}


def embedding(predict: Any = lengths) -> RecordingModel:
    return RecordingModel(SPEC, predict)


def posted(both: Both, document: Any, *models: RecordingModel) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    server = MemoryServer(*(models or (embedding(),)))
    return both(server, ask(ROUTE, body, content_type="application/json"))


def error_of(answer: Answer) -> Any:
    (name, error), *_ = answer.decoded().items()
    assert name == "error"
    assert list(error) == ["message", "type", "param", "code"]
    return error


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ("four", [4]),
        (["four", "three"], [4, 5]),
        ([7, 8, 9], [3]),
        ([[7, 8, 9], [7]], [3, 1]),
    ],
)
def test_each_kind_of_input_is_answered_by_a_vector_for_each_text(
    both: Both, given: Any, counts: list[int]
) -> None:
    answer = posted(both, {"model": "words", "input": given, "user": "u"})
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.decoded() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": [count, 0]}
            for index, count in enumerate(counts)
        ],
        "model": "words",
        "usage": {"prompt_tokens": sum(counts), "total_tokens": sum(counts)},
    }


def test_vectors_are_base64_or_shorter_where_that_is_asked_for(both: Both) -> None:
    wish = {"model": "words", "input": "four"}
    coded = posted(both, {**wish, "encoding_format": "base64"}).decoded()
    assert coded["data"][0]["embedding"] == "AACAQAAAAAA="
    short = posted(both, {**wish, "dimensions": 1}).decoded()
    assert short["data"][0]["embedding"] == [1]


@pytest.mark.parametrize(
    ("wish", "param", "code"),
    [
        ({"model": "words", "input": ""}, "input", "invalid_input"),
        ({"model": "words", "input": []}, "input", "invalid_input"),
        ({"model": "words", "input": [[1] * 5000, *[[1]] * 2000]}, "input", "too_large"),
        ({"model": "words", "input": "a", "dimensions": 3}, "dimensions", "invalid_input"),
        ({"model": "words", "input": "a", "encoding_format": 1}, "encoding_format", None),
        ({"input": "a"}, "model", "invalid_input"),
        (b"{", None, "undecodable"),
        (b"[]", None, "invalid_input"),
    ],
    ids=["no text", "no list", "long lists", "dimensions", "encoding", "no model", "{", "[]"],
)
def test_what_is_wrong_is_named_in_the_form_of_openai(
    both: Both, wish: Any, param: str | None, code: str | None
) -> None:
    answer = posted(both, wish)
    error = error_of(answer)
    assert answer.status == (413 if code == "too_large" else 400)
    assert error["type"] == "invalid_request_error"
    assert (error["param"], error["code"]) == (param, code or "invalid_input")
    assert answer.header("x-should-retry") == "false"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ([7] * 9000, 200),
        ([[7]] * 60_000, 400),
        ([[]] * 60_000, 400),
        (["a"] * 60_000, 400),
        ([{}] * 60_000, 400),
        ([[7] * 1024] * 2048, 200),
        ([[7] * 1025] * 2048, 413),
    ],
    ids=range(7),
)
def test_a_body_that_is_small_but_finely_cut_is_not_read_on_the_loop(
    both: Both, given: Any, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "decode", lambda _: pytest.fail("read on the loop"))
    answer = posted(both, {"model": "words", "input": given})
    assert answer.status == status
    if status == 400:
        assert "at most 2048" in error_of(answer)["message"]
    if status == 200:
        ids = given if isinstance(given[0], list) else [given]
        assert answer.decoded()["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_a_model_that_is_not_there_or_makes_no_embeddings_is_named(both: Both) -> None:
    missing = posted(both, {"model": "other", "input": "a"})
    assert missing.status == 404
    assert error_of(missing)["code"] == "model_not_found"
    assert "'other'" in error_of(missing)["message"]
    doubling = RecordingModel(model_spec(), double)
    numbers = posted(both, {"model": "m", "input": "a"}, doubling)
    assert numbers.status == 400
    assert error_of(numbers)["param"] == "model"
    assert error_of(numbers)["message"].endswith("got 'm'")


def test_a_model_that_fails_must_not_be_asked_again(both: Both) -> None:
    answer = posted(both, {"model": "words", "input": "x" * 13})
    assert answer.status == 500
    assert error_of(answer) == {
        "message": f"the model failed on this request{MORE}",
        "type": "server_error",
        "param": None,
        "code": "model_error",
    }
    assert answer.header("x-should-retry") == "false"


def test_ids_that_the_model_does_not_know_are_told_as_a_fault_of_the_input(both: Both) -> None:
    def refusing(inputs: Any) -> Any:
        raise InvalidInput(f"ids: expected ids below 100; got {inputs['ids'].max()}")

    answer = posted(both, {"model": "words", "input": [7, 999]}, embedding(refusing))
    assert answer.status == 400
    assert error_of(answer)["param"] == "input"
    assert error_of(answer)["message"] == "input: expected ids below 100; got 999"


@pytest.mark.parametrize(("texts", "status"), [(64, 504), (2048, 200)])
def test_a_large_call_has_the_time_of_as_many_requests_as_it_fills_batches(
    texts: int, status: int
) -> None:
    server = MemoryServer(embedding())
    client = server.connect("loop")
    client.methods = ["POST"]
    body = json.dumps({"model": "words", "input": ["a"] * texts}).encode()
    client.send(ask(ROUTE, body, content_type="application/json"))
    server.wait(31)  # more than timeout_ms
    server.work()
    assert [answer.status for answer in client.answers] == [status]


def test_who_is_over_a_quota_reads_when_to_come_back() -> None:
    server = MemoryServer(embedding(), quotas={"k": {"rows_per_s": 1, "burst_rows": 1}})
    body = json.dumps({"model": "words", "input": ["a", "b"]}).encode()
    request = ask(ROUTE, body, ("Authorization", "Bearer k"), content_type="application/json")
    assert over_connection(server, request).status == 200
    answer = over_connection(server, request)
    assert (error_of(answer)["type"], error_of(answer)["code"]) == (
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert answer.header("x-should-retry") == "true"
    assert answer.header("retry-after")


def test_the_other_methods_of_the_route_are_refused_in_the_same_form(both: Both) -> None:
    answer = both(MemoryServer(embedding()), ask(ROUTE))
    assert answer.status == 405
    assert error_of(answer)["code"] == "method_not_allowed"


def test_models_that_make_embeddings_are_listed_once(both: Both) -> None:
    again = RecordingModel(model_spec(SPEC.inputs, SPEC.outputs, "words", "2"), lengths)
    server = MemoryServer(RecordingModel(model_spec(), double), embedding(), again)
    assert both(server, ask("/v1/models")).decoded() == {
        "object": "list",
        "data": [{"id": "words", "object": "model", "created": 0, "owned_by": "batcher"}],
    }
    status = both(server, ask("/v1/models/words")).decoded()
    assert (status["id"], status["object"]) == ("words", "model")
    assert [each["version"] for each in status["model_version_status"]] == ["1", "2"]
