"""Operations of OpenAPI: what each route says of itself in `/openapi.json`.

A route's operation leaves out what follows from the route: the parameters in its path, and what
holds for every route. `document.py` adds both. A response in an operation may be a text alone, the
meaning of an error: the body of the error follows from the route.

This module has the pieces of which operations are made, and the operations of the native routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Operation = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""A route's operation, or a function that makes the operation from the models that there are."""

TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
BINARY = {"type": "string", "format": "binary"}

COMMON_FAILURES = {
    400: "The request is not well-formed.",
    408: "Headers or body came too slowly.",
    413: "Body over the limit.",
    414: "The target is too long.",
    415: "Content coding unknown.",
    431: "The header fields are too long.",
    500: "The server failed on this request.",
    501: "A transfer coding other than chunked.",
    503: "Too many connections, or the server is being stopped.",
}
"""Statuses of errors that any route can answer, with their meanings."""

INFERENCE_FAILURES = {
    400: "The body cannot be decoded, or has a wrong name, dtype, shape or parameter.",
    404: "No such model or version, or no file at the address of an input.",
    413: "Body over the limit, or more rows than the queue can ever hold.",
    422: "The Idempotency-Key is that of an earlier, other request.",
    429: "More rows than the quota of the request's key has; with Retry-After.",
    500: "The model failed.",
    502: "Where an input lies, by its address, does not answer.",
    503: "Queue full, stopping, or model not ready; with Retry-After where the request did not "
    "run.",
}
"""Statuses of errors that a route of inference can answer besides, in every protocol."""

NATIVE_FAILURES = {
    406: "No acceptable answer format.",
    415: "Media type or content coding unknown.",
    504: "The deadline passed.",
}
"""Statuses of errors that a native route of inference can answer besides these."""

API_KEY_HEADER = (
    "X-Api-Key",
    TEXT,
    "Whose quota the rows are charged to, as Authorization: Bearer says it too.",
)
"""Name, schema and meaning of the request header that every route of inference takes."""

INFERENCE_HEADERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "X-Timeout-Ms",
        {"type": "number", "exclusiveMinimum": 0},
        "Milliseconds after which the answer is worthless.",
    ),
    (
        "X-Priority",
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "enum": ["bulk"]}]},
        "Priority level, 1 the highest; `bulk` takes what others leave.",
    ),
    ("X-Timing", TEXT, "1 asks for a Server-Timing header."),
    ("X-Route-Key", TEXT, "Equal keys go to one version, where versions share the requests."),
    ("Idempotency-Key", TEXT, "Names the request: one that is sent again runs but once."),
    ("Cache-Control", TEXT, "`no-cache` has the model run, where answers are kept."),
    API_KEY_HEADER,
)
"""Name, schema and meaning of the request headers that native routes of inference take."""


VERSION_HEADER: dict[str, Any] = {
    "X-Model-Version": {
        "schema": TEXT,
        "description": "The version that has answered, where versions share the requests.",
    }
}


def object_of(required: tuple[str, ...], /, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these members."""
    return {"type": "object", "required": list(required), "properties": properties}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def header(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the parameter for a request header."""
    return {"name": name, "in": "header", "schema": schema, "description": text}


def operation_of(
    schema: dict[str, Any],
    failures: Mapping[int, str] | None = None,
    media_type: str = "application/json",
) -> dict[str, Any]:
    """Return the operation of a route that answers 200 with `schema`, or one of `failures`."""
    success = {"description": "As said.", "content": {media_type: {"schema": schema}}}
    texts = {str(status): text for status, text in (failures or {}).items()}
    return {"responses": {"200": success, **texts}}


LIVE = operation_of(object_of(("live",), live=FLAG))
_BY_TITLE = {"type": "object", "additionalProperties": TEXT}
_SECONDS = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}
_DEEP = {
    "name": "deep",
    "in": "query",
    "schema": {"enum": ["0", "1"]},
    "description": "1 runs one blank row through each model, for at most 5 s: `seconds` says how "
    "long each took, `skipped` which have no such row.",
}
READY = operation_of(
    object_of(("ready",), ready=FLAG, seconds=_SECONDS, skipped=_BY_TITLE, left_out=_BY_TITLE),
    {
        503: "Not every model is ready: `waiting_for` names those, or `failed` those that did not "
        "answer. `left_out` says what in the repository is no model, and why; it makes no server "
        "unready."
    },
) | {"parameters": [_DEEP]}
METRICS = operation_of(TEXT, media_type="text/plain")
PAGE = operation_of(TEXT, media_type="text/html")
MODEL_PAGE = operation_of(TEXT, {404: "No such model or version."}, "text/html")
DOCUMENT = operation_of(object_of(("openapi", "info", "paths")))
