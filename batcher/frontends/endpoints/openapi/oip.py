"""The operations of the Open Inference Protocol's routes, for `/openapi.json`."""

from __future__ import annotations

from typing import Any

from batcher.core.spec import DATATYPES
from batcher.frontends.endpoints.openapi.operations import (
    API_KEY_HEADER,
    BINARY,
    COUNT,
    FLAG,
    INFERENCE_FAILURES,
    TEXT,
    VERSION_HEADER,
    header,
    list_of,
    object_of,
    operation_of,
)

_SHAPE = list_of({"type": "integer", "minimum": -1})
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

_TENSOR = object_of(("name", "datatype", "shape"), name=TEXT, datatype=_DATATYPE, shape=_SHAPE)
_INPUT = object_of(
    ("name", "datatype", "shape"),
    name=TEXT,
    datatype=_DATATYPE,
    shape=_SHAPE,
    parameters=_PARAMETERS,
    data=list_of({}),
)
_REQUESTED_OUTPUT = object_of(("name",), name=TEXT, parameters=_PARAMETERS)
_REQUEST = object_of(
    ("inputs",),
    id=TEXT,
    parameters=_PARAMETERS,
    inputs=list_of(_INPUT) | {"minItems": 1},
    outputs=list_of(_REQUESTED_OUTPUT),
)
_OUTPUT = object_of(
    ("name", "datatype", "shape"),
    name=TEXT,
    datatype=_DATATYPE,
    shape=list_of(COUNT),
    parameters=_PARAMETERS,
    data=list_of({}),
)
_ANSWER = object_of(
    ("model_name", "model_version", "outputs"),
    id=TEXT,
    model_name=TEXT,
    model_version=TEXT,
    outputs=list_of(_OUTPUT),
)
_CONFIG_TENSOR = object_of(
    ("name", "data_type", "dims"),
    name=TEXT,
    data_type=TEXT,
    dims=_SHAPE,
    optional={"type": "boolean"},
)
_DURATION = object_of(("count", "ns"), count=COUNT, ns=COUNT)
_STATISTICS = object_of(
    (
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "batch_stats",
    ),
    name=TEXT,
    version=TEXT,
    last_inference=COUNT,
    inference_count=COUNT,
    execution_count=COUNT,
    inference_stats={"type": "object", "additionalProperties": _DURATION},
    batch_stats=list_of(
        object_of(
            ("batch_size", "compute_input", "compute_infer", "compute_output"), batch_size=COUNT
        )
    ),
)
_NUMBER = {"type": "number"}
_BATCH_TIME = object_of(("rows", "ms"), rows=_NUMBER, ms=_NUMBER)
_SENT_BATCH = object_of(("rows", "reason"), rows=COUNT, reason=TEXT)
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_EXPLANATION = object_of(
    ("situation", "because", "change"),
    situation=TEXT | {"description": "Why batches are as they are, as one word for programs."},
    because=list_of(TEXT) | {"description": "The same in sentences; the first one says why."},
    change=list_of(TEXT) | {"description": "What to change; empty if nothing is wrong."},
)
_LATELY = object_of(
    ("seconds", "batches", "rows_per_batch", "model_busy", "flush_shares"),
    seconds=_NUMBER | {"description": "Length of the last while with traffic, at most some 15."},
    ended_s_ago=_NUMBER,
    batches=COUNT,
    rows=COUNT,
    requests=COUNT,
    rows_per_batch=_NUMBER,
    requests_at_once=_NUMBER | {"description": "Mean number that the model has at a time."},
    queue_ms=_NUMBER | {"description": "Mean wait of a request for its batch."},
    batch_ms=_NUMBER | {"description": "Mean time of a batch on its worker."},
    model_busy=_SHARE,
    loop_busy=_SHARE,
    padding=_SHARE | {"description": "Of what batches hold; 0 where rows are not padded."},
    flush_shares={"type": "object", "additionalProperties": _SHARE},
    refused_rows={"type": "object", "additionalProperties": COUNT},
    expired_rows=COUNT,
    failed_batches=COUNT,
)
_WAIT = object_of(
    ("clients_return", "ms", "longest_ms"),
    clients_return=FLAG | {"description": "Whether clients send again when they have an answer."},
    ms=_NUMBER | {"description": "The wait planned last, from the end of a batch."},
    longest_ms=_NUMBER | {"description": "The longest that may be made; 0 for none."},
    max_delay_ms=_NUMBER,
)
_JSON_LENGTH = (
    "Bytes of the JSON before the binary tensors; without it the body is JSON alone, 0: there is "
    "no JSON."
)

