"""Versions that share requests, over HTTP: what chooses the version, and what the answer says."""

from __future__ import annotations

import json

import pytest

from batcher.config.model_settings import ModelOverrides
from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.test_labels import INSTANCES, PROTOCOL
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec

ROUTES = {
    "/predict": ROW,
    "/models/m/predict": ROW,
    "/v1/models/m:predict": INSTANCES,
    "/v2/models/m/infer": PROTOCOL,
}


def server(**more: object) -> MemoryServer:
    models = [RecordingModel(model_spec(version=version)) for version in ("3", "5")]
    own = ModelOverrides(traffic={"3": 1, "5": 1}, **more)
    return MemoryServer(*models, models={"m": own})


def version_of(answer: Answer) -> str:
    assert answer.status == 200, answer
    return dict(answer.fields)["x-model-version"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("field", ["X-Route-Key", "X-Request-Id"])
def test_a_header_chooses_the_version_and_the_answer_tells_it(
    both: Both, route: str, field: str
) -> None:
    memory = server()
    kind = "application/octet-stream" if ROUTES[route] is ROW else "application/json"
    found = {}
    for value in map(str, range(12)):
        request = ask(route, ROUTES[route], (field, value), content_type=kind)
        found[value] = version_of(both(memory, request))
        assert version_of(both(memory, request)) == found[value]
    assert set(found.values()) == {"3", "5"}


def test_the_route_key_counts_before_the_request_id(both: Both) -> None:
    memory = server()
    found = {
        version_of(
            both(memory, ask("/predict", ROW, ("X-Route-Key", "a"), ("X-Request-Id", str(number))))
        )
        for number in range(8)
    }
    assert len(found) == 1


def test_the_id_of_the_protocol_chooses_where_no_header_does(both: Both) -> None:
    memory = server()
    found = {}
    for name in "abcdefgh":
        body = json.dumps({**json.loads(PROTOCOL), "id": name}).encode()
        answers = [
            both(memory, ask("/v2/models/m/infer", body, content_type="application/json"))
            for _ in range(2)
        ]
        assert version_of(answers[0]) == version_of(answers[1])
        found[name] = version_of(answers[0])
        assert answers[0].decoded()["model_version"] == found[name]
    assert set(found.values()) == {"3", "5"}


def test_the_access_log_tells_the_version(both: Both) -> None:
    memory = server()
    answer = both(memory, ask("/predict", ROW, ("X-Route-Key", "a")))
    lines = [json.loads(line) for line in memory.lines]
    assert {line["version"] for line in lines} == {version_of(answer)}


def test_without_traffic_no_answer_and_no_line_has_the_version(both: Both) -> None:
    memory = MemoryServer()
    answer = both(memory, ask("/predict", ROW, ("X-Route-Key", "a")))
    assert "x-model-version" not in dict(answer.fields)
    assert all("version" not in json.loads(line) for line in memory.lines)


def test_a_version_in_the_path_is_not_exchanged(both: Both) -> None:
    memory = server()
    for value in map(str, range(6)):
        path = "/models/m/versions/5/predict"
        answer = both(memory, ask(path, ROW, ("X-Route-Key", value)))
        assert "x-model-version" not in dict(answer.fields)
    assert not memory.models[0].batches
