"""TensorFlow Serving's REST interface: `POST /v1/models/{name}:predict` and `GET /v1/models/{name}`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.json_lists import to_json
from batcher.codecs.tf_serving import decode, encode
from batcher.endpoints.call import Call, Reply
from batcher.endpoints.failures import oip_failure_reply
from batcher.endpoints.routing import Route
from batcher.request import InferenceResponse
from batcher.served import ModelState, ServedModel
from batcher.server import ModelServer

_STATES = {ModelState.LOADING: "LOADING", ModelState.READY: "AVAILABLE", ModelState.UNLOADING: "UNLOADING"}
"""States of the interface; whatever else is END, where a model that failed to load has the reason."""

_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_ERROR = {"application/json": {"schema": _ERROR_SCHEMA}}
_REQUEST = {"type": "object", "properties": {"instances": {"type": "array"}, "inputs": {}}}
_FAILURES = {
    str(status): {"description": text, "content": _ERROR}
    for status, text in (
        (400, "The body cannot be decoded, or has a wrong name, dtype or shape."),
        (404, "No such model or version."),
        (408, "Headers or body came too slowly."),
        (413, "Body over the limit, or more rows than the queue can ever hold."),
        (415, "Content coding unknown."),
        (500, "The model failed."),
        (503, "Queue full, stopping, deadline passed, or model not ready."),
    )
}


def operation(**answer: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI operation of a route that answers an object of members `answer`."""
    right = {"description": "As said.", "content": {"application/json": {"schema": {"type": "object", "properties": answer}}}}
    return {"responses": {"200": right, **_FAILURES}}


PREDICT = operation(predictions={"type": "array"}, outputs={}) | {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}}
}
"""The OpenAPI operation of predicting."""

_STATUS = operation(model_version_status={"type": "array", "items": {"type": "object"}})


def tf_serving_routes(server: ModelServer) -> tuple[Route, ...]:
    """Return the routes of the interface over `server`."""
    predict, status = Predict(server), Status(server)
    rows = [
        ("POST", "/v1/models/{name}:predict", predict, "TensorFlow Serving's way to infer.", True, PREDICT),
        ("POST", "/v1/models/{name}/versions/{version}:predict", predict, "The same with one version.", True, PREDICT),
        ("GET", "/v1/models/{name}", status, "The states of a model's versions.", False, _STATUS),
        ("GET", "/v1/models/{name}/versions/{version}", status, "The state of one version.", False, _STATUS),
    ]
    return tuple(Route(*row, oip_failure_reply) for row in rows)  # type: ignore[arg-type]  # of rows as they stand above


class Answer:
    """Makes the reply of one call."""

    __slots__ = ("_by_row", "_served")

    def __init__(self, served: ServedModel, by_row: bool) -> None:
        """Answer for `served`, laid out as the request was."""
        self._served = served
        self._by_row = by_row

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the answer that carries `response`."""
        spec = self._served.spec
        return Reply(200, b"application/json", encode(response, spec, self._by_row), (), spec.name)


class Predict:
    """The inference route."""

    def __init__(self, server: ModelServer) -> None:
        """Answer from `server`."""
        self._server = server

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        arguments = call.head.arguments
        served = self._server.ready_model(arguments.get("name") or self._server.only_model(), arguments.get("version", ""))
        inputs, by_row = decode(call.body, served.spec)
        call.plan = Answer(served, by_row)
        return self._server.infer_on(served, inputs)


class Status:
    """Where the versions of a model are in their lives."""

    def __init__(self, server: ModelServer) -> None:
        """Tell of the models of `server`."""
        self._server = server

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer one call. Raises UnknownModel. Reactor thread."""
        name, version = call.head.arguments["name"], call.head.arguments.get("version", "")
        found = self._server.find(name, version)
        models = [found] if version else [served for served in self._server if served.spec.name == name]
        document = {"model_version_status": [_status(served) for served in models]}
        return succeed(Reply(200, b"application/json", to_json(document)))


def _status(served: ServedModel) -> dict[str, Any]:
    failed = served.state is ModelState.FAILED
    status = {"error_code": "UNKNOWN" if failed else "OK", "error_message": served.detail if failed else ""}
    return {"version": served.spec.version, "state": _STATES.get(served.state, "END"), "status": status}
