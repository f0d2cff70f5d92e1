"""TorchServe's interface to clients, where `torchserve` is set.

    POST, PUT /predictions/NAME, /predictions/NAME/VERSION    infer: one request is one body
    GET       /ping                                           {"status": "Healthy"}, or 500
    GET       /models                                         the names of the models

An archive of TorchServe gets the body as it came, with its media type (`models/torchserve`). Any
other model is asked as `/models/NAME/predict` is. Errors have TorchServe's form.
An archive's version 1.0, as TorchServe calls it, is version 1 here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred, succeed

from batcher.codecs.content_coding import plain_body
from batcher.codecs.formats.json_text import to_json
from batcher.codecs.heavy import is_heavy
from batcher.config.settings import ServerSettings
from batcher.core.request import InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.frontends.endpoints.call import Call, Reply, answer_fields
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import torchserve_failure_reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.openapi.native import native_operation
from batcher.frontends.endpoints.openapi.operations import TEXT, list_of, object_of, operation_of
from batcher.frontends.endpoints.predict import Predict
from batcher.frontends.endpoints.readiness import unready_error
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.tf_serving import stage_parameters
from batcher.serving.servable import Servable

PLATFORM = "torchserve"
"""The format of an archive, as its specification has it."""

_STATUS = object_of(("status",), status=TEXT)
_MODELS = object_of(
    ("models",),
    models=list_of(object_of(("modelName", "modelUrl"), modelName=TEXT, modelUrl=TEXT)),
)


class _Answer:
    """Makes the reply of an archive's answer."""

    __slots__ = ("_parameters", "_servable")

    def __init__(self, servable: Servable, parameters: Parameters) -> None:
        """Write the answer of `servable` to a request with `parameters`."""
        self._servable = servable
        self._parameters = parameters

    def reply(self, response: InferenceResponse) -> Reply:
        """Return the reply with the body that the handler gave."""
        outputs, servable = response.outputs, self._servable
        headers = answer_fields(response, servable.picks_version, self._parameters.once)
        kind, body = outputs["content_type"][0], outputs["prediction"][0]
        return Reply(200, kind, body, headers, servable.spec.name)


class Predictions:
    """The endpoint that infers. Reactor thread."""

    def __init__(self, engine: Engine, predict: Predict) -> None:
        """Answer by the models of `engine`; `predict` asks models that are no archives."""
        self._engine = engine
        self._predict = predict

    def __call__(self, call: Call) -> Deferred[Any]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        name, version = call.head.model()
        servable = self._engine.traffic.servable(name, _number(version))
        if servable.spec.platform != PLATFORM:
            return self._predict(call)
        parameters = stage_parameters(call, servable)
        content_type = call.head.header(b"content-type")
        call.plan = _Answer(servable, parameters)
        body = call.body
        if is_heavy(body):
            # A large body may be packed, and unpacking it takes long.
            plain = servable.run_on_pool(len(body), partial(plain_body, body), parameters)
            return plain.addCallback(_infer, servable, content_type, parameters)
        return _infer(plain_body(body), servable, content_type, parameters)


def _number(version: str) -> str:
    """Return the number of a version that TorchServe calls 1.0; any other text as it is."""
    whole, _, rest = version.partition(".")
    return whole if whole.isdecimal() and rest and not rest.strip("0.") else version


def _infer(
    body: bytes | memoryview, servable: Servable, content_type: str, parameters: Parameters
) -> Deferred[InferenceResponse]:
    """Ask an archive for the answer to a body. Reactor thread."""
    inputs = {"body": _one(bytes(body)), "content_type": _one(content_type.encode("latin-1"))}
    return servable.infer(inputs, parameters)


def _one(value: bytes) -> Array:
    """Return an array of one row, which is `value`."""
    array = np.empty(1, object)
    array[0] = value
    return array


class _Health:
    """`/ping` and `/models`. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Report on `engine`."""
        self._engine = engine

    def ping(self, call: Call) -> Deferred[Reply]:
        """Answer whether every model is ready. Reactor thread."""
        if unready_error(self._engine) is None:
            return json_reply({"status": "Healthy"})
        return succeed(Reply(500, b"application/json", to_json({"status": "Unhealthy"})))

    def models(self, call: Call) -> Deferred[Reply]:
        """List the models. Reactor thread."""
        names = sorted({version.spec.name for version in self._engine})
        listed = [{"modelName": name, "modelUrl": f"{name}.mar"} for name in names]
        return json_reply({"models": listed})


def torchserve_routes(engine: Engine, settings: ServerSettings) -> tuple[Route, ...]:
    """Return the routes of the interface; none where `settings` do not switch it on."""
    if not settings.torchserve:
        return ()
    predictions, health = Predictions(engine, Predict(engine, settings)), _Health(engine)
    route = partial(Route, failure=torchserve_failure_reply)
    operation = partial(native_operation, engine)
    newest, version = "/predictions/{name}", "/predictions/{name}/{version}"
    first, second = "TorchServe's way to infer.", "The same with one version."
    unwell = operation_of(_STATUS, {500: "Some model is not ready."})
    ping = route("GET", "/ping", health.ping, "TorchServe's question for health.", unwell)
    return (
        route("POST", newest, predictions, first, operation, fast=True),
        route("POST", version, predictions, second, operation, fast=True),
        route("PUT", newest, predictions, first, operation),
        route("PUT", version, predictions, second, operation),
        # SageMaker asks on the same path, and takes 503 for an answer.
        *(() if settings.sagemaker else (ping,)),
        route("GET", "/models", health.models, "The names of the models.", operation_of(_MODELS)),
    )
