"""The operation of the native routes of inference, from the models that there are.

What such a route takes and answers depends on the models: their formats, and the names, dtypes and
shapes of their tensors. So the operation is made anew whenever a client asks for `/openapi.json`.
"""

from __future__ import annotations

from typing import Any

from batcher.codecs.format_table import CSV, JSON_LINES, MULTIPART, formats_for, formats_of_requests
from batcher.codecs.format_table import TEXT as PLAIN_TEXT
from batcher.core.spec import Labels, ModelSpec, TensorSpec
from batcher.frontends.endpoints.engine import Engine
from batcher.frontends.endpoints.openapi.operations import (
    BINARY,
    INFERENCE_FAILURES,
    INFERENCE_HEADERS,
    NATIVE_FAILURES,
    TEXT,
    VERSION_HEADER,
    header,
    list_of,
    object_of,
)

_SERVER_TIMING = {
    "schema": TEXT,
    "description": "Milliseconds in the queue and on the model, and the batch size; of a pipeline "
    "also those of each step, as STEP.queue, STEP.compute and STEP.batch.",
}

_ADDRESS = object_of(("ref",), ref=TEXT)

_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_JSON_KINDS = {"BOOL": "boolean", "BYTES": "string"}


def native_operation(engine: Engine) -> dict[str, Any]:
    """Return the operation of a route that infers, in every format that a model of `engine` has.

    Reactor thread.
    """
    failures = {
        str(status): text for status, text in {**INFERENCE_FAILURES, **NATIVE_FAILURES}.items()
    }
    success = {
        "description": "The model's outputs.",
        "content": _content(engine, answers=True),
        "headers": {"Server-Timing": _SERVER_TIMING, **VERSION_HEADER},
    }
    return {
        "parameters": [header(*row) for row in INFERENCE_HEADERS],
        "requestBody": {"required": True, "content": _content(engine, answers=False)},
        "responses": {"200": success, **failures},
    }


def _content(engine: Engine, answers: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for version in engine:
        spec = version.spec
        entries = formats_for(spec.outputs, True) if answers else formats_of_requests(spec)
        for entry in entries:
            schema = TEXT if entry in (CSV, JSON_LINES, PLAIN_TEXT) else BINARY
            content.setdefault(entry.media_type, {"schema": schema})
    if MULTIPART.media_type in content:
        content[MULTIPART.media_type] = {
            "schema": {"type": "object", "additionalProperties": list_of(BINARY)}
        }
    if "application/json" in content:
        content["application/json"] = {"schema": _json_schema(engine, answers)}
    return content


def _json_schema(engine: Engine, answers: bool) -> dict[str, Any]:
    alternatives = [
        {"title": version.title, **_model_schema(version.spec, answers, engine.fetcher.is_on)}
        for version in engine
    ]
    if not answers:
        by_row = object_of(("instances",), instances={"type": "array"})
        alternatives.append({"title": "by row", **by_row})
    return {"anyOf": alternatives} if alternatives else {"type": "object"}


def _model_schema(spec: ModelSpec, answers: bool, by_address: bool) -> dict[str, Any]:
    if not answers:
        return object_of(("inputs",), inputs=_named(spec.inputs, answers, by_address))
    labels = next((tensor.labels for tensor in spec.outputs if tensor.labels is not None), None)
    more = {"predictions": list_of(_best(labels))} if labels is not None else {}
    return object_of(("outputs", *more), outputs=_named(spec.outputs, answers), **more)


def _best(labels: Labels) -> dict[str, Any]:
    value = {"type": ["number", "null"]}
    if labels.is_declared:
        return object_of(("label", "probability"), label=TEXT, probability=value)
    return object_of(("label",), label=TEXT, probability=value, score=value)


def _named(
    tensors: tuple[TensorSpec, ...], answers: bool, by_address: bool = False
) -> dict[str, Any]:
    schemas = {tensor.name: _tensor(tensor, answers) for tensor in tensors}
    if by_address:
        schemas = {name: _or_address(schema) for name, schema in schemas.items()}
    names = tuple(tensor.name for tensor in tensors if not tensor.is_optional)
    return object_of(names, **schemas)


def _or_address(column: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a column, or of the address of a file in place of it or of a row."""
    rows = {**column, "items": {"anyOf": [column["items"], _ADDRESS]}}
    return {"anyOf": [rows, _ADDRESS]}


def _tensor(tensor: TensorSpec, answers: bool) -> dict[str, Any]:
    name = tensor.datatype.name
    kind = _JSON_KINDS.get(name, "number" if name in _FLOATS else "integer")
    # JSON has no NaN: null stands in its place.
    may_be_null = kind == "number" and (answers or tensor.missing_is_nan)
    schema: dict[str, Any] = {"type": [kind, "null"] if may_be_null else kind}
    for size in reversed(tensor.shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    uneven = "; rows may differ in the sizes of axes of -1" if tensor.is_ragged else ""
    return {"type": "array", "items": schema, "description": f"{tensor.describe()}{uneven}"}
