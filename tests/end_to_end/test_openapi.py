"""The claims of `/openapi.json`, held against live answers.

The answers are those to right requests, and to right and wrong requests that are made up from the
document. There are two servers: one with default settings, and one with everything switched on that
adds routes or changes answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from html import escape
from typing import Any, NamedTuple

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.end_to_end.processes import Process, started
from tests.end_to_end.test_digits import BODIES, OCTETS, ROW
from tests.support.http import MemoryServer

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
EXAMPLES = 5
"""Requests of each kind to each route: right and wrong requests, for a model that exists and for a
model that does not.
"""

KNOWN = {"id": "job-1", "name": "digits", "version": "1", "label": "1", "region": "r"}
WRITTEN = (OCTETS, "application/json", "application/msgpack", "application/x-npy", "text/csv")
"""Formats of answers."""

EVERYTHING: dict[str, Any] = {
    "model_control": "explicit",
    "sagemaker": True,
    "torchserve": True,
    "vertex_health_route": "/vertex/health",
    "vertex_predict_route": "/vertex/predict",
}
OF_HTTP = {"content-type", "content-length", "connection", "date", "server", "transfer-encoding"}
"""Fields that HTTP itself describes."""


class Live(NamedTuple):
    """A server and its OpenAPI document."""

    process: Process
    options: dict[str, Any]
    document: dict[str, Any]

    def call(self, operation: Any, case: Any = None, **request: Any) -> tuple[Any, list[str]]:
        """Return the answer to a request, and in words how the answer differs from the document.

        By default the request is for the model that exists.
        """
        case = case or operation.Case(path_parameters=known(operation))
        answer = case.call(base_url=self.process.address, **request)
        return answer, [
            f"{operation.label}: {text}"
            for text in breaches(self.document, operation, case, answer)
        ]


@pytest.fixture(scope="module", params=[{}, EVERYTHING], ids=["as-it-comes", "everything"])
def live(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    options = [
        word
        for name, value in request.param.items()
        for word in ("--set", f"{name}={str(value).lower()}")
    ]
    with started(tmp_path_factory.mktemp("openapi"), *options) as process:
        yield Live(process, request.param, json.loads(process.get("/openapi.json")))
        assert "Traceback" not in process.errors


def operations(document: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(document)
    schema.validate()
    return [found.ok() for found in schema.get_all_operations()]


def known(operation: Any) -> dict[str, str]:
    return {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path}


def when(operation: Any) -> tuple[bool, bool]:
    """Return the key that sorts operations: the model is unloaded last, and then loaded again."""
    return operation.path.endswith("load"), operation.path.endswith("/load")


def response_of(document: dict[str, Any], operation: Any, status: int) -> dict[str, Any]:
    """Return the document's description of an answer; empty if there is none."""
    found = (
        document["paths"][operation.path][operation.method]
        .get("responses", {})
        .get(str(status), {})
    )
    name = found.get("$ref", "").removeprefix("#/components/responses/")
    description: dict[str, Any] = document["components"]["responses"][name] if name else found
    return description


def breaches(document: dict[str, Any], operation: Any, case: Any, answer: Any) -> list[str]:
    """Return how an answer differs from its description, and what is not described at all."""
    # a 500 is described, and must never be seen
    wrong = [f"500: {answer.content!r}"] if answer.status_code == 500 else []
    try:
        case.validate_response(answer, checks=CHECKS)
    except (FailureGroup, Failure) as err:
        wrong += [f"{one.title}: {one.message}" for one in getattr(err, "exceptions", [err])]
    description = response_of(document, operation, answer.status_code)
    if answer.content and not description.get("content"):
        wrong.append(f"{answer.status_code}: nothing is said of the body")
    fields = {name.lower() for name in description.get("headers", {})}
    wrong += [
        f"{answer.status_code}: nothing is said of {name}"
        for name in {*answer.headers} - fields - OF_HTTP
    ]
    return wrong


def posts(path: str) -> list[dict[str, Any]]:
    """Return right requests to a route with POST, each as its fields and its body."""
    rows = ROW.tolist()
    if path.startswith("/v1"):
        return [{"json": {name: rows}} for name in ("instances", "inputs")]
    if path.endswith("/infer"):
        tensor = {"name": "image", "datatype": "FP32", "shape": ROW.shape, "data": rows}
        wanted = {"outputs": [{"name": "scores", "parameters": {"binary_data": True}}]}
        return [
            {"json": {"id": "7", "inputs": [tensor]}, "headers": {"Accept-Encoding": "gzip"}},
            {"json": {"inputs": [tensor], **wanted}},
            {"data": ROW.tobytes(), "headers": {"Inference-Header-Content-Length": "0"}},
        ]
    if path.startswith("/v2"):
        return [{}, {"json": {}}]
    fields = {"X-Timing": "1", "X-Request-Id": "7", "X-Priority": "1", "X-Timeout-Ms": "20000.5"}
    bodies = [
        {"data": body(), "headers": {"Content-Type": kind, **fields}}
        for kind, body in BODIES.items()
    ]
    accepted = [
        {"data": ROW.tobytes(), "headers": {"Content-Type": OCTETS, "Accept": kind}}
        for kind in WRITTEN
    ]
    return bodies + accepted


