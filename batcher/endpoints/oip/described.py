"""What `/openapi.json` says of the Open Inference Protocol's routes: an operation each, but for the parameters in its path."""

from __future__ import annotations

from typing import Any

from batcher.spec import DATATYPES

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TENSOR = _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE)
_INPUT = _object(
    ("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_SHAPE, parameters=_PARAMETERS, data=_list({})
)
_WANTED = _object(("name",), name=_TEXT, parameters=_PARAMETERS)
_REQUEST = _object(
    ("inputs",), id=_TEXT, parameters=_PARAMETERS, inputs=_list(_INPUT) | {"minItems": 1}, outputs=_list(_WANTED)
)
_OUTPUT = _object(("name", "datatype", "shape"), name=_TEXT, datatype=_DATATYPE, shape=_list(_COUNT), data=_list({}))
_ANSWER = _object(
    ("model_name", "model_version", "outputs"), id=_TEXT, model_name=_TEXT, model_version=_TEXT, outputs=_list(_OUTPUT)
)
_CONFIGURED = _object(("name", "data_type", "dims"), name=_TEXT, data_type=_TEXT, dims=_SHAPE)
_SPENT = _object(("count", "ns"), count=_COUNT, ns=_COUNT)
_STATISTICS = _object(
    ("name", "version", "last_inference", "inference_count", "execution_count", "inference_stats", "batch_stats"),
    name=_TEXT,
    version=_TEXT,
    last_inference=_COUNT,
    inference_count=_COUNT,
    execution_count=_COUNT,
    inference_stats={"type": "object", "additionalProperties": _SPENT},
    batch_stats=_list(_object(("batch_size", "compute_input", "compute_infer", "compute_output"), batch_size=_COUNT)),
)
_FAILURE = {"application/json": {"schema": _object(("error",), error=_TEXT)}}
_LENGTH = "Bytes of the JSON before the binary tensors; without it the body is JSON alone, 0: there is no JSON."


def _answered(schema: dict[str, Any], **failures: str) -> dict[str, Any]:
    """Return the operation of a route that answers 200 with JSON of `schema`; `failures` are named after their status."""
    right = {"description": "As said.", "content": {"application/json": {"schema": schema}}}
    wrong = {status.strip("_"): {"description": text, "content": _FAILURE} for status, text in failures.items()}
    return {"responses": {"200": right, **wrong}}


_UNKNOWN = {"_404": "No such model or version.", "_503": "The model or the server is not ready."}
LIVE = _answered(_object(("live",), live={"type": "boolean"}))
READY = _answered(_object(("ready",), ready={"type": "boolean"}), _503="Not every model is ready.")
SERVER = _answered(_object(("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)))
MODEL_READY = _answered(_object(("name", "ready"), name=_TEXT, ready={"type": "boolean"}), **_UNKNOWN)
MODEL = _answered(
    _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_TENSOR),
        outputs=_list(_TENSOR),
    ),
    **_UNKNOWN,
)
CONFIG = _answered(
    _object(
        ("name", "platform", "max_batch_size", "input", "output"),
        name=_TEXT,
        platform=_TEXT,
        max_batch_size=_COUNT,
        input=_list(_CONFIGURED),
        output=_list(_CONFIGURED),
    ),
    **_UNKNOWN,
)
ALL_STATISTICS = _answered(_object(("model_stats",), model_stats=_list(_STATISTICS)))
STATISTICS = _answered(_object(("model_stats",), model_stats=_list(_STATISTICS)), _404="No such model or version.")
INDEX = _answered(
    _list(_object(("name", "version", "state"), name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    _400="The body is no such object.",
    _413="Body over the limit.",
    _415="Content coding unknown.",
)
INDEX["requestBody"] = {"content": {"application/json": {"schema": _object((), ready={"type": "boolean"})}}}
LOAD: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": _object((), parameters=_PARAMETERS)}}},
    "responses": {
        "200": {"description": "Done."},
        "400": {"description": "The body is no such object, or a parameter is not served.", "content": _FAILURE},
        "404": {"description": "No such model.", "content": _FAILURE},
        "413": {"description": "Body over the limit.", "content": _FAILURE},
        "415": {"description": "Content coding unknown.", "content": _FAILURE},
        "503": {"description": "Clients may not, or the model cannot be loaded.", "content": _FAILURE},
    },
}
NOT_SERVED: dict[str, Any] = {"responses": {"501": {"description": "Not served.", "content": _FAILURE}}}

INFER = _answered(
    _ANSWER,
    **_UNKNOWN,
    _400="The body cannot be decoded, or has a wrong name, dtype, shape or parameter.",
    _408="Headers or body came too slowly.",
    _413="Body over the limit, or more rows than the queue can ever hold.",
    _415="Content coding unknown.",
    _500="The model failed.",
    _501="Shared memory or a sequence was asked for.",
)
INFER["responses"]["200"]["content"]["application/octet-stream"] = _BINARY
INFER["responses"]["200"]["headers"] = {"Inference-Header-Content-Length": {"schema": _COUNT, "description": _LENGTH}}
INFER["requestBody"] = {
    "required": True,
    "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": _BINARY},
}
INFER["parameters"] = [
    {"name": "Inference-Header-Content-Length", "in": "header", "schema": _COUNT, "description": _LENGTH},
    {"name": "Accept-Encoding", "in": "header", "schema": _TEXT, "description": "gzip or deflate compresses the answer."},
]
