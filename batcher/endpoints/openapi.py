"""`/openapi.json`: the routes that there are, with the tensors of the models that are loaded."""

from __future__ import annotations

import re
from typing import Any

from batcher import __version__
from batcher.codecs.formats import formats_for
from batcher.endpoints.routing import Route
from batcher.server import ModelServer
from batcher.spec import DATATYPES, TensorSpec

ERRORS = {
    400: "The body cannot be decoded, or has a wrong name, dtype or shape.",
    404: "No such model or version.",
    406: "No acceptable answer format.",
    408: "Headers or body came too slowly.",
    413: "Body over the limit, or more rows than the queue can ever hold.",
    415: "Media type or content coding unknown.",
    500: "The model failed.",
    503: "Queue full, stopping, or model not ready; see Retry-After.",
    504: "The deadline passed.",
}

HEADERS = (
    ("X-Request-Id", "string", "Echoed in the answer."),
    ("X-Timeout-Ms", "number", "Milliseconds after which the answer is worthless."),
    ("X-Priority", "integer", "Priority level, 1 the highest."),
    ("X-Timing", "string", "1 asks for a Server-Timing header."),
)

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}
_BINARY = {"type": "string", "format": "binary"}


def document(routes: tuple[Route, ...], server: ModelServer) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of `routes`."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.pattern, {})[route.method.lower()] = _operation(route, server)
    return {
        "openapi": "3.1.0",
        "info": {"title": "batcher", "version": __version__, "description": "A batching inference server."},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR_SCHEMA}},
    }


def _operation(route: Route, server: ModelServer) -> dict[str, Any]:
    captured = re.findall(r"{(\w+)}", route.pattern)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in captured],
    }
    if route.described is not None:
        own = route.described.get("parameters", [])
        return {**operation, **route.described, "parameters": [*operation["parameters"], *own]}
    if route.method != "POST":
        operation["responses"] = {"200": {"description": "As said."}}
        if route.pattern == "/readyz":
            operation["responses"]["503"] = _error(503)
        return operation
    operation["parameters"] += [
        {"name": name, "in": "header", "schema": {"type": kind}, "description": text} for name, kind, text in HEADERS
    ]
    operation["requestBody"] = {"required": True, "content": _content(server, answers=False)}
    answer = {"description": "The model's outputs.", "content": _content(server, answers=True)}
    operation["responses"] = {"200": answer, **{str(status): _error(status) for status in ERRORS}}
    return operation


def _content(server: ModelServer, answers: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for served in server:
        tensors = served.spec.outputs if answers else served.spec.inputs
        for entry in formats_for(tensors, answers):
            content.setdefault(entry.media_type, {"schema": _BINARY})
    if "application/json" in content:
        content["application/json"] = {"schema": _json_schema(server, answers)}
    return content


def _json_schema(server: ModelServer, answers: bool) -> dict[str, Any]:
    member = "outputs" if answers else "inputs"
    alternatives = [
        {
            "title": f"{served.spec.name}/{served.spec.version}",
            "type": "object",
            "properties": {
                member: {
                    "type": "object",
                    "properties": {tensor.name: _tensor(tensor) for tensor in tensors},
                    "required": [tensor.name for tensor in tensors],
                }
            },
        }
        for served in server
        for tensors in [served.spec.outputs if answers else served.spec.inputs]
    ]
    if not answers:
        alternatives.append({"title": "by row", "type": "object", "properties": {"instances": {"type": "array"}}})
    return {"anyOf": alternatives} if alternatives else {"type": "object"}


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    name = tensor.datatype.name
    kind = {"BOOL": "boolean", "BYTES": "string"}.get(name, "number" if name in ("FP16", "FP32", "FP64", "BF16") else "integer")
    assert name in DATATYPES
    schema: dict[str, Any] = {"type": [kind, "null"] if kind == "number" else kind}
    for size in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return {"type": "array", "items": schema, "description": tensor.describe()}


def _error(status: int) -> dict[str, Any]:
    return {
        "description": ERRORS[status],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
