"""A pipeline is a model to clients: routes, metadata, page and readiness."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from batcher.config.model_settings import ModelOverrides
from tests.support.http import MemoryServer, ask, over_connection
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec
from tests.support.pipelines import CASCADE, definition

INPUTS = orjson.dumps({"inputs": {"x": [[1, 1, 1, 1], [9, 9, 9, 9]]}})


def serve(tmp_path: Path, **settings: Any) -> MemoryServer:
    models = [RecordingModel(model_spec(name=name)) for name in ("one", "two")]
    server = MemoryServer(*models, **settings)
    server.server.add(definition(tmp_path, CASCADE), server.settings.for_model("p"))
    server.turn()
    return server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MemoryServer]:
    server = serve(tmp_path)
    yield server
    server.check_nothing_is_left()


def get(server: MemoryServer, target: str) -> Answer:
    return over_connection(server, ask(target, method="GET"))


def test_the_native_route_answers(server: MemoryServer) -> None:
    request = ask("/models/p/predict", INPUTS, ("X-Timing", "1"), content_type="application/json")

    answer = over_connection(server, request)

    assert answer.status == 200
    assert orjson.loads(answer.body) == {"outputs": {"y": [[2.0] * 4, [18.0] * 4]}}
    timing = re.sub(r"\d+\.\d{3}", "T", answer.header("server-timing") or "")
    assert timing.split(", ") == [
        "queue;dur=T",
        "compute;dur=T",
        'batch;desc="2"',
        "small.queue;dur=T",
        "small.compute;dur=T",
        'small.batch;desc="2"',
        "large.queue;dur=T",
        "large.compute;dur=T",
        'large.batch;desc="1"',
    ]


def test_the_open_inference_protocol_describes_and_answers(server: MemoryServer) -> None:
    body = orjson.dumps(
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    )

    metadata = orjson.loads(get(server, "/v2/models/p").body)
    request = ask("/v2/models/p/infer", body, content_type="application/json")
    answer = orjson.loads(over_connection(server, request).body)

    assert metadata["platform"] == "pipeline"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert answer["outputs"][0]["data"] == [2, 4, 6, 8]
    assert get(server, "/v2/models/p/ready").status == 200


def test_its_page_shows_the_steps_and_their_rows(server: MemoryServer) -> None:
    over_connection(server, ask("/models/p/predict", INPUTS, content_type="application/json"))

    page = get(server, "/models/p").body.decode()

    assert "<h2>Steps</h2>" in page
    assert 'model <a href="../models/two">two</a>' in page
    assert "<code>max(small.y) &lt; 10</code>" in page


def test_it_is_said_to_have_no_batches_of_its_own_and_never_to_refuse_everybody(
    server: MemoryServer,
) -> None:
    over_connection(server, ask("/models/p/predict", INPUTS, content_type="application/json"))

    explanation = orjson.loads(get(server, "/v2/models/p/batching").body)["explanation"]

    assert explanation["situation"] == "pipeline"
    assert explanation["because"] == [
        "A pipeline has no batches of its own: its steps ask one, two, whose own batches are "
        "explained there."
    ]


def test_who_wants_no_kept_answer_gets_none_of_any_step(tmp_path: Path) -> None:
    keeping = ModelOverrides(cache={})
    server = serve(tmp_path, models={"one": keeping, "two": keeping})

    def origin(*fields: tuple[str, str]) -> str | None:
        timing = ("X-Timing", "1")
        asked = ask("/models/p/predict", INPUTS, timing, *fields, content_type="application/json")
        return over_connection(server, asked).header("x-cache")

    found = [origin(), origin(), origin(("Cache-Control", "no-cache"))]

    assert found == ["miss", "hit", "miss"]
    counted = server.server.metrics.caches.of("one", "1").outcomes
    assert counted == {"hit": 1, "joined": 0, "miss": 1, "skipped": 1}


def test_a_model_that_is_missing_is_named_by_readiness(server: MemoryServer) -> None:
    server.server.unload(server.server.find("two"))
    server.turn()

    ready = get(server, "/readyz")

    assert ready.status == 503
    assert b"p/1" in ready.body
