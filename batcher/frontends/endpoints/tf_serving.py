"""TensorFlow Serving's REST interface.

`POST /v1/models/{name}:predict` and `GET /v1/models/{name}`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from batcher.codecs.formats.json_lists import to_json
from batcher.codecs.tf_serving import decode, encode
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.openapi.operations import (
    INFERENCE,
    KEY,
    TEXT,
    answered,
    header,
    list_of,
    object_of,
)
from batcher.frontends.endpoints.routing import Route
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.server import ModelServer

_STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "AVAILABLE",
    ModelState.UNLOADING: "UNLOADING",
}
"""States of the interface.

Whatever else is END, where a model that failed to load has the reason.
"""

REQUEST = object_of((), signature_name=TEXT, instances={"type": "array"}, inputs={}) | {
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}]
}
ANSWER = object_of((), predictions={"type": "array"}, outputs={}) | {
    "anyOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]
}
FAILURES = {
    **INFERENCE,
    503: "Queue full, stopping, deadline passed, or model not ready; with Retry-After where it did not run.",
}

_PREDICT = answered(ANSWER, FAILURES) | {
    "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}},
    "parameters": [header(*KEY)],
}
_VERSION = object_of(
    ("version", "state", "status"),
    version=TEXT,
    state={"enum": [*_STATES.values(), "END"]},
    status=object_of(("error_code", "error_message"), error_code=TEXT, error_message=TEXT),
)
_STATUS = answered(
    object_of(("model_version_status",), model_version_status=list_of(_VERSION)),
    {404: "No such model or version."},
)


def tf_serving_routes(server: ModelServer) -> tuple[Route, ...]:
    """Return the routes of the interface over `server`."""
    predict, status = Predict(server), Status(server)
    rows = [
        (
            "POST",
            "/v1/models/{name}:predict",
            predict,
            "TensorFlow Serving's way to infer.",
            _PREDICT,
            True,
        ),
        (
            "POST",
            "/v1/models/{name}/versions/{version}:predict",
            predict,
            "The same with one version.",
            _PREDICT,
            True,
        ),
        ("GET", "/v1/models/{name}", status, "The states of a model's versions.", _STATUS, False),
        (
            "GET",
            "/v1/models/{name}/versions/{version}",
            status,
            "The state of one version.",
            _STATUS,
            False,
        ),
    ]
    # of rows as they stand above
    return tuple(Route(*row, oip_failure_reply) for row in rows)  # type: ignore[arg-type]


class Answer:
    """Makes the reply of one call."""

    __slots__ = ("_by_row", "_served")

    def __init__(self, served: ModelVersion, by_row: bool) -> None:
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
        served = self._server.ready_model(
            arguments.get("name") or self._server.only_model(), arguments.get("version", "")
        )
        inputs, by_row = decode(call.body, served.spec)
        call.plan = Answer(served, by_row)
        parameters = (
            NO_PARAMETERS if self._server.quotas is None else Parameters(key=call.head.key())
        )
        return self._server.infer_on(served, inputs, parameters)


class Status:
    """Where the versions of a model are in their lives."""

    def __init__(self, server: ModelServer) -> None:
        """Tell of the models of `server`."""
        self._server = server

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer one call. Raises UnknownModel. Reactor thread."""
        name, version = call.head.arguments["name"], call.head.arguments.get("version", "")
        found = self._server.find(name, version)
        models = (
            [found] if version else [served for served in self._server if served.spec.name == name]
        )
        document = {"model_version_status": [_status(served) for served in models]}
        return succeed(Reply(200, b"application/json", to_json(document)))


def _status(served: ModelVersion) -> dict[str, Any]:
    failed = served.state is ModelState.FAILED
    status = {
        "error_code": "UNKNOWN" if failed else "OK",
        "error_message": served.detail if failed else "",
    }
    return {
        "version": served.spec.version,
        "state": _STATES.get(served.state, "END"),
        "status": status,
    }
