"""Kept answers over HTTP: who skips them, and what the answer and the page say of them."""

from __future__ import annotations

import numpy as np
import pytest

from batcher.config.model_settings import ModelOverrides
from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.test_quotas import Stack
from tests.frontends.endpoints.test_traffic import ROUTES
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec

TIMING = ("X-Timing", "1")


def server(**more: object) -> MemoryServer:
    return MemoryServer(models={"m": ModelOverrides(cache={}, **more)})


@pytest.mark.parametrize("route", ROUTES)
def test_every_protocol_finds_what_any_has_asked(stack: Stack, route: str) -> None:
    memory = server()
    kind = "application/octet-stream" if ROUTES[route] is ROW else "application/json"
    for fields in ((), (), (("Cache-Control", "no-cache"),)):
        assert stack(memory, ask(route, ROUTES[route], *fields, content_type=kind)).status == 200
    counted = memory.server.metrics.caches.of("m", "1").outcomes
    assert counted == {"hit": 1, "joined": 0, "miss": 1, "skipped": 1}


def test_the_answer_says_where_it_is_from_where_times_are_asked_for(both: Both) -> None:
    memory = server()
    found = [
        both(memory, ask("/predict", ROW, TIMING, *more)).header("x-cache")
        for more in ((), (), (("Cache-Control", "max-age=0, No-Store"),))
    ]
    assert found == ["miss", "hit", "miss"]
    assert "x-cache" not in dict(both(memory, ask("/predict", ROW)).fields)
    without = both(MemoryServer(), ask("/predict", ROW, TIMING))
    assert "x-cache" not in dict(without.fields)


def test_versions_that_share_requests_keep_answers_of_their_own(both: Both) -> None:
    models = [
        RecordingModel(model_spec(version=str(number)), lambda x, n=number: {"y": x["x"] * n})
        for number in (3, 5)
    ]
    own = ModelOverrides(traffic={"3": 1, "5": 1}, cache={})
    memory = MemoryServer(*models, models={"m": own})
    for value in map(str, range(20)):
        answer = both(memory, ask("/predict", ROW, TIMING, ("X-Route-Key", value)))
        factor = float(dict(answer.fields)["x-model-version"])
        assert np.frombuffer(answer.body, "<f4")[0] == factor


def test_the_page_tells_how_many_requests_needed_no_model(stack: Stack) -> None:
    memory = server()
    for _ in range(4):
        stack(memory, ask("/predict", ROW))
    page = stack(memory, ask("/models/m", method="GET")).body.decode()
    assert "Kept answers" in page
    assert "75 %" in page  # of four requests


def test_a_page_of_another_origin_reads_where_an_answer_is_from(stack: Stack) -> None:
    memory = MemoryServer(models={"m": ModelOverrides(cache={})}, cors_origins=("*",))
    answer = stack(memory, ask("/predict", ROW, TIMING, ("Origin", "https://app.example")))
    exposed = (answer.header("access-control-expose-headers") or "").split(", ")
    assert {"X-Cache", "Idempotency-Replayed"} <= set(exposed)
