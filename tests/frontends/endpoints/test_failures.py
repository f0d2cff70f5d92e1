"""Every status of the table that does not depend on the state of the queue, over both stacks."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from batcher.core.spec import Array
from batcher.errors import InvalidInput, ModelLoadError, QueueFull
from batcher.frontends.endpoints.call import CallHead
from batcher.models.protocol import PartialOutputs
from tests.frontends.endpoints.conftest import MORE
from tests.frontends.endpoints.test_formats import npy, picture, picture_model
from tests.support.http import ROW, STACKS, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, double, model_spec, rows, tensor

Both = Callable[[MemoryServer, bytes], Answer]
Stack = Callable[[MemoryServer, bytes], Answer]

JSON = "application/json"


def document(value: object) -> bytes:
    return json.dumps(value).encode()


def error_of(answer: Answer, status: int, code: str) -> str:
    """Check that `answer` is an error of this `status` and `code`, and return its text."""
    assert answer.status == status, answer
    assert answer.decoded().keys() >= {"error", "code"}
    assert answer.decoded()["code"] == code
    text: str = answer.decoded()["error"]
    return text


@pytest.mark.parametrize(
    ("content_type", "body", "code", "expected", "came"),
    [
        ("application/octet-stream", ROW[:-1], "undecodable", "FP32[-1,4]", "15"),
        (JSON, b"{", "undecodable", "JSON", ""),
        (JSON, b'{"inputs": {"x": [[NaN, 1, 2, 3]]}}', "undecodable", "JSON", "NaN"),
        (JSON, document([]), "invalid_input", "inputs", "list"),
        (JSON, document({"data": 1}), "invalid_input", "inputs", "data"),
        (JSON, document({"inputs": {"y": [[1, 2, 3, 4]]}}), "invalid_input", "'x'", "'y'"),
        (
            JSON,
            document({"inputs": {"x": [[1, 2, 3, 4]], "z": [[1]]}}),
            "invalid_input",
            "'x'",
            "'z'",
        ),
        (JSON, document({"inputs": {}}), "invalid_input", "'x'", "none"),
        (JSON, document({"inputs": {"x": [[1, 2, 3]]}}), "invalid_input", "FP32[-1,4]", "[1,3]"),
        (JSON, document({"inputs": {"x": [1, 2, 3, 4]}}), "invalid_input", "FP32[-1,4]", "[4]"),
        (JSON, document({"inputs": {"x": []}}), "invalid_input", "FP32[-1,4]", "[0]"),
        (
            JSON,
            document({"inputs": {"x": [[1, 2, 3, 4], [1]]}}),
            "invalid_input",
            "FP32[-1,4]",
            "uneven",
        ),
        (JSON, document({"inputs": {"x": [["a", 2, 3, 4]]}}), "invalid_input", "number", "'a'"),
        (JSON, document({"inputs": {"x": [[True, 2, 3, 4]]}}), "invalid_input", "number", "true"),
        (JSON, document({"inputs": {"x": [[None, 2, 3, 4]]}}), "invalid_input", "number", "null"),
        ("application/msgpack", b"\xc1", "undecodable", "MessagePack", ""),
        ("application/x-npy", b"not numpy", "undecodable", ".npy", ""),
        ("text/csv", b"1,2,3", "undecodable", "FP32[-1,4]", "3"),
        ("text/csv", b"1,2,3,x\n", "undecodable", "FP32", "x"),
    ],
)
def test_a_body_that_is_wrong_gets_400_that_names_what_was_expected_and_what_came(
    both: Both, content_type: str, body: bytes, code: str, expected: str, came: str
) -> None:
    server = MemoryServer()
    text = error_of(
        both(server, ask("/predict", body, method="POST", content_type=content_type)), 400, code
    )
    assert expected in text
    assert came in text
    assert server.model.batches == []


@pytest.mark.parametrize(
    "content_type",
    ["application/octet-stream", JSON, "application/msgpack", "application/x-npy", "text/csv"],
)
def test_an_empty_body_gets_400(both: Both, content_type: str) -> None:
    server = MemoryServer()
    answer = both(server, ask("/predict", b"", method="POST", content_type=content_type))
    assert error_of(answer, 400, answer.decoded()["code"])
    assert server.model.batches == []


@pytest.mark.parametrize("number", [1.5, "1", True])
def test_only_whole_numbers_are_taken_for_an_integer_input(both: Both, number: object) -> None:
    server = MemoryServer(
        RecordingModel(
            model_spec((tensor("x", "INT64", (1,)),), (tensor("y", "INT64", (1,)),)), double
        )
    )
    assert (
        both(server, ask("/predict", document({"instances": [[2]]}), content_type=JSON)).status
        == 200
    )
    text = error_of(
        both(server, ask("/predict", document({"instances": [[number]]}), content_type=JSON)),
        400,
        "invalid_input",
    )
    assert "INT64" in text


def test_binary_arrays_must_have_the_declared_dtype(both: Both) -> None:
    answer = both(
        MemoryServer(), ask("/predict", npy(np.zeros((1, 4))), content_type="application/x-npy")
    )
    text = error_of(answer, 400, "invalid_input")
    assert "FP32[-1,4]" in text
    assert "FP64[1,4]" in text


@pytest.mark.parametrize("body", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_picture_that_is_none_gets_400(both: Both, body: bytes) -> None:
    answer = both(
        MemoryServer(picture_model()),
        ask("/predict", body, method="POST", content_type="image/png"),
    )
    error_of(answer, 400, "undecodable")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("X-Timeout-Ms", value)
            for value in (
                "0",
                "-1",
                "soon",
                "nan",
                "inf",
                "1e99",
                "86400001",
                "1_000",
                "+5",
                "0x5",
                "1 2",
                "5, 6",
                "٣",
                ".",
                "1" * 3_000 + "a",
                "5" + "0" * 64,
            )
        ),
        *(
            ("X-Priority", value)
            for value in ("0", "5", "-1", "1.5", "high", "BULK", "٣", "99999999999")
        ),
    ],
)
def test_a_parameter_that_is_wrong_gets_400_that_names_it(
    both: Both, name: str, value: str
) -> None:
    text = error_of(
        both(MemoryServer(), ask("/predict", ROW, (name, value.encode().decode("latin-1")))),
        400,
        "invalid_input",
    )
    assert name in text
    assert name != "X-Priority" or "expected 1 (the highest) to 3, or 4 or `bulk`; got" in text


@pytest.mark.parametrize(
    ("target", "code", "names"),
    [
        ("/models/unknown/predict", "unknown_model", "'m'"),
        ("/models/m/versions/2/predict", "unknown_model", "1"),
        ("/models/m/versions/x/predict", "unknown_model", "1"),
        ("/nowhere", "unknown_route", "/nowhere"),
        ("/models/m/", "unknown_route", "/models/m/"),
        ("/models/m/predict/", "unknown_route", "/models/m/predict/"),
        ("/models/m/versions", "unknown_route", "/models/m/versions"),
    ],
)
def test_what_is_not_there_gets_404(both: Both, target: str, code: str, names: str) -> None:
    assert names in error_of(both(MemoryServer(), ask(target, ROW)), 404, code)


def test_the_route_without_a_name_needs_one_model_only(both: Both) -> None:
    server = MemoryServer(RecordingModel(), RecordingModel(model_spec(name="other")))
    text = error_of(both(server, ask("/predict", ROW)), 404, "unknown_model")
    assert "'m'" in text
    assert "'other'" in text


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/predict", "POST, OPTIONS"),
        ("PUT", "/models/m/predict", "POST, OPTIONS"),
        ("POST", "/livez", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_method_that_the_route_does_not_know_gets_405_with_allow(
    both: Both, method: str, target: str, allow: str
) -> None:
    answer = both(MemoryServer(), ask(target, b"", method=method, content_type=""))
    assert method in error_of(answer, 405, "method_not_allowed")
    assert answer.header("allow") == allow


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/json;q=0", "nonsense"])
def test_no_acceptable_answer_format_gets_406_that_names_those_there_are(
    both: Both, accept: str
) -> None:
    server = MemoryServer()
    text = error_of(both(server, ask("/predict", ROW, ("Accept", accept))), 406, "not_acceptable")
    assert "application/msgpack" in text
    assert server.model.batches == [], "it is found out before the model runs"


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/xml", "image/png", "multipart/form-data", "nonsense"],
)
def test_a_media_type_that_cannot_be_read_gets_415_that_names_those_that_can(
    both: Both, content_type: str
) -> None:
    text = error_of(
        both(MemoryServer(), ask("/predict", ROW, content_type=content_type)),
        415,
        "unsupported_media_type",
    )
    assert "application/octet-stream" in text


def test_an_unknown_content_coding_gets_415(both: Both) -> None:
    answer = both(MemoryServer(), ask("/predict", ROW, ("Content-Encoding", "br")))
    assert "br" in error_of(answer, 415, "unsupported_media_type")


def test_a_body_over_the_limit_gets_413(stack: Stack) -> None:
    server = MemoryServer(max_body_bytes=100)
    error_of(stack(server, ask("/predict", ROW * 7)), 413, "too_large")
    assert server.model.batches == []


def test_more_rows_than_the_queue_can_ever_hold_get_413(both: Both) -> None:
    server = MemoryServer(defaults={"max_queue_rows": 10})
    assert "10" in error_of(both(server, ask("/predict", ROW * 11)), 413, "too_large")


def test_a_picture_of_too_many_pixels_gets_413(both: Both) -> None:
    server = MemoryServer(picture_model(), max_image_pixels=63)
    error_of(
        both(server, ask("/predict", picture("PNG"), content_type="image/png")), 413, "too_large"
    )


def raises(inputs: Mapping[str, Array]) -> dict[str, Array]:
    raise ZeroDivisionError("secret reason")


def test_a_model_that_raises_gets_500_without_its_reason(both: Both) -> None:
    text = error_of(
        both(MemoryServer(RecordingModel(predict=raises)), ask("/predict", ROW)), 500, "model_error"
    )
    assert "secret" not in text
    assert "ZeroDivision" not in text


def test_the_reason_is_told_where_the_operator_wants_it(both: Both) -> None:
    server = MemoryServer(RecordingModel(predict=raises), expose_model_errors=True)
    text = error_of(both(server, ask("/predict", ROW)), 500, "model_error")
    assert "ZeroDivisionError: secret reason" in text


def test_a_model_that_breaks_its_contract_gets_500_with_both_numbers(both: Both) -> None:
    server = MemoryServer(RecordingModel(predict=lambda inputs: {"y": np.zeros((5, 4), "<f4")}))
    text = error_of(both(server, ask("/predict", ROW * 3)), 500, "model_contract")
    assert "3 rows in, 5 rows out" in text


def test_what_preprocess_refuses_is_the_clients_fault_and_what_it_fails_at_is_the_models(
    both: Both,
) -> None:
    def refuse(values: Mapping[str, Array]) -> Mapping[str, Array]:
        raise InvalidInput("too dark")

    model = RecordingModel()
    model.preprocess = refuse
    server = MemoryServer(model)
    assert error_of(both(server, ask("/predict", ROW)), 400, "invalid_input") == "too dark"
    model.preprocess = raises
    server = MemoryServer(model)
    error_of(both(server, ask("/predict", ROW)), 500, "model_error")


class Hot(InvalidInput):
    http_status = 460  # which no list of statuses has


class Thermometer(RecordingModel):
    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        hot = np.flatnonzero(inputs["x"][:, 0] > 9).tolist()
        return PartialOutputs(super().predict(inputs), {row: Hot("too hot") for row in hot})


def test_a_status_that_no_list_has_is_an_answer_like_any_other(both: Both) -> None:
    server = MemoryServer(Thermometer())
    hot = ask("/predict", rows(99.0).tobytes())
    assert error_of(both(server, hot), 460, "invalid_input") == "too hot"


def test_an_unknown_status_leaves_pipelined_neighbours_alone() -> None:
    server = MemoryServer(Thermometer())
    client = server.connect("loop")
    client.send(*(ask("/predict", rows(value).tobytes()) for value in (1.0, 99.0, 2.0)))
    server.work()
    assert [answer.status for answer in client.answers] == [200, 460, 200]
    assert not client.closed


@pytest.mark.parametrize("state", ["loading", "failed", "stopped"])
def test_a_model_that_is_not_ready_gets_503_with_retry_after_and_its_state(
    both: Both, state: str
) -> None:
    server = MemoryServer()
    worker = server.add(RecordingModel(model_spec(name="other")))
    if state == "failed":
        worker.loaded.errback(ModelLoadError("no such file: weights"))
    if state == "stopped":
        server.server.stop()
    answer = both(server, ask("/models/other/predict", ROW))
    text = error_of(answer, 503, "draining" if state == "stopped" else "model_not_ready")
    assert int(answer.header("retry-after") or 0) >= 1
    assert {"loading": "loading", "failed": f"failed{MORE}", "stopped": "stopped"}[state] in text
    if state != "stopped":
        assert both(server, ask("/models/m/predict", ROW)).status == 200, "the others serve"


@pytest.mark.parametrize("name", STACKS)
def test_a_deadline_that_passes_in_flight_gets_504(name: str) -> None:
    def slow(inputs: Mapping[str, Array]) -> dict[str, Array]:
        server.clock.advance(0.2)
        return double(inputs)

    server = MemoryServer(RecordingModel(predict=slow))
    error_of(
        STACKS[name](server, ask("/predict", ROW, ("X-Timeout-Ms", "100"))),
        504,
        "deadline_exceeded",
    )


def test_an_error_of_our_own_gets_500_without_a_word_about_it_and_is_logged(
    stack: Stack, logged_errors: list[object]
) -> None:
    server = MemoryServer()
    version = server.server.find("m")
    version.scheduler.group_key = lambda inputs: 1 // 0
    text = error_of(stack(server, ask("/predict", ROW)), 500, "internal")
    assert "division" not in text
    assert len(logged_errors) == 1
    logged_errors.clear()


def test_the_frames_of_an_error_let_go_of_the_body_when_the_reply_is_made() -> None:
    class LargeBody:
        pass

    def refuse(body: LargeBody) -> None:
        error = QueueFull("full")  # the frame holds the error, and the error the frame
        raise error

    body = LargeBody()
    held = weakref.ref(body)
    with pytest.raises(QueueFull) as caught:
        refuse(body)
    del body
    router = MemoryServer().router
    head = CallHead("POST", "/predict", {}, "", {}, ())
    reply = router.failure_reply(caught.value, router.routes[0], head)
    assert reply.status == 503
    assert held() is None
