"""OpenAI's interface of embeddings: `POST /v1/embeddings`, and `GET /v1/models` beside it.

The name of the model stands in the body, so nothing can be worked out from a head, and there is no
plan for many calls. Whether a model makes embeddings follows from its tensors
(`codecs/embeddings.py`). All texts of a call are one request to the model, one row for each.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.codecs.content import Buffer
from batcher.codecs.content_coding import plain_body
from batcher.codecs.embeddings import (
    Embedder,
    Wish,
    decode,
    embedder_of,
    encode,
    inputs_for,
    listed_model,
)
from batcher.codecs.heavy import (
    decode_heavy_embeddings,
    encode_heavy_embeddings,
    is_heavy_answer,
    is_heavy_wish,
)
from batcher.codecs.openai_errors import about_input
from batcher.core.request import InferenceResponse, Parameters
from batcher.errors import InvalidInput, UnknownModel
from batcher.frontends.endpoints.call import Call, Fields, Reply, answer_fields
from batcher.frontends.endpoints.client_address import client_of
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.failures import openai_failure_reply
from batcher.frontends.endpoints.heavy_answers import write_heavy
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.openapi.operations import (
    API_KEY_HEADER,
    COUNT,
    INFERENCE_FAILURES,
    TEXT,
    header,
    list_of,
    object_of,
    operation_of,
)
from batcher.frontends.endpoints.routing import Route
from batcher.frontends.endpoints.stage_wishes import wishes_of
from batcher.serving.model_version import ModelVersion
from batcher.serving.servable import Servable

INPUTS_OF_A_TIMEOUT = 64
"""Inputs of a call for which it has the time of one request: those of a batch.

