"""TorchServe's routes, over both stacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from batcher.config.fixed_tensors import fill_in_fixed
from batcher.config.model_settings import ModelOverrides
from batcher.config.reading import Source
from batcher.core.spec import Array, ModelSpec, TensorSpec, datatype
from batcher.errors import InvalidInput
from tests.frontends.endpoints.conftest import Both
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec


def archive_spec() -> ModelSpec:
    source = Source({"format": "torchserve"}, {})
    fill_in_fixed(source)
    inputs, outputs = (
        tuple(TensorSpec(each["name"], datatype("BYTES"), ()) for each in source.values[kind])
        for kind in ("inputs", "outputs")
    )
    return replace(model_spec(name="echo"), inputs=inputs, outputs=outputs, platform="torchserve")


def echo(inputs: Mapping[str, Array]) -> dict[str, Array]:
    if b"bad" in inputs["body"]:
        raise InvalidInput("no such word")
    if b"worse" in inputs["body"]:
        raise ValueError("cannot say")
    return {"prediction": inputs["body"], "content_type": inputs["content_type"]}


@pytest.fixture
def server() -> MemoryServer:
    made = MemoryServer(torchserve=True)
    worker = made.add(RecordingModel(archive_spec(), echo))
    worker.loaded.callback(worker._model.loaded())
    return made


def test_an_archive_gets_the_body_with_its_media_type(both: Both, server: MemoryServer) -> None:
    for body in (b'{"x": 1}', b"\x00\xff" * 300_000, b""):
        request = ask("/predictions/echo", body, method="POST", content_type="application/x-any")
        answer = both(server, request)
        assert (answer.status, answer.body) == (200, body)
        assert answer.header("content-type") == "application/x-any"


def test_a_version_in_the_path_and_put_are_the_same(both: Both, server: MemoryServer) -> None:
    for version in ("1", "1.0"):  # as archives are called by default
        request = ask(f"/predictions/echo/{version}", b"x", content_type="text/plain")
        assert both(server, request).body == b"x"
    put = ask("/predictions/echo", b"x", method="PUT", content_type="text/plain")
    assert both(server, put).body == b"x"


def test_the_answer_says_which_version_of_an_archive_has_given_it(both: Both) -> None:
    own = ModelOverrides(traffic={1: 1})
    server = MemoryServer(torchserve=True, models={"echo": own})
    worker = server.add(RecordingModel(archive_spec(), echo))
    worker.loaded.callback(worker._model.loaded())
    answer = both(server, ask("/predictions/echo", b"x", content_type="text/plain"))
    assert (answer.body, answer.header("x-model-version")) == (b"x", "1")


def test_a_model_that_is_no_archive_answers_as_the_native_route(both: Both) -> None:
    server = MemoryServer(torchserve=True)
    name = next(iter(server.server)).spec.name
    kind = "application/octet-stream"
    answers = [
        both(server, ask(path, ROW, content_type=kind)).body
        for path in (f"/predictions/{name}", f"/models/{name}/predict")
    ]
    assert answers[0] == answers[1]


FAILURES = [
    ("/predictions/none", b"", 404, "ModelNotFoundException"),
    ("/predictions/echo/9", b"", 404, "ModelNotFoundException"),
    ("/predictions/echo/1.5", b"", 404, "ModelNotFoundException"),
    ("/predictions/echo/1/2", b"", 404, "ModelNotFoundException"),
    ("/predictions/echo", b"bad", 400, "BadRequestException"),
    ("/predictions/echo", b"worse", 503, "InternalServerException"),
]


@pytest.mark.parametrize(("path", "body", "status", "kind"), FAILURES)
def test_errors_have_torchserves_form(
    both: Both, server: MemoryServer, path: str, body: bytes, status: int, kind: str
) -> None:
    answer = both(server, ask(path, body, method="POST", content_type="text/plain"))
    document: dict[str, Any] = json.loads(answer.body)
    assert (answer.status, document["code"], document["type"]) == (status, status, kind)
    assert document["message"]


def test_ping_and_models_say_what_is_there(both: Both, server: MemoryServer) -> None:
    def get(path: str) -> Any:
        answer = both(server, ask(path, b"", method="GET"))
        return answer.status, json.loads(answer.body)

    assert get("/ping") == (200, {"status": "Healthy"})
    assert {"modelName": "echo", "modelUrl": "echo.mar"} in get("/models")[1]["models"]
    server.add(RecordingModel(model_spec(name="late")))
    assert get("/ping") == (500, {"status": "Unhealthy"})


def test_without_the_setting_there_are_no_such_routes(both: Both) -> None:
    server = MemoryServer()
    for path, method in (("/ping", "GET"), ("/predictions/m", "POST"), ("/models", "GET")):
        assert both(server, ask(path, b"", method=method)).status == 404
