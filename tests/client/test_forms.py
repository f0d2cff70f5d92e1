"""All three forms do the same, each with its own library and clock."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from batcher.client import (
    AnswerLost,
    DeadlineExceeded,
    InferenceFailed,
    InferResult,
    MalformedAnswer,
    NotConnected,
)
from batcher.client.response_reading import HttpResponse
from batcher.codecs.formats.json_text import to_json
from batcher.errors import MODEL_FAILED
from tests.support.client_forms import FORMS, CallResult
from tests.support.oip_peer import Hang, Lose, Peer, Refuse, doubled, refused, take

ROW = np.array([[1, 2, 3, 4]], "<f4")
OK = HttpResponse(200, {}, b'{"ready":true}')
Form = Callable[..., CallResult]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def infer(**arguments: Any) -> Callable[[Any], Any]:
    return lambda client: client.infer("m", {"x": ROW}, **arguments)


def assert_doubled(result: InferResult) -> None:
    assert isinstance(result, InferResult), repr(result)
    np.testing.assert_array_equal(result.outputs["y"], ROW * 2)


def test_arrays_go_in_and_come_out(form: Form) -> None:
    peer = Peer(doubled)
    result, took = form(
        peer, infer(version="1", outputs=["y"], timeout=2.5, priority=1, request_id="me")
    )
    assert_doubled(result)
    assert (result.model, result.version, result.id, took) == ("m", "1", "me", 0.0)
    ((path, headers, body),) = peer.seen
    assert path == "/base/v2/models/m/versions/1/infer"
    assert headers["accept-encoding"] == "identity"
    assert headers["content-type"] == "application/octet-stream"
    head = take(headers, body).head
    assert (head.id, head.priority, head.timeout) == ("me", 1, 2.5)


def test_a_refusal_is_repeated_after_the_time_that_it_asks_for_and_no_earlier(form: Form) -> None:
    peer = Peer(refused(503, "2"), refused(429, "3"), doubled)
    result, took = form(peer, infer(timeout=20))
    assert_doubled(result)
    assert 5.0 <= took < 5.5
    first, second, third = peer.timeouts()
    assert first == 20.0
    assert second is not None
    step = 20 / 64
    assert 17.8 < second <= 18.0 + step
    assert 20 - took <= third <= 20 - took + step


@pytest.mark.parametrize("is_silent", [True, False])
def test_a_connection_by_which_something_comes_unasked_carries_no_other_request(
    form: Form, is_silent: bool
) -> None:
    def full(*_: Any) -> HttpResponse:
        if not is_silent:
            peer.speak()
        return refused(503, "1")

    peer = Peer(full, doubled)
    result, _ = form(peer, infer())
    assert_doubled(result)
    assert (len(peer.seen), peer.accepted) == (2, 1 if is_silent else 2)


def test_a_connection_that_is_refused_is_tried_again(form: Form) -> None:
    peer = Peer(Refuse(), Refuse(), doubled)
    result, took = form(peer, infer())
    assert_doubled(result)
    assert 0.3 <= took < 0.7


def test_the_last_of_all_attempts_tells_its_failure(form: Form) -> None:
    peer = Peer(Refuse())
    error, _ = form(peer, infer(), retries=2)
    assert isinstance(error, NotConnected)
    assert peer.attempts == 3


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Lose(), AnswerLost),
        (refused(503), InferenceFailed),
        (refused(429), InferenceFailed),
        (refused(500, "1"), InferenceFailed),
        (refused(400), InferenceFailed),
        (HttpResponse(302, {"location": "/elsewhere"}, b""), MalformedAnswer),
        (HttpResponse(200, {}, b"{}"), MalformedAnswer),
    ],
    ids=str,
)
def test_what_may_have_run_is_asked_once(form: Form, step: Any, expected: type[Exception]) -> None:
    peer = Peer(step, doubled)
    error, took = form(peer, infer())
    assert isinstance(error, expected)
    assert (len(peer.seen), took) == (1, 0.0)


def test_a_server_that_hangs_is_left_on_time_and_not_asked_again(form: Form) -> None:
    peer = Peer(Hang(), doubled)
    error, took = form(peer, infer(timeout=1.5))
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "expected an answer within 1.5 s; got none"
    assert (len(peer.seen), took) == (1, 1.5)


def test_the_clients_own_time_holds_for_all_attempts_together(form: Form) -> None:
    peer = Peer(refused(503, "2"), Hang())
    error, took = form(peer, infer(), timeout=5.0)
    assert isinstance(error, DeadlineExceeded)
    assert took == pytest.approx(5.0)
    assert len(peer.seen) == 2


def test_a_wait_that_is_too_long_is_not_begun(form: Form) -> None:
    peer = Peer(refused(503, "30"))
    error, took = form(peer, infer(timeout=10))
    assert isinstance(error, InferenceFailed)
    assert (error.status, error.retry_after, took, len(peer.seen)) == (503, 30.0, 0.0, 1)
    assert "expected better" in error.message


def test_a_models_exception_that_is_withheld_is_said_to_be_in_the_log(form: Form) -> None:
    reason = f"{MODEL_FAILED} (the server's log says more: request 5f0c9a7e)"
    error, _ = form(Peer(HttpResponse(500, {}, to_json({"error": reason}))), infer())
    assert isinstance(error, InferenceFailed)
    assert error.message == reason
    assert str(error).startswith(f"500: {reason}. The text of the model's exception is in the ")
    assert "`expose_model_errors: true`" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("datatype", "advice"),
    [
        ("FP32", ". Nothing is converted: pass `np.asarray(values, np.float32)`"),
        ("BOOL", ". Nothing is converted: pass `np.asarray(values, np.bool)`"),
        ("BF16", ""),
        ("FP99", ""),
    ],
)
def test_an_array_of_another_dtype_is_told_how_to_make_it(
    form: Form, datatype: str, advice: str
) -> None:
    reason = f"input 'x': expected datatype {datatype}; got 'FP64'"
    error, _ = form(Peer(HttpResponse(400, {}, to_json({"error": reason}))), infer())
    assert str(error) == f"400: {reason}{advice}"


def test_a_models_exception_that_is_told_has_no_hint(form: Form) -> None:
    reason = "model 'm': predict raised KeyError: 'x'"
    error, _ = form(Peer(HttpResponse(500, {}, to_json({"error": reason}))), infer())
    assert str(error) == f"500: {reason}"


def test_a_call_without_a_limit_tells_none(form: Form) -> None:
    peer = Peer(doubled)
    result, _ = form(peer, infer(timeout=float("inf")))
    assert_doubled(result)
    assert peer.timeouts() == [None]


@pytest.mark.parametrize("seconds", [1e10, 1e305])
def test_a_limit_of_ages_is_as_good_as_any(form: Form, seconds: float) -> None:
    result, _ = form(Peer(doubled), infer(timeout=seconds))
    assert_doubled(result)


@pytest.mark.parametrize(
    ("step", "ready"),
    [(OK, True), (refused(503, "1"), False), (Refuse(), False), (Lose(), False)],
    ids=str,
)
def test_readiness_is_looked_at_once(form: Form, step: Any, ready: bool) -> None:
    peer = Peer(step)
    found, took = form(peer, lambda client: client.is_ready())
    assert found is ready
    assert (peer.attempts, took) == (1, 0.0)
    assert all(path == "/base/v2/health/ready" for path, _, _ in peer.seen)


def test_waiting_for_readiness_looks_again_after_whatever_happens(form: Form) -> None:
    peer = Peer(Refuse(), Lose(), refused(400), *[refused(503, "1")] * 10, OK)
    found, took = form(peer, lambda client: client.wait_ready(100), retries=0)
    assert found is None
    assert 10.7 <= took < 70
    assert peer.attempts == 14


def test_waiting_for_readiness_ends_with_what_was_seen_last(form: Form) -> None:
    error, took = form(Peer(refused(503, "1")), lambda client: client.wait_ready(3.5))
    assert isinstance(error, InferenceFailed)
    assert 0 < took <= 3.5


def test_metadata_are_a_document(form: Form) -> None:
    peer = Peer(HttpResponse(200, {}, b'{"name":"m"}'))
    found, _ = form(peer, lambda client: client.metadata("m", "1"))
    assert found == {"name": "m"}
    assert peer.seen[0][0] == "/base/v2/models/m/versions/1"
    error, _ = form(Peer(HttpResponse(200, {}, b"[]")), lambda client: client.metadata("m"))
    assert isinstance(error, MalformedAnswer)


def test_an_array_that_cannot_be_sent_is_told_at_once(form: Form) -> None:
    peer = Peer(doubled)
    try:
        error, _ = form(peer, lambda client: client.infer("m", {"x": np.zeros(1, "c8")}))
    except TypeError as err:  # Twisted's form raises it where it is called
        error = err
    assert isinstance(error, TypeError)
    assert not peer.seen


@pytest.mark.parametrize("inputs", [ROW, [[1, 2]], "text", None, [], np.zeros(0)])
def test_inputs_without_names_are_refused_and_the_form_is_named(form: Form, inputs: Any) -> None:
    peer = Peer(doubled)
    try:
        error, _ = form(peer, lambda client: client.infer("m", inputs))
    except ValueError as err:  # Twisted's form raises it where it is called
        error = err
    assert isinstance(error, ValueError)
    assert str(error) == (
        "inputs: expected a mapping of names to arrays; got "
        f"{type(inputs).__name__}: write {{name: array}}"
    )
    assert not peer.seen


def test_every_request_names_the_client_s_key(form: Form) -> None:
    peer = Peer(refused(429, "1"), doubled)
    result, _ = form(peer, infer(), api_key="SECRET")
    assert_doubled(result)
    assert [headers.get("x-api-key") for _, headers, _ in peer.seen] == ["SECRET", "SECRET"]
    form(peer := Peer(doubled), infer())
    assert "x-api-key" not in peer.seen[0][1]
