"""The routes that SageMaker and Vertex AI expect of a container, over both stacks."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from batcher.config.settings import load_settings
from batcher.errors import ConfigError
from tests.frontends.endpoints.conftest import Both
from tests.support.codec_inputs import encoded, picture_spec, pixels
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec, tensor

ROWS = json.dumps({"instances": [[1, 1, 1, 1], [2, 2, 2, 2]]}).encode()
PREDICTIONS = {"predictions": [[2, 2, 2, 2], [4, 4, 4, 4]]}
SAGEMAKER = {"sagemaker": True}
VERTEX = {"vertex_health_route": "/isalive", "vertex_predict_route": "/infer"}


def get(both: Both, server: MemoryServer, path: str) -> int:
    return both(server, ask(path, b"", method="GET")).status


@pytest.mark.parametrize(
    ("settings", "path"), [(SAGEMAKER, "/ping"), (VERTEX, "/isalive")], ids=["sagemaker", "vertex"]
)
def test_the_health_route_follows_the_models(
    both: Both, settings: dict[str, object], path: str
) -> None:
    server = MemoryServer(**settings)
    assert get(both, server, path) == 200
    worker = server.add(RecordingModel(model_spec(name="late")))
    assert get(both, server, path) == 503
    worker.loaded.callback(worker._model.loaded())
    assert get(both, server, path) == 200


@pytest.mark.parametrize(
    ("settings", "path"),
    [(SAGEMAKER, "/invocations"), (VERTEX, "/infer")],
    ids=["sagemaker", "vertex"],
)
def test_rows_are_answered_with_predictions(
    both: Both, settings: dict[str, object], path: str
) -> None:
    answer = both(MemoryServer(**settings), ask(path, ROWS, content_type="application/json"))
    assert (answer.status, answer.decoded()) == (200, PREDICTIONS)


def test_any_other_format_is_that_of_the_native_route(both: Both) -> None:
    server = MemoryServer(sagemaker=True)
    answer = both(server, ask("/invocations", ROW, content_type="application/octet-stream"))
    assert (answer.status, answer.body) == (
        200,
        both(server, ask("/predict", ROW, content_type="application/octet-stream")).body,
    )
    text = both(
        server,
        ask("/invocations", b"1,1,1,1\n", ("Accept", "application/json"), content_type="text/csv"),
    )
    assert text.decoded() == {"outputs": {"y": [[2, 2, 2, 2]]}}
    assert both(server, ask("/invocations", b"x", content_type="application/pdf")).status == 415


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"instances": [["a"]]}'], ids=repr)
def test_what_is_wrong_is_a_400(both: Both, body: bytes) -> None:
    answer = both(
        MemoryServer(sagemaker=True), ask("/invocations", body, content_type="application/json")
    )
    assert answer.status == 400
    assert list(answer.decoded()) == ["error"]


def test_several_models_are_too_many(both: Both) -> None:
    models = RecordingModel(), RecordingModel(model_spec(name="n"))
    answer = both(
        MemoryServer(*models, sagemaker=True),
        ask("/invocations", ROWS, content_type="application/json"),
    )
    assert answer.status == 404
    assert "'m', 'n'" in answer.decoded()["error"]
    assert "load_at_start: [m]" in answer.decoded()["error"], "a client cannot choose the path"


def test_nothing_of_it_is_there_that_was_not_switched_on(both: Both) -> None:
    server = MemoryServer()
    assert get(both, server, "/ping") == 404
    assert both(server, ask("/invocations", ROWS, content_type="application/json")).status == 404


def test_a_route_of_the_cloud_may_be_one_of_ours(both: Both) -> None:
    server = MemoryServer(vertex_health_route="/livez", vertex_predict_route="/predict")
    assert (
        both(server, ask("/predict", ROWS, content_type="application/json")).decoded()
        == PREDICTIONS
    )
    server.add(RecordingModel(model_spec(name="late")))
    assert get(both, server, "/livez") == 503


def test_the_variables_of_the_platforms_switch_it_on() -> None:
    vertex = {"AIP_HTTP_PORT": "8888", "AIP_HEALTH_ROUTE": "/h", "AIP_PREDICT_ROUTE": "/p:predict"}
    settings = load_settings(None, vertex)
    assert (settings.host, settings.port) == ("0.0.0.0", 8888)
    assert (settings.vertex_health_route, settings.vertex_predict_route, settings.sagemaker) == (
        "/h",
        "/p:predict",
        False,
    )
    settings = load_settings(None, {"SAGEMAKER_BIND_TO_PORT": "8123", "BATCHER_HOST": "127.0.0.1"})
    assert (settings.host, settings.port, settings.sagemaker) == ("127.0.0.1", 8123, True)
    assert load_settings(None, {}).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("AIP_HTTP_PORT", "eighty"), ("AIP_HEALTH_ROUTE", "health"), ("AIP_PREDICT_ROUTE", "/a b")],
)
def test_a_variable_that_is_wrong_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable {name}"):
        load_settings(None, {name: value})


@pytest.mark.parametrize(
    ("settings", "path"),
    [({}, "/v1/models/m:predict"), (SAGEMAKER, "/invocations"), (VERTEX, "/infer")],
    ids=["tf_serving", "sagemaker", "vertex"],
)
def test_pictures_come_as_base64_and_are_answered_as_a_file_is(
    both: Both, settings: dict[str, object], path: str
) -> None:
    spec = picture_spec((1, 2, 2), "L", scale=1.0)
    output = tensor("y", shape=(1, 2, 2))
    model = RecordingModel(model_spec(spec.inputs, (output,)), predict=lambda x: {"y": x["x"]})
    server = MemoryServer(model, **settings)
    file = encoded(pixels(2, 2, 1))
    accept = ("Accept", "application/json")
    direct = both(server, ask("/predict", file, accept, content_type="image/png")).decoded()
    rows = [{"b64": base64.b64encode(file).decode()}] * 2

    def send(document: object) -> Answer:
        body = json.dumps(document).encode()
        return both(server, ask(path, body, content_type="application/json"))

    assert send({"instances": rows}).decoded() == {"predictions": direct["outputs"]["y"] * 2}
    assert send({"inputs": {"x": rows}}).decoded() == {"outputs": direct["outputs"]["y"] * 2}
    refused = send({"instances": [*rows, {"b64": "AAAA"}]})
    assert refused.status == 400
    assert "row 2" in refused.decoded()["error"]


CSV_ACCEPTS = ["", "text/csv", "text/csv; header=absent", "*/*"]


@pytest.mark.parametrize("accept", CSV_ACCEPTS)
@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"1,1,1,1\n", 1),
        (b"1,1,1,1", 1),
        (b"1,1,1,1\n2,2,2,2\n3,3,3,3\n", 3),
        (b"1,1,1,1\r\n2,2,2,2\r\n3,3,3,3", 3),
    ],
    ids=range(4),
)
def test_batch_transform_gets_a_line_of_csv_for_each_line(
    both: Both, body: bytes, lines: int, accept: str
) -> None:
    server = MemoryServer(sagemaker=True)
    headers = [("Accept", accept)] if accept else []
    answer = both(server, ask("/invocations", body, *headers, content_type="text/csv"))
    expected = [",".join([f"{2 * row}.0"] * 4) for row in range(1, lines + 1)]
    assert (answer.status, answer.body.decode().splitlines()) == (200, expected)


def test_csv_has_a_header_where_it_is_asked_for(both: Both) -> None:
    server = MemoryServer(sagemaker=True)
    accept = ("Accept", "text/csv;header=present")
    request = ask(
        "/invocations", b"a,b,c,d\n1,1,1,1", accept, content_type="text/csv; header=present"
    )
    assert both(server, request).body == b"y[0],y[1],y[2],y[3]\n2.0,2.0,2.0,2.0\n"
    native = ask(
        "/predict", b"1,1,1,1", ("Accept", "text/csv; header=absent"), content_type="text/csv"
    )
    answer = both(server, native)
    assert answer.body == b"2.0,2.0,2.0,2.0\n"
    assert answer.header("content-type") == "text/csv"
    native = ask("/predict", b"1,1,1,1", content_type="text/csv")
    assert both(server, native).body.startswith(b"y[0],")


def test_a_line_of_names_is_no_header_for_batch_transform(both: Both) -> None:
    request = ask("/invocations", b"a,b,c,d\n1,1,1,1", content_type="text/csv")
    answer = both(MemoryServer(sagemaker=True), request)
    assert answer.status == 400
    assert "line 1" in answer.decoded()["error"], "a row that vanished would shift all others"


def test_a_table_without_a_header_has_the_inputs_in_their_order(both: Both) -> None:
    spec = model_spec((tensor("a", shape=()), tensor("b", shape=())), (tensor("y", shape=()),))
    model = RecordingModel(spec, predict=lambda inputs: {"y": inputs["a"] - inputs["b"]})
    request = ask("/invocations", b"5,3\n9,1\n", content_type="text/csv")
    assert both(MemoryServer(model, sagemaker=True), request).body == b"2.0\n8.0\n"


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-jsonlines"])
def test_batch_transform_gets_a_line_of_json_for_each_line(both: Both, kind: str) -> None:
    server = MemoryServer(sagemaker=True)
    body = b'{"x":[1,1,1,1]}\n{"x":[2,2,2,2]}\n'
    for headers in ([], [("Accept", kind)]):
        answer = both(server, ask("/invocations", body, *headers, content_type=kind))
        assert answer.status == 200
        assert answer.body == b'{"y":[2.0,2.0,2.0,2.0]}\n{"y":[4.0,4.0,4.0,4.0]}\n'
    text = both(server, ask("/invocations", body, ("Accept", "text/csv"), content_type=kind))
    assert text.body == b"2.0,2.0,2.0,2.0\n4.0,4.0,4.0,4.0\n"


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize(
    ("ends", "line"),
    [
        (("", "\n\n", "\n"), 2),
        (("", "\r\n\r\n", "\r\n"), 2),
        (("", "\r\r", ""), 2),
        (("\n", "\n", ""), 1),
        (("\n\r\n", "\n\n", ""), 1),
    ],
    ids=range(5),
)
def test_an_empty_line_is_refused_where_answers_are_joined_with_lines(
    both: Both, kind: str, ends: tuple[str, str, str], line: int
) -> None:
    row = "1,1,1,1" if kind == "text/csv" else "[1,1,1,1]"
    before, between, after = ends
    body = f"{before}{row}{between}{row}{after}".encode()
    server = MemoryServer(sagemaker=True)
    answer = both(server, ask("/invocations", body, content_type=kind))
    assert answer.status == 400
    assert f"line {line}: expected a row" in answer.decoded()["error"]
    native = both(server, ask("/predict", body, content_type=kind))
    assert native.status == 200, "other clients mean nothing by an empty line"


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonlines"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\n\n"])
def test_ends_of_lines_after_the_last_line_are_no_empty_lines(
    both: Both, kind: str, end: str
) -> None:
    row = "1,1,1,1" if kind == "text/csv" else "[1,1,1,1]"
    body = f"{row}\r\n{row}{end}".encode()
    answer = both(MemoryServer(sagemaker=True), ask("/invocations", body, content_type=kind))
    assert answer.status == 200
    assert len(answer.body.splitlines()) == 2


def test_an_empty_line_of_a_table_is_refused_too(both: Both) -> None:
    spec = model_spec((tensor("a", shape=()), tensor("b", shape=())), (tensor("y", shape=()),))
    model = RecordingModel(spec, predict=lambda inputs: {"y": inputs["a"] - inputs["b"]})
    request = ask("/invocations", b"5,3\n9,1\n\n1,1\n", content_type="text/csv")
    answer = both(MemoryServer(model, sagemaker=True), request)
    assert answer.status == 400
    assert "line 3: expected a row" in answer.decoded()["error"]


def test_an_empty_line_within_quotes_belongs_to_a_row(both: Both) -> None:
    spec = model_spec((tensor("text", "BYTES", ()),), (tensor("y", shape=()),))
    model = RecordingModel(spec, predict=lambda inputs: {"y": np.ones(len(inputs["text"]), "f4")})
    request = ask("/invocations", b'"a\n\nb"\nc\n', content_type="text/csv")
    assert both(MemoryServer(model, sagemaker=True), request).body == b"1.0\n1.0\n"