OpenAI's form has no deadline, and its clients wait for ten minutes. A call of 2,048 inputs runs as
32 batches or more, and with the time of one request it would be refused where a batch takes a
second: for its own size, and each time that it is sent again.
"""

_IDS = list_of(COUNT)
_REQUEST = object_of(
    ("model", "input"),
    model=TEXT,
    input={"anyOf": [TEXT, list_of(TEXT), _IDS, list_of(_IDS)]},
    encoding_format={"enum": ["float", "base64", None]},
    dimensions={"type": ["integer", "null"], "minimum": 1},
    user={},
)
_VECTOR = {"anyOf": [list_of({"type": ["number", "null"]}), TEXT]}
_EMBEDDING = object_of(
    ("object", "index", "embedding"),
    object={"const": "embedding"},
    index=COUNT,
    embedding=_VECTOR,
)
_ANSWER = object_of(
    ("object", "data", "model", "usage"),
    object={"const": "list"},
    data=list_of(_EMBEDDING),
    model=TEXT,
    usage=object_of(("prompt_tokens", "total_tokens"), prompt_tokens=COUNT, total_tokens=COUNT),
)
_FAILURES = {**INFERENCE_FAILURES, 504: "The deadline passed."}
_OPERATION = operation_of(_ANSWER, _FAILURES) | {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
    "parameters": [header(*API_KEY_HEADER)],
}
_MODEL = object_of(
    ("id", "object", "created", "owned_by"),
    id=TEXT,
    object={"const": "model"},
    created=COUNT,
    owned_by=TEXT,
)
_MODELS = operation_of(
    object_of(("object", "data"), object={"const": "list"}, data=list_of(_MODEL))
)


def embeddings_routes(engine: Engine) -> tuple[Route, ...]:
    """Return the routes of the interface over `engine`."""
    return (
        Route(
            "POST",
            "/v1/embeddings",
            Embeddings(engine),
            "Vectors of texts, in OpenAI's form.",
            _OPERATION,
            fast=True,
            failure=openai_failure_reply,
        ),
        Route(
            "GET",
            "/v1/models",
            partial(_models, engine),
            "The models that make embeddings, in OpenAI's form.",
            _MODELS,
            failure=openai_failure_reply,
        ),
    )


class EmbeddingsWriter:
    """Makes the reply of one call."""

    __slots__ = ("_embedder", "_parameters", "_servable", "_wish")

    def __init__(
        self, servable: Servable, wish: Wish, embedder: Embedder, parameters: Parameters
    ) -> None:
        """Write the answer of `servable`, an `embedder`, to `wish`, sent with `parameters`."""
        self._servable = servable
        self._wish = wish
        self._embedder = embedder
        self._parameters = parameters

    def reply(self, response: InferenceResponse) -> Reply | Deferred[Reply]:
        """Return the reply that carries `response`, or a Deferred of a reply that is long."""
        once = self._parameters.once
        headers = answer_fields(response, self._servable.picks_version, once)
        if is_heavy_answer(response):
            arguments = (encode_heavy_embeddings, self._wish, self._embedder)
            return write_heavy(self._servable, response, self._parameters, *arguments).addCallback(
                self._reply, headers
            )
        return self._reply(encode(response, self._wish, self._embedder), headers)

    def _reply(self, body: Buffer, headers: Fields) -> Reply:
        servable = self._servable
        return Reply(200, b"application/json", body, headers, servable.spec.name)


class Embeddings:
    """The endpoint that infers. Reactor thread."""

    def __init__(self, engine: Engine) -> None:
        """Answer by the models of `engine`."""
        self._engine = engine

    def __call__(self, call: Call) -> Deferred[InferenceResponse]:
        """Answer one call. Raises or fails with any ClientError or ServerError. Reactor thread."""
        if not is_heavy_wish(call.body):
            return self._infer(decode(plain_body(call.body)), call)
        # Which model is meant is not known before the body is read. Any servable knows the process
        # that reads it.
        reader = next(iter(_embedders(self._engine)), None)
        if reader is None:
            raise UnknownModel("model: expected a model that makes embeddings; there is none")
        body, parameters = call.body, _parameters(call, reader)
        decoded = reader.run_heavy(len(body), parameters, decode_heavy_embeddings, body)
        return decoded.addCallback(self._infer, call)

    def _infer(self, wish: Wish, call: Call) -> Deferred[InferenceResponse]:
        servable = self._engine.traffic.servable(wish.model)
        embedder = embedder_of(servable.spec)
        if embedder is None:
            raise InvalidInput(
                f"model: expected a model that makes embeddings, of one input of texts and one "
                f"output that is a vector of floats; got {servable.spec.name!r}"
            )
        parameters = _parameters(call, servable, len(wish.texts))
        inputs = inputs_for(wish, embedder)
        call.plan = EmbeddingsWriter(servable, wish.without_inputs(), embedder, parameters)
        return servable.infer(inputs, parameters).addErrback(_named, embedder)


def _parameters(call: Call, servable: Servable, inputs: int = 1) -> Parameters:
    """Return the parameters of `call`, with the deadline of so many `inputs` that come now."""
    deadline = servable.deadline(servable.timeout * -(-inputs // INPUTS_OF_A_TIMEOUT))
    return wishes_of(call.head, servable).parameters(deadline, client=client_of(call.peer))


def _named(failure: Failure, embedder: Embedder) -> Failure:
    """Return the failure of a call; one about tensors of the `embedder` names the member."""
    error = failure.value
    return Failure(about_input(error, embedder)) if isinstance(error, InvalidInput) else failure


def _embedders(engine: Engine) -> list[ModelVersion]:
    """Return the versions that take requests and make embeddings."""
    return [each for each in engine if each.accepts and embedder_of(each.spec) is not None]


def _models(engine: Engine, _: Call) -> Deferred[Reply]:
    """Return the reply that lists the models which make embeddings."""
    names = dict.fromkeys(version.spec.name for version in _embedders(engine))
    listed = [listed_model(name) for name in names]
    return json_reply({"object": "list", "data": listed})
