"""What `/openapi.json` says of files and batches."""

from __future__ import annotations

from typing import Any

from batcher.frontends.endpoints.openapi.operations import (
    API_KEY_HEADER,
    BINARY,
    COUNT,
    FLAG,
    TEXT,
    header,
    list_of,
    object_of,
    operation_of,
)

_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_COUNT = {"type": ["integer", "null"], "minimum": 0}
STATUSES = (
    *("validating", "in_progress", "finalizing", "completed", "failed", "cancelling"),
    "cancelled",
)
_FILE = object_of(
    ("id", "object", "bytes", "created_at", "filename", "purpose", "status"),
    id=TEXT,
    object={"const": "file"},
    bytes=COUNT,
    created_at=COUNT,
    filename=TEXT,
    purpose={"enum": ["batch", "batch_output"]},
    status={"const": "processed"},
    expires_at=COUNT,
)
_FAULT = object_of(
    ("code", "line", "message", "param"),
    code=TEXT,
    line=_MAYBE_COUNT,
    message=TEXT,
    param=_MAYBE_TEXT,
)
_BATCH = object_of(
    ("id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"),
    id=TEXT,
    object={"const": "batch"},
    endpoint=TEXT,
    model=_MAYBE_TEXT,
    errors={"anyOf": [object_of(("object", "data"), data=list_of(_FAULT)), {"type": "null"}]},
    input_file_id=TEXT,
    completion_window=TEXT,
    status={"enum": list(STATUSES)},
    output_file_id=_MAYBE_TEXT,
    error_file_id=_MAYBE_TEXT,
    created_at=COUNT,
    in_progress_at=_MAYBE_COUNT,
    completed_at=_MAYBE_COUNT,
    failed_at=_MAYBE_COUNT,
    cancelling_at=_MAYBE_COUNT,
    cancelled_at=_MAYBE_COUNT,
    request_counts=object_of(
        ("total", "completed", "failed"), total=COUNT, completed=COUNT, failed=COUNT
    ),
    metadata={"type": ["object", "null"], "additionalProperties": TEXT},
)
_OFF = {
    403: "The server takes no uploads, or not from a foreign page.",
    413: "The file is over its limit, or all files together are.",
}
_UNKNOWN = {**_OFF, 404: "This client has no such file or batch."}
_KEY = {"parameters": [header(*API_KEY_HEADER)]}


def _page_of(item: dict[str, Any]) -> dict[str, Any]:
    return object_of(
        ("object", "data", "has_more"),
        object={"const": "list"},
        data=list_of(item),
        first_id=_MAYBE_TEXT,
        last_id=_MAYBE_TEXT,
        has_more=FLAG,
    )


def _with_query(operation: dict[str, Any], *names: str) -> dict[str, Any]:
    queries = [{"name": name, "in": "query", "schema": TEXT} for name in names]
    return operation | {"parameters": [*_KEY["parameters"], *queries]}


def _with_body(operation: dict[str, Any], kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {kind: {"schema": schema}}}
    return operation | _KEY | {"requestBody": body}


_FORM = object_of(("file", "purpose"), file=BINARY, purpose={"const": "batch"})
_ASKED = object_of(
    ("completion_window", "endpoint", "input_file_id"),
    completion_window={"const": "24h"},
    endpoint=TEXT,
    input_file_id=TEXT,
    metadata={"type": ["object", "null"], "additionalProperties": TEXT},
)
UPLOAD = _with_body(operation_of(_FILE, _OFF), "multipart/form-data", _FORM)
FILES = _with_query(operation_of(_page_of(_FILE), _OFF), "purpose", "order", "after", "limit")
FILE = operation_of(_FILE, _UNKNOWN) | _KEY
CONTENT = operation_of(BINARY, _UNKNOWN, "application/octet-stream") | _KEY
REMOVED = operation_of(object_of(("id", "object", "deleted"), id=TEXT), _UNKNOWN) | _KEY
CREATE = _with_body(operation_of(_BATCH, _UNKNOWN), "application/json", _ASKED)
BATCHES = _with_query(operation_of(_page_of(_BATCH), _OFF), "after", "limit")
BATCH = operation_of(_BATCH, _UNKNOWN) | _KEY
