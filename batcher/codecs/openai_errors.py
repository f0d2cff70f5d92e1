"""An error in OpenAI's form, as a whole answer and as a line of a batch."""

from __future__ import annotations

from typing import Any

from batcher.codecs.embeddings import MEMBERS, Embedder
from batcher.errors import InvalidInput, QuotaExceeded, UnknownJob, UnknownModel

PARAMETERS = frozenset(
    {
        *MEMBERS,
        *("after", "completion_window", "custom_id", "endpoint", "expires_after", "file"),
        *("input_file_id", "limit", "metadata", "order", "purpose"),
    }
)
"""Members and parameters of requests that a message may begin with."""

_TYPES = {429: "rate_limit_error"}
_CODES: dict[type[BaseException], str] = {
    UnknownModel: "model_not_found",
    UnknownJob: "not_found",  # a file, too
    QuotaExceeded: "rate_limit_exceeded",
}


def about_input(error: InvalidInput, embedder: Embedder) -> InvalidInput:
    """Return the error of a request whose texts or ids a model refuses, by the name of OpenAI's.

    The model's own `token_ids: expected ids below 30522; got 99999` names a tensor that no client
    of this form knows.
    """
    text = str(error)
    for tensor in (embedder.text, embedder.ids):
        if tensor is not None:
            text = text.removeprefix(f"input {tensor.name!r}: ").removeprefix(f"{tensor.name}: ")
    return InvalidInput(f"input: {text}")


def error_document(error: BaseException, status: int, code: str, text: str) -> dict[str, Any]:
    """Return the document for `error`, which has a status, a code and a text for clients."""
    parameter = text.partition(":")[0]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {
        "error": {
            "message": text,
            "type": _TYPES.get(status, kind),
            "param": parameter if parameter in PARAMETERS else None,
            "code": _CODES.get(type(error), code),
        }
    }
