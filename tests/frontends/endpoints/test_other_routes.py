"""Routes of other servers, tried here."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from batcher.frontends.endpoints.other_routes import route_like
from tests.support.http import MemoryServer, ask
from tests.support.http_answers import Answer


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/models", "/v2/repository/index"),
        ("/v1/models", "/v2/repository/index"),
        ("/v2/models", "/v2/repository/index"),
        ("/health", "/readyz"),
        ("/healthz", "/readyz"),
        ("/health/live", "/livez"),
        ("/ready", "/readyz"),
        ("/predictions/m", "/models/NAME/predict"),
        ("/models/m", "/v2/models/NAME"),
        ("/models/m/infer", "/models/NAME/predict"),
        ("/model/m/predict", "/models/NAME/predict"),
        ("/models/m/predict/", "/models/NAME/predict"),
        ("/v2/models/m/predict", "/v2/models/NAME/infer"),
        ("/stats", "/metrics"),
        ("/swagger", "/docs"),
        ("/version", "/v2"),
        ("/api/predict", "/predict"),
    ],
)
def test_a_route_of_another_server_is_told_by_the_one_that_does_the_same(
    path: str, route: str
) -> None:
    hint = route_like(path)
    assert re.search(rf"(GET|POST) {re.escape(route)}(,| |$)", hint)
    method, target = hint.split(",")[0].split()[:2]
    known = MemoryServer().router.methods_of(target.replace("NAME", "m"))
    assert method in known


@pytest.mark.parametrize("path", ["/", "/nothing", "/models/m/versions/1/x", "/a" * 4000])
def test_other_paths_are_told_nothing(path: str) -> None:
    assert route_like(path) == ""


def test_the_answer_names_the_route(stack: Callable[[MemoryServer, bytes], Answer]) -> None:
    answer = stack(MemoryServer(), ask("/health"))
    assert answer.status == 404
    assert "got '/health'. Did you mean GET /readyz?" in answer.decoded()["error"]
