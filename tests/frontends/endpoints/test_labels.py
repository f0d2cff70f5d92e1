"""Labels over HTTP, in every protocol."""

from __future__ import annotations

import json

import pytest

from batcher.config.model_settings import ModelOverrides
from tests.frontends.endpoints.conftest import Both
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec

INSTANCES = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
PROTOCOL = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()
ROUTES = {
    "/models/m/labels/{}/predict": (ROW, ()),
    "/v1/models/m/labels/{}:predict": (INSTANCES, (("Content-Type", "application/json"),)),
    "/v2/models/m/versions/{}/infer": (PROTOCOL, (("Content-Type", "application/json"),)),
}


def server() -> MemoryServer:
    models = [
        RecordingModel(
            model_spec(version=version),
            lambda inputs, factor=int(version): {"y": inputs["x"] * factor},
        )
        for version in ("3", "5")
    ]
    labels = {"stable": 3, "canary": 5, "next": 9}
    return MemoryServer(*models, models={"m": ModelOverrides(labels=labels)})


@pytest.mark.parametrize("route", ROUTES)
def test_a_label_stands_for_its_version_in_every_protocol(both: Both, route: str) -> None:
    body, kind = ROUTES[route]
    memory = server()
    for label, sent in (("stable", 0), ("canary", 1)):
        answer = both(memory, ask(route.format(label), body, *kind))
        assert answer.status == 200
        assert memory.models[sent].batches
        assert (len(memory.models[0].batches) > 0, len(memory.models[1].batches) > 0) == (
            True,
            sent == 1,
        )


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("label", "status", "text"),
    [
        ("next", 503, "'next' stands for version 9, which is not loaded yet"),
        ("other", 404, "expected version 3 or 5, or a label; got 'other'"),
    ],
)
def test_a_label_without_a_version_says_why(
    both: Both, route: str, label: str, status: int, text: str
) -> None:
    body, kind = ROUTES[route]
    answer = both(server(), ask(route.format(label), body, *kind))
    assert answer.status == status
    assert text in answer.decoded()["error"]


def test_a_label_tells_the_state_of_its_version(both: Both) -> None:
    (found,) = both(server(), ask("/v1/models/m/labels/canary")).decoded()["model_version_status"]
    assert (found["version"], found["state"]) == ("5", "AVAILABLE")