_NO_MODEL = {404: "No such model or version."}
_UNKNOWN = {**_NO_MODEL, 503: "The model or the server is not ready."}
LIVE = operation_of(object_of(("live",), live=FLAG))
READY = operation_of(object_of(("ready",), ready=FLAG), {503: "Not every model is ready."})
SERVER = operation_of(
    object_of(("name", "version", "extensions"), name=TEXT, version=TEXT, extensions=list_of(TEXT))
)
MODEL_READY = operation_of(object_of(("name", "ready"), name=TEXT, ready=FLAG), _UNKNOWN)
MODEL = operation_of(
    object_of(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=TEXT,
        versions=list_of(TEXT),
        platform=TEXT,
        inputs=list_of(_TENSOR),
        outputs=list_of(_TENSOR),
    ),
    _UNKNOWN,
)
CONFIG = operation_of(
    object_of(
        ("name", "platform", "max_batch_size", "input", "output"),
        name=TEXT,
        platform=TEXT,
        max_batch_size=COUNT,
        input=list_of(_CONFIG_TENSOR),
        output=list_of(_CONFIG_TENSOR),
    ),
    _UNKNOWN,
)
ALL_STATS = operation_of(object_of(("model_stats",), model_stats=list_of(_STATISTICS)))
STATS = operation_of(object_of(("model_stats",), model_stats=list_of(_STATISTICS)), _NO_MODEL)
BATCHING = operation_of(
    object_of(
        (
            "name",
            "version",
            "policy",
            "max_batch_size",
            "batch_ceiling_rows",
            "explanation",
            "lately",
            "queue_rows",
            "batch_ms",
            "wait",
            "shapes",
            "instances",
            "flushes",
            "last_batches",
        ),
        name=TEXT,
        version=TEXT,
        policy=TEXT,
        max_batch_size=COUNT,
        batch_ceiling_rows=COUNT,
        explanation=_EXPLANATION,
        lately=_LATELY,
        queue_rows=COUNT,
        batch_ms=list_of(_BATCH_TIME),
        wait=_WAIT,
        shapes=COUNT,
        instances=object_of(("alive", "all"), alive=COUNT, all=COUNT),
        margin_ms=_NUMBER,
        reserve_ms=_NUMBER,
        flushes={"type": "object", "additionalProperties": COUNT},
        last_batches=list_of(_SENT_BATCH),
    ),
    _UNKNOWN,
)
INDEX = operation_of(
    list_of(
        object_of(("name", "version", "state"), name=TEXT, version=TEXT, state=TEXT, reason=TEXT)
    ),
    {
        400: "The body is no such object.",
        403: "Clients load models, and the request came from a foreign page or name.",
        503: "The repository cannot be read, or the server is being stopped.",
    },
)
INDEX["requestBody"] = {"content": {"application/json": {"schema": object_of((), ready=FLAG)}}}
LOAD: dict[str, Any] = {
    "requestBody": {
        "content": {"application/json": {"schema": object_of((), parameters=_PARAMETERS)}}
    },
    "responses": {
        "200": {"description": "Done; the body is empty."},
        "400": "The body is no such object, or a parameter is not served.",
        "403": "Clients may not, or not from a foreign page or name.",
        "404": "No such model.",
        "503": "The model cannot be loaded.",
    },
}
NOT_SERVED: dict[str, Any] = {"responses": {"501": "Not served."}}

INFER = operation_of(
    _ANSWER,
    {
        **INFERENCE_FAILURES,
        501: "Shared memory or a sequence was asked for, or a transfer coding other than chunked.",
        503: "Queue full, stopping, deadline passed, or model not ready; with Retry-After where "
        "the request did not run.",
    },
)
INFER["responses"]["200"]["content"]["application/octet-stream"] = {"schema": BINARY}
INFER["responses"]["200"]["headers"] = {
    "Inference-Header-Content-Length": {"schema": COUNT, "description": _JSON_LENGTH},
    "Content-Encoding": {
        "schema": {"enum": ["gzip", "deflate"]},
        "description": "As Accept-Encoding asked for.",
    },
    **VERSION_HEADER,
}
INFER["requestBody"] = {
    "required": True,
    "content": {
        "application/json": {"schema": _REQUEST},
        "application/octet-stream": {"schema": BINARY},
    },
}
INFER["parameters"] = [
    header("Inference-Header-Content-Length", COUNT, _JSON_LENGTH),
    header("Accept-Encoding", TEXT, "gzip or deflate compresses the answer."),
    header(*API_KEY_HEADER),
]
