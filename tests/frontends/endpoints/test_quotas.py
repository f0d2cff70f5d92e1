"""Quotas over HTTP, in every protocol.

Which key a request is charged to, the answer beyond the quota, and that no key is shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from batcher.config.quota import Quota
from batcher.serving.stages.quotas import Quotas
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer

Stack = Callable[[MemoryServer, bytes], Answer]
QUOTAS = {"SECRET": Quota(rows_per_s=0.25, burst_rows=2), "*": Quota(rows_per_s=1, burst_rows=1)}
KEY = ("X-Api-Key", "SECRET")
INSTANCES = json.dumps({"instances": [[1, 2, 3, 4]]}).encode()
PROTOCOL = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()
JSON = "application/json"
ROUTES = {
    "/predict": (ROW, "application/octet-stream"),
    "/models/m/predict": (INSTANCES, JSON),
    "/v2/models/m/infer": (PROTOCOL, JSON),
    "/v1/models/m:predict": (INSTANCES, JSON),
    "/invocations": (INSTANCES, JSON),
    "/vertex": (INSTANCES, JSON),
}


def server(**settings: Any) -> MemoryServer:
    return MemoryServer(
        **{"quotas": QUOTAS, "sagemaker": True, "vertex_predict_route": "/vertex", **settings}
    )


@pytest.mark.parametrize(
    "header", [KEY, ("Authorization", "Bearer SECRET")], ids=["x-api-key", "bearer"]
)
@pytest.mark.parametrize("route", ROUTES)
def test_who_is_over_its_quota_is_told_when_to_come_back_and_nobody_else(
    stack: Stack, route: str, header: tuple[str, str]
) -> None:
    memory = server()
    body, content_type = ROUTES[route]
    request = ask(route, body, header, content_type=content_type)
    answers = [stack(memory, request) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].header("retry-after") == "4"
    document = answers[2].decoded()
    native = not route.startswith(("/v1", "/v2", "/invocations", "/vertex"))
    assert document.get("code") == ("quota_exceeded" if native else None)
    assert "expected at most 0.25 rows/s and 2 at once; got 1 more" in document["error"]
    others = ask(route, body, content_type=content_type)
    assert [stack(memory, others).status for _ in range(2)] == [200, 429]
    memory.wait(4)
    assert stack(memory, request).status == 200


@pytest.mark.parametrize("name", ["X-Api-Key", "Authorization"])
@pytest.mark.parametrize("route", ROUTES)
def test_two_keys_are_refused_and_charged_to_nobody(stack: Stack, route: str, name: str) -> None:
    memory = server()
    body, content_type = ROUTES[route]
    scheme = "Bearer " * (name == "Authorization")
    request = ask(
        route, body, (name, f"{scheme}SECRET"), (name, f"{scheme}other"), content_type=content_type
    )
    answer = stack(memory, request)
    assert answer.status == 400
    assert "X-Api-Key" in answer.decoded()["error"]
    assert b"SECRET" not in answer.body
    assert stack(memory, ask(route, body, content_type=content_type)).status == 200


def test_two_keys_are_nothing_to_a_server_without_quotas(stack: Stack) -> None:
    request = ask("/predict", ROW, ("X-Api-Key", "a"), ("X-Api-Key", "b"))
    assert stack(server(quotas={}), request).status == 200


def test_routes_share_the_quota_of_a_key() -> None:
    memory, client = server(), None
    client = memory.connect("loop")
    for route, (body, content_type) in ROUTES.items():
        client.send(ask(route, body, KEY, content_type=content_type))
        memory.work()
    assert [answer.status for answer in client.answers] == [200, 200, 429, 429, 429, 429]


def test_bodies_that_are_decoded_beside_the_loop_are_charged_too(stack: Stack) -> None:
    memory = server()
    request = ask(
        "/v2/models/m/infer", PROTOCOL, KEY, ("Accept-Encoding", "gzip"), content_type=JSON
    )
    assert [stack(memory, request).status for _ in range(3)] == [200, 200, 429]


def test_a_head_that_is_known_follows_quotas_that_are_exchanged(stack: Stack) -> None:
    memory = server(quotas={})
    request = ask("/predict", ROW, KEY)
    assert [stack(memory, request).status for _ in range(4)] == [200] * 4
    memory.server.limit(Quotas(QUOTAS))
    assert [stack(memory, request).status for _ in range(3)] == [200, 200, 429]
    memory.server.limit(None)
    assert stack(memory, request).status == 200


def test_no_answer_page_metric_or_line_of_the_log_shows_a_key(stack: Stack) -> None:
    memory = server()
    for _ in range(3):
        assert b"SECRET" not in stack(memory, ask("/predict", ROW, KEY)).body
    for route in (
        "/",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/readyz",
        "/v2",
        "/v2/models/m/config",
    ):
        assert b"SECRET" not in stack(memory, ask(route, b"", KEY)).body, route
    assert not any(b"SECRET" in line for line in memory.lines)
    metrics = stack(memory, ask("/metrics")).body.decode()
    assert 'batcher_quota_rejected_rows_total{quota="quota-1"} 1.0' in metrics


def test_the_document_tells_of_429_on_every_route_that_infers_and_on_no_other(stack: Stack) -> None:
    memory = server()
    paths = stack(memory, ask("/openapi.json")).decoded()["paths"]
    answers = {
        path
        for path, methods in paths.items()
        for operation in methods.values()
        if "429" in operation["responses"]
    }
    infers = ("predict", "/infer", "/invocations", "/vertex", "/embeddings")
    assert answers == {path for path in paths if path.endswith(infers)}
    for path in answers:
        operation = paths[path]["post"]
        assert "Retry-After" in operation["responses"]["429"]["headers"]
        assert "X-Api-Key" in [entry["name"] for entry in operation["parameters"]]
