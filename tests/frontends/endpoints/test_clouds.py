"""The routes that SageMaker and Vertex AI expect of a container, over both stacks."""

from __future__ import annotations

import base64
import json

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
