"""An error in OpenAI's form, as a whole answer and as a line of a batch."""

from __future__ import annotations

from typing import Any

from batcher.codecs.embeddings import MEMBERS
from batcher.errors import QuotaExceeded, UnknownJob, UnknownModel

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
