"""The one place that turns an error into a reply.

| error | reply |
|---|---|
| of our own tree (`batcher.errors`) | status and code of the error; its text by `Disclosure` |
| any other exception | 500 without details; the traceback goes into the log |

A cancelled call has no reply, since its client has left: the router counts it as CLIENT_LEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from batcher.codecs.formats.json_text import to_json
from batcher.codecs.formats.msgpack_maps import to_msgpack
from batcher.codecs.negotiation import wants_msgpack
from batcher.codecs.openai_errors import error_document
from batcher.errors import (
    BatcherError,
    DeadlineExceeded,
    MethodNotAllowed,
    ModelError,
    RequestTimeout,
    Unavailable,
)
from batcher.frontends.endpoints.call import Fields, Headers, Reply
from batcher.frontends.endpoints.disclosure import Disclosure

CLIENT_LEFT = 499
"""Status of a request whose client left before the answer; only log and metrics show it."""

OPENAI_PATHS = ("/v1/embeddings", "/v1/models")
OPENAI_FOLDERS = ("/v1/files/", "/v1/batches/")
"""Paths of routes in OpenAI's form; all others below `/v1/` are TensorFlow Serving's."""

FailureReply = Callable[[BaseException, Headers, Disclosure], Reply]
"""Makes the reply of an error.

Its arguments are the error, the headers of the request, and what clients learn of errors.
"""


def failure_reply(
    error: BaseException,
    headers: Headers,
    disclosure: Disclosure,
    more: Mapping[str, object] | None = None,
) -> Reply:
    """Return the reply for `error` to a request with `headers`.

    Args:
        error: the failure.
        headers: header fields of the request; they say whether the client reads MessagePack.
        disclosure: says how much of the message the client reads.
        more: members of the body besides `error` and `code`.
    """
    status, code, text, extra = describe_failure(error, disclosure, headers.get(b"x-request-id"))
    document = {"error": text, "code": code, **(more or {})}
    accept = headers.get(b"accept", b"").decode("latin-1")
    if wants_msgpack(accept, headers.get(b"content-type", b"").decode("latin-1")):
        return Reply(status, b"application/msgpack", to_msgpack(document), extra)
    return Reply(status, b"application/json", to_json(document), extra)


def oip_failure_reply(error: BaseException, headers: Headers, disclosure: Disclosure) -> Reply:
    """Return the reply for `error` by the Open Inference Protocol and TensorFlow Serving.

    The body is JSON with the one member `error`. A deadline that passed is a 503.
    """
    status, _, text, extra = describe_failure(error, disclosure, headers.get(b"x-request-id"))
    status = Unavailable.http_status if isinstance(error, DeadlineExceeded) else status
    return Reply(status, b"application/json", to_json({"error": text}), extra)


def openai_failure_reply(error: BaseException, headers: Headers, disclosure: Disclosure) -> Reply:
    """Return the reply for `error` in OpenAI's form.

    OpenAI's clients send a request again after most failures, unless the answer forbids that. So
    the answer says in each case whether the same request may succeed and has not run.
    """
    status, code, text, extra = describe_failure(error, disclosure, headers.get(b"x-request-id"))
    document = error_document(error, status, code, text)
    may_repeat = isinstance(error, RequestTimeout) or (
        isinstance(error, Unavailable) and error.retry_after > 0
    )
    extra = (*extra, (b"X-Should-Retry", b"true" if may_repeat else b"false"))
    return Reply(status, b"application/json", to_json(document), extra)


_TORCHSERVE_TYPES = {
    400: "BadRequestException",
    404: "ModelNotFoundException",
    405: "MethodNotAllowedException",
    503: "ServiceUnavailableException",
}


def torchserve_failure_reply(
    error: BaseException, headers: Headers, disclosure: Disclosure
) -> Reply:
    """Return the reply for `error` in TorchServe's form; a handler that raised is a 503 there."""
    status, _, text, extra = describe_failure(error, disclosure, headers.get(b"x-request-id"))
    is_raised = isinstance(error, ModelError)
    status = 503 if is_raised else status
    kind = "InternalServerException" if is_raised else _TORCHSERVE_TYPES.get(status)
    document = {"code": status, "type": kind or "InternalServerException", "message": text}
    return Reply(status, b"application/json", to_json(document), extra)


def failure_reply_on(path: str) -> FailureReply:
    """Return the function that makes the reply of an error on `path`, where no route is known."""
    if path in OPENAI_PATHS or f"{path}/".startswith(OPENAI_FOLDERS):
        return openai_failure_reply
    if path.startswith("/predictions/"):
        return torchserve_failure_reply
    return oip_failure_reply if f"{path}/".startswith(("/v1/", "/v2/")) else failure_reply


def allow_field(methods: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return the `Allow` field of a path that has `methods`; `OPTIONS` is known everywhere."""
    return b"Allow", ", ".join((*methods, "OPTIONS")).encode()


def describe_failure(
    error: BaseException, disclosure: Disclosure, request_id: bytes | None
) -> tuple[int, str, str, Fields]:
    """Return the status, code, text and header fields for `error`.

    `request_id` is the one that the client sent. What the client may not read is logged.
    """
    told = disclosure.error(error, request_id)
    extra: Fields = ()
    if isinstance(error, Unavailable) and error.retry_after:
        extra = ((b"Retry-After", b"%d" % error.retry_after),)
    elif isinstance(error, MethodNotAllowed):
        extra = (allow_field(error.allowed),)
    if told.reference:
        extra = (*extra, (b"X-Request-Id", told.reference))
    known = error if isinstance(error, BatcherError) else BatcherError
    return known.http_status, known.code, told.text.encode("utf-8", "replace").decode(), extra
