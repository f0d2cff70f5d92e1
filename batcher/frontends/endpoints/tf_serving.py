"""TensorFlow Serving's REST interface: its routes to infer and to ask for the state of a model.

`POST /v1/models/{name}:predict` and `GET /v1/models/{name}`, each also with a version. Clients send
rows (`instances`) or columns (`inputs`), and get the same layout back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred

from batcher.codecs.content import Buffer
from batcher.codecs.content_coding import Body, plain_body
from batcher.codecs.embeddings import listed_model
from batcher.codecs.formats.base64_pictures import may_have_pictures
from batcher.codecs.heavy import (
    decode_heavy_tf_serving,
    encode_heavy_tf_serving,
    is_heavy,
    is_heavy_answer,
)
from batcher.codecs.tf_serving import decode, encode
from batcher.core.digests import digest_of
from batcher.core.element_sizes import sized
from batcher.core.request import NO_PARAMETERS, InferenceResponse, Parameters
from batcher.core.spec import Array
from batcher.frontends.endpoints.call import Call, Fields, Reply, answer_fields
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.engine import Engine, versions_of
from batcher.frontends.endpoints.failures import oip_failure_reply
from batcher.frontends.endpoints.heavy_answers import write_heavy
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.openapi.operations import (
    API_KEY_HEADER,
    INFERENCE_FAILURES,
    TEXT,
    VERSION_HEADER,
    header,
    list_of,
    object_of,
    operation_of,
)
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.stage_wishes import wishes_of
from batcher.serving.model_version import ModelState, ModelVersion
from batcher.serving.servable import Servable

_STATES = {
    ModelState.LOADING: "LOADING",
    ModelState.READY: "AVAILABLE",
    ModelState.UNLOADING: "UNLOADING",
}
"""States of the interface; every other state is END, and a failure to load adds its reason."""

PREDICT_REQUEST = object_of((), signature_name=TEXT, instances={"type": "array"}, inputs={}) | {
    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}]
}
PREDICT_ANSWER = object_of((), predictions={"type": "array"}, outputs={}) | {
    "anyOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]
}
PREDICT_FAILURES = {
    **INFERENCE_FAILURES,
    503: "Queue full, stopping, deadline passed, or model not ready; with Retry-After where it did "
    "not run.",
}

_PREDICT = operation_of(PREDICT_ANSWER, PREDICT_FAILURES) | {
    "requestBody": {"required": True, "content": {"application/json": {"schema": PREDICT_REQUEST}}},
    "parameters": [header(*API_KEY_HEADER)],
}
_PREDICT["responses"]["200"]["headers"] = VERSION_HEADER
_VERSION = object_of(
    ("version", "state", "status"),
    version=TEXT,
    state={"enum": [*_STATES.values(), "END"]},
    status=object_of(("error_code", "error_message"), error_code=TEXT, error_message=TEXT),
)
_STATUS = operation_of(
    object_of(("model_version_status",), model_version_status=list_of(_VERSION)),
    {404: "No such model or version."},
)


def tf_serving_routes(
    engine: Engine, disclosure: Disclosure, max_image_pixels: int
) -> tuple[Route, ...]:
    """Return the routes of the interface over `engine`.

    `disclosure` says how much clients read of why a version could not be loaded. A picture has at
    most `max_image_pixels`.
    """
    predict, status = TfPredict(engine, max_image_pixels), TfStatus(engine, disclosure)
    get = partial(Route, "GET", failure=oip_failure_reply)
    post = partial(Route, "POST", fast=True, failure=oip_failure_reply)
    model, version = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"
    label = "/v1/models/{name}/labels/{label}"
    return (
        post(f"{model}:predict", predict, "TensorFlow Serving's way to infer.", _PREDICT),
        post(f"{version}:predict", predict, "The same with one version.", _PREDICT),
        post(f"{label}:predict", predict, "The same with the version of a label.", _PREDICT),
        get(model, status, "The states of a model's versions.", _STATUS),
        get(version, status, "The state of one version.", _STATUS),
        get(label, status, "The state of the version of a label.", _STATUS),
    )


class TfReplyWriter:
    """Makes the reply of one call, laid out by row or by column."""

    __slots__ = ("_by_row", "_parameters", "_servable")

    def __init__(self, servable: Servable, by_row: bool, parameters: Parameters) -> None:
        """Write the answer of `servable` to a request with `parameters`.

        `by_row` says whether the request was laid out by row.
        """
        self._servable = servable
        self._by_row = by_row
        self._parameters = parameters

    def reply(self, response: InferenceResponse) -> Reply | Deferred[Reply]:
        """Return the reply that carries `response`, or a Deferred of a reply that is long."""
        servable, by_row = self._servable, self._by_row
        headers = answer_fields(response, servable.picks_version, self._parameters.once)
        if is_heavy_answer(response):
            arguments = (encode_heavy_tf_serving, servable.spec, by_row)
            written = write_heavy(servable, response, self._parameters, *arguments)
            return written.addCallback(self._reply, headers)
        return self._reply(encode(response, servable.spec, by_row), headers)

    def _reply(self, body: Buffer, headers: Fields) -> Reply:
        servable = self._servable
        return Reply(200, b"application/json", body, headers, servable.spec.name)


class TfPredict:
    """The endpoint that infers. Reactor thread."""

    def __init__(self, engine: Engine, max_image_pixels: int) -> None:
        """Answer by the models of `engine`; a picture has at most `max_image_pixels`."""
        self._engine = engine
        self._max_image_pixels = max_image_pixels

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        name, version = call.head.model()
        servable = self._engine.traffic.servable(name or self._engine.only_model(), version)
        parameters = stage_parameters(call, servable)
        body, spec, limits = call.body, servable.spec, servable.limits
        is_large = is_heavy(body)
        if is_large or may_have_pictures(plain_body(body), spec):
            parameters = servable.timed(parameters._replace(client=client_of(call.peer)))
            arguments = (body, spec, limits, self._max_image_pixels)
            # Pillow gives the interpreter lock up while it decodes; JSON of this size does not.
            decoded = (
                servable.run_heavy(len(body), parameters, decode_heavy_tf_serving, *arguments)
                if is_large
                else _decoded_on_pool(servable, parameters, *arguments)
            )
            return decoded.addCallback(_infer_decoded, call, servable, parameters)
        inputs, by_row = decode(plain_body(body), spec, limits)
        call.plan = TfReplyWriter(servable, by_row, parameters)
        return servable.infer(inputs, parameters)


def _decoded_on_pool(
    servable: Servable, parameters: Parameters, body: Body, *arguments: Any
) -> Deferred[tuple[Mapping[str, Array], bool]]:
    """Return inputs and layout of a body with pictures, which may be kept from an equal one."""
    make, kept = partial(decode_heavy_tf_serving, body, *arguments), servable.decoded
    if kept is None or parameters.fresh:
        return servable.run_on_pool(len(body), make, parameters)
    run = partial(servable.run_on_pool, parameters=parameters)
    made = kept.made(
        len(body),
        lambda: digest_of("TensorFlow Serving", plain_body(body)),
        lambda: _with_layout(*make()),
        run,
    )
    return made.addCallback(_without_layout)


def _with_layout(inputs: Mapping[str, Array], by_row: bool) -> Mapping[str, Array]:
    """Return `inputs` with the layout beside them, under a name that no input has."""
    return {**inputs, "": np.array([by_row])}


def _without_layout(arrays: Mapping[str, Array]) -> tuple[Mapping[str, Array], bool]:
    inputs = {name: array for name, array in arrays.items() if name}
    return sized(inputs), bool(arrays[""][0])


def stage_parameters(call: Call, servable: Servable) -> Parameters:
    """Return what stages of `servable` read of `call`."""
    wishes = wishes_of(call.head, servable)
    client = client_of(call.peer) if servable.reads_client else ""
    return wishes.parameters(client=client) if client or any(wishes) else NO_PARAMETERS


def _infer_decoded(
    decoded: tuple[Mapping[str, Array], bool],
    call: Call,
    servable: Servable,
    parameters: Parameters,
) -> Deferred[InferenceResponse]:
    inputs, by_row = decoded
    call.plan = TfReplyWriter(servable, by_row, parameters)
    return servable.infer_by_successor(inputs, parameters)


class TfStatus:
    """The endpoint that says in which states the versions of a model are. Reactor thread."""

    def __init__(self, engine: Engine, disclosure: Disclosure) -> None:
        """Describe the models of `engine`, as far as `disclosure` lets clients know."""
        self._engine = engine
        self._disclosure = disclosure

    def __call__(self, call: Call) -> Deferred[Reply]:
        """Answer one call. Raises UnknownModel. Reactor thread."""
        versions = versions_of(self._engine, *call.head.model())
        statuses = [self._status(version, call.head.request_id) for version in versions]
        document: dict[str, Any] = {"model_version_status": statuses}
        if not call.head.model()[1]:
            # The path is OpenAI's, too, for one model of its list; each client reads its own part.
            document = listed_model(versions[0].spec.name) | document
        return json_reply(document)

    def _status(self, version: ModelVersion, request_id: bytes | None) -> dict[str, Any]:
        code, text = "OK", ""
        if version.state is ModelState.FAILED:
            public = "the version could not be loaded"
            code, text = "UNKNOWN", self._disclosure.part(version.detail, public, request_id).text
        state = _STATES.get(version.state, "END")
        status = {"error_code": code, "error_message": text}
        return {"version": version.spec.version, "state": state, "status": status}
