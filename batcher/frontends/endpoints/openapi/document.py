"""`/openapi.json`: every route of the table, with the tensors of the models that are loaded.

Each route brings its own operation (`operations.py`). This module adds what follows from the route:
the parameters in its path, the headers that every route knows, and the bodies of errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from batcher import __version__
from batcher.frontends.endpoints.failures import (
    FailureReply,
    failure_reply,
    failure_reply_on,
    oip_failure_reply,
    openai_failure_reply,
    torchserve_failure_reply,
)
from batcher.frontends.endpoints.openapi.operations import (
    BINARY,
    COMMON_FAILURES,
    TEXT,
    header,
    object_of,
)
from batcher.frontends.endpoints.routing import Route

REQUEST_ID = header("X-Request-Id", TEXT, "Echoed in the answer.")
CONTENT_ENCODING = header(
    "Content-Encoding", {"enum": ["gzip", "deflate"]}, "How the body is compressed."
)

_PATH_PARAMETERS = {
    "name": "The name of a model.",
    "version": "A version of the model: a whole number, or a label.",
    "label": "A label of a version, such as `stable`.",
    "region": "The name of a region of shared memory.",
    "id": "The id of a batch job.",
}
_NATIVE_BODY = {
    "application/json": {"schema": object_of(("error", "code"), error=TEXT, code=TEXT)},
    "application/msgpack": {"schema": BINARY},
}
_PROTOCOL_BODY = {"application/json": {"schema": object_of(("error",), error=TEXT)}}
_OPENAI_ERROR = object_of(
    ("message", "type", "param", "code"),
    message=TEXT,
    type=TEXT,
    param={"type": ["string", "null"]},
    code=TEXT,
)
_TORCHSERVE_ERROR = object_of(
    ("code", "type", "message"), code={"type": "integer"}, type=TEXT, message=TEXT
)
_FORMS = {
    "Error": _NATIVE_BODY,
    "ProtocolError": _PROTOCOL_BODY,
    "OpenAIError": {"application/json": {"schema": object_of(("error",), error=_OPENAI_ERROR)}},
    "CloudError": {**_NATIVE_BODY, **_PROTOCOL_BODY},
    "TorchServeError": {"application/json": {"schema": _TORCHSERVE_ERROR}},
    "TorchServeOrNativeError": {
        **_NATIVE_BODY,
        "application/json": {
            "schema": {"anyOf": [_TORCHSERVE_ERROR, _NATIVE_BODY["application/json"]["schema"]]}
        },
    },
}
"""Bodies of errors, by form.

Native routes answer errors with a code, and in MessagePack to clients that read it. The protocols
of others have a body of their own. A route of a cloud gives errors in either form.
"""
_FORM_OF: dict[FailureReply, str] = {
    failure_reply: "Error",
    oip_failure_reply: "ProtocolError",
    openai_failure_reply: "OpenAIError",
    torchserve_failure_reply: "TorchServeError",
}
"""The form of the errors that each function writes."""
_SHARED_HEADERS = {
    "Cache-Control": {"schema": {"const": "no-store"}, "description": "No cache keeps answers."},
    "X-Content-Type-Options": {"schema": {"const": "nosniff"}, "description": "For browsers."},
    "X-Request-Id": {
        "schema": TEXT,
        "description": "That of the request, or a new one, by which the server's log says more.",
    },
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
    "X-Should-Retry": {
        "schema": {"enum": ["true", "false"]},
        "description": "Whether a client of OpenAI's sends the same request again.",
    },
}


def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of `routes`. Reactor thread."""
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
        # Relative to this document, which a proxy may serve under a path of its own.
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"responses": _shared_responses(), "headers": _SHARED_HEADERS},
    }


def _shared_responses() -> dict[str, Any]:
    """Return the responses that every route can give, once for each form of errors."""
    return {
        f"{form}{status}": _failure(form, status, COMMON_FAILURES[status])
        for form in _FORMS
        for status in COMMON_FAILURES
    }


def _operation(route: Route) -> dict[str, Any]:
    """Return the whole operation of `route`: its own, and what follows from the route."""
    operation = route.operation() if callable(route.operation) else route.operation
    parameters = [_path_parameter(name) for name in re.findall(r"{(\w+)}", route.pattern)]
    parameters.append(REQUEST_ID)
    if "requestBody" in operation:
        parameters.append(CONTENT_ENCODING)
    parameters += operation.get("parameters", ())
    responses = dict(sorted(dict(_responses(_form(route), operation["responses"])).items()))
    return {"summary": route.summary, **operation, "parameters": parameters, "responses": responses}


def _path_parameter(name: str) -> dict[str, Any]:
    text = _PATH_PARAMETERS[name]
    return {"name": name, "in": "path", "required": True, "schema": TEXT, "description": text}


def _form(route: Route) -> str:
    """Return the form of the errors on `route`.

    The route decides the form of an error that its endpoint raises. The path alone decides the form
    of an earlier error, such as a body that is too long. The two differ for a cloud's routes, and
    for those of TorchServe's whose paths others have too.
    """
    own, early = route.failure, failure_reply_on(route.pattern)
    if own == early:
        return _FORM_OF[own]
    return "TorchServeOrNativeError" if own == torchserve_failure_reply else "CloudError"


def _responses(form: str, responses: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for status in COMMON_FAILURES:
        yield str(status), {"$ref": f"#/components/responses/{form}{status}"}
    for name, response in responses.items():
        if isinstance(response, str):
            yield name, _failure(form, int(name), response)
        else:
            yield name, {**response, "headers": {**response.get("headers", {}), **_headers(200)}}


def _failure(form: str, status: int, text: str) -> dict[str, Any]:
    headers = _headers(status)
    if form == "OpenAIError":
        headers["X-Should-Retry"] = {"$ref": "#/components/headers/X-Should-Retry"}
    return {"description": text, "headers": headers, "content": _FORMS[form]}


def _headers(status: int) -> dict[str, Any]:
    names = ["Cache-Control", "X-Content-Type-Options", "X-Request-Id"]
    names += ["Retry-After"] if status in (429, 503) else []
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
