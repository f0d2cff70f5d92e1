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
from batcher.errors import BatcherError, DeadlineExceeded, MethodNotAllowed, Unavailable
from batcher.frontends.endpoints.call import Fields, Headers, Reply
from batcher.frontends.endpoints.disclosure import Disclosure

CLIENT_LEFT = 499
"""Status of a request whose client left before the answer; only log and metrics show it."""

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


def failure_reply_on(path: str) -> FailureReply:
    """Return the function that makes the reply of an error on `path`, where no route is known."""
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
