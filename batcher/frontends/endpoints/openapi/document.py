"""`/openapi.json`: the routes that there are, with the tensors of the models that are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batcher import __version__
from batcher.codecs.format_table import MULTIPART, formats_for
from batcher.core.spec import TensorSpec
from batcher.frontends.endpoints.failures import failure_reply, failure_reply_on, oip_failure_reply
from batcher.frontends.endpoints.openapi.operations import (
    ALWAYS,
    BINARY,
    HEADERS,
    INFERENCE,
    NATIVE,
    TEXT,
    header,
    list_of,
    object_of,
)
from batcher.frontends.endpoints.routing import Route
from batcher.serving.server import ModelServer

REQUEST_ID = header("X-Request-Id", TEXT, "Echoed in the answer.")
CONTENT_ENCODING = header(
    "Content-Encoding", {"enum": ["gzip", "deflate"]}, "How the body is compressed."
)

_CAPTURED = {
    "name": "The name of a model.",
    "version": "A version of the model: a whole number.",
    "region": "The name of a region of shared memory.",
}
_NATIVE = {
    "application/json": {"schema": object_of(("error", "code"), error=TEXT, code=TEXT)},
    "application/msgpack": {"schema": BINARY},
}
_PROTOCOL = {"application/json": {"schema": object_of(("error",), error=TEXT)}}
_FORMS = {"Error": _NATIVE, "ProtocolError": _PROTOCOL, "CloudError": {**_NATIVE, **_PROTOCOL}}
"""Bodies of errors: in msgpack where that was asked for; with a code but in protocols of others."""


def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of `routes`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "batcher",
            "version": __version__,
            "description": "A batching inference server.",
        },
        "paths": paths,
        "components": {
            "responses": {
                f"{form}{status}": _failure(form, status, ALWAYS[status])
                for form in _FORMS
                for status in ALWAYS
            },
            "headers": {
                "X-Request-Id": {"schema": TEXT, "description": "That of the request."},
                "Retry-After": {
                    "schema": {"type": "integer", "minimum": 1},
                    "description": "Seconds.",
                },
            },
        },
    }


def inference(server: ModelServer) -> dict[str, Any]:
    """Return the description of a route that infers in any format that the models of `server` have."""
    timing = {
        "schema": TEXT,
        "description": "Milliseconds in the queue and on the model, and the batch size.",
    }
    failures = {str(status): text for status, text in {**INFERENCE, **NATIVE}.items()}
    right = {
        "description": "The model's outputs.",
        "content": _content(server, answers=True),
        "headers": {"Server-Timing": timing},
    }
    return {
        "parameters": [header(*row) for row in HEADERS],
        "requestBody": {"required": True, "content": _content(server, answers=False)},
        "responses": {"200": right, **failures},
    }


def _operation(route: Route) -> dict[str, Any]:
    described = route.described() if callable(route.described) else route.described
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": TEXT,
            "description": _CAPTURED[name],
        }
        for name in re.findall(r"{(\w+)}", route.pattern)
    ]
    parameters += [
        REQUEST_ID,
        *([CONTENT_ENCODING] if "requestBody" in described else []),
        *described.get("parameters", ()),
    ]
    responses = dict(sorted(dict(_responses(_form(route), described["responses"])).items()))
    return {"summary": route.summary, **described, "parameters": parameters, "responses": responses}


def _form(route: Route) -> str:
    """Return the form of the errors on `route`.

    Those of its own, and those of requests that do not come so far.
    """
    forms = {route.failure, failure_reply_on(route.pattern)}
    return (
        "Error"
        if forms == {failure_reply}
        else "ProtocolError"
        if forms == {oip_failure_reply}
        else "CloudError"
    )


def _responses(form: str, described: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for status in ALWAYS:
        yield str(status), {"$ref": f"#/components/responses/{form}{status}"}
    for name, response in described.items():
        if isinstance(response, str):
            yield name, _failure(form, int(name), response)
        else:
            yield name, {**response, "headers": {**response.get("headers", {}), **_headers(200)}}


def _failure(form: str, status: int, text: str) -> dict[str, Any]:
    return {"description": text, "headers": _headers(status), "content": _FORMS[form]}


def _headers(status: int) -> dict[str, Any]:
    names = ["X-Request-Id", "Retry-After"] if status in (429, 503) else ["X-Request-Id"]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _content(server: ModelServer, answers: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for served in server:
        tensors = served.spec.outputs if answers else served.spec.inputs
        for entry in formats_for(tensors, answers):
            content.setdefault(
                entry.media_type, {"schema": TEXT if entry.media_type == "text/csv" else BINARY}
            )
    if MULTIPART.media_type in content:
        content[MULTIPART.media_type] = {
            "schema": {"type": "object", "additionalProperties": list_of(BINARY)}
        }
    if "application/json" in content:
        content["application/json"] = {"schema": _json_schema(server, answers)}
    return content


def _json_schema(server: ModelServer, answers: bool) -> dict[str, Any]:
    alternatives = [
        {
            "title": served.title,
            **(_answer(served.spec.outputs) if answers else _request(served.spec.inputs)),
        }
        for served in server
    ]
    if not answers:
        alternatives.append(
            {"title": "by row", **object_of(("instances",), instances={"type": "array"})}
        )
    return {"anyOf": alternatives} if alternatives else {"type": "object"}


def _request(tensors: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return object_of(("inputs",), inputs=_named(tensors, answers=False))


def _answer(tensors: tuple[TensorSpec, ...]) -> dict[str, Any]:
    best = object_of(("label", "probability"), label=TEXT, probability={"type": ["number", "null"]})
    more = (
        {"predictions": list_of(best)}
        if any(tensor.labels is not None for tensor in tensors)
        else {}
    )
    return object_of(("outputs", *more), outputs=_named(tensors, answers=True), **more)


def _named(tensors: tuple[TensorSpec, ...], answers: bool) -> dict[str, Any]:
    return object_of(
        tuple(tensor.name for tensor in tensors),
        **{tensor.name: _tensor(tensor, answers) for tensor in tensors},
    )


def _tensor(tensor: TensorSpec, answers: bool) -> dict[str, Any]:
    name = tensor.datatype.name
    kind = {"BOOL": "boolean", "BYTES": "string"}.get(
        name, "number" if name in ("FP16", "FP32", "FP64", "BF16") else "integer"
    )
    schema: dict[str, Any] = {"type": [kind, "null"] if kind == "number" and answers else kind}
    for size in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return {"type": "array", "items": schema, "description": tensor.describe()}