def test_every_route_is_described_and_shown_to_people(live: Live) -> None:
    routes = MemoryServer(**live.options).router.routes
    found = [(operation.method.upper(), operation.path) for operation in operations(live.document)]
    assert sorted(found) == sorted((route.method, route.pattern) for route in routes)
    page = live.process.get("/docs")
    for route in routes:
        assert (
            f"<code>{route.method} {escape(route.pattern)}</code></td><td>{escape(route.summary)}"
            in page
        )


def test_answers_to_right_requests_are_as_described(live: Live) -> None:
    for operation in sorted(operations(live.document), key=when):
        expected = 200 if response_of(live.document, operation, 200) else 501
        if operation.path.endswith("load") and not live.options:
            expected = 403
        if operation.path == "/v1/embeddings" or "/rollout" in operation.path:
            expected = 400  # the model that exists makes no embeddings, and has no canary
        if "/rollout/" in operation.path and not live.options:
            expected = 403
        if operation.path.startswith(("/jobs", "/v1/files", "/v1/batches")):
            expected = 403  # the server takes no jobs
        sends = operation.method == "post" or operation.path.startswith("/predictions/")
        for request in posts(operation.path) if sends else [{}]:
            answer, wrong = live.call(operation, **request)
            assert not wrong, "\n".join(wrong)
            assert answer.status_code == expected, (operation.label, answer.content)
            if length := answer.headers.get("inference-header-content-length"):
                description = response_of(live.document, operation, 200)["content"][
                    "application/json"
                ]["schema"]
                jsonschema_rs.validate(description, json.loads(answer.content[: int(length[0])]))


def test_errors_are_as_described_in_either_form(live: Live) -> None:
    for operation in operations(live.document):
        if operation.path.endswith(("predict", "invocations")):
            for kind in ("application/msgpack", "application/json"):
                fields = {"Accept": kind, "X-Request-Id": "7", "Content-Type": "text/csv"}
                for more in ({}, {"Content-Encoding": "br"}, {"Content-Length": "99999999999"}):
                    answer, wrong = live.call(
                        operation, data=b"no numbers", headers={**fields, **more}
                    )
                    assert not wrong, "\n".join(wrong)
                    assert answer.status_code in (400, 413, 415), (operation.label, answer.content)


def said_of_predict(document: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = document["paths"]["/models/{name}/predict"]["post"]["responses"]
    return responses


UNTRUE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "status": lambda description: description.pop("200"),
    "media type": lambda description: description["200"]["content"].pop("application/json"),
    "member": lambda description: description["200"]["content"]["application/json"]["schema"][
        "anyOf"
    ][0]["required"].append("more"),
    "type": lambda description: description["200"]["content"]["application/json"]["schema"].update(
        type="array"
    ),
    "no content": lambda description: description["200"].pop("content"),
    "field": lambda description: description["200"]["headers"]["Server-Timing"].update(
        schema={"enum": ["never"]}
    ),
    "no field": lambda description: description["200"]["headers"].pop("Server-Timing"),
}


@pytest.mark.parametrize("mistake", [None, *UNTRUE])
def test_a_description_that_is_untrue_is_found_out(live: Live, mistake: str | None) -> None:
    document = deepcopy(live.document)
    if mistake is not None:
        UNTRUE[mistake](said_of_predict(document))
    operation = next(one for one in operations(document) if one.path == "/models/{name}/predict")
    fields = {"Content-Type": "image/png", "X-Timing": "1"}
    answer, wrong = live._replace(document=document).call(
        operation, data=BODIES["image/png"](), headers=fields
    )
    assert answer.status_code == 200
    assert bool(wrong) is (mistake is not None)


def test_answers_to_requests_that_are_made_up_are_as_described(live: Live) -> None:
    wrong: set[str] = set()
    with requests.Session() as session:
        for operation in sorted(operations(live.document), key=when):
            for mode in (
                GenerationMode
                if "requestBody" in operation.definition.raw
                else [GenerationMode.POSITIVE]
            ):
                for fixed in [{}, known(operation)] if known(operation) else [{}]:
                    made_up(live, operation, mode, fixed, session, wrong)
    assert not wrong, "\n".join(sorted(wrong))
    if live.options:
        load = next(one for one in operations(live.document) if one.path.endswith("/load"))
        assert live.call(load)[0].status_code == 200


def made_up(
    live: Live, operation: Any, mode: Any, fixed: dict[str, str], session: Any, wrong: set[str]
) -> None:
    """Send made-up requests, the same in every run; gather in `wrong` what is not as described."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=fixed or None))
    def send(case: Any) -> None:
        wrong.update(live.call(operation, case, session=session)[1])

    send()
