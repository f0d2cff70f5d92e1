"""The one place that turns an error into a reply.

| error | reply |
|---|---|
| of our own tree (`batcher.errors`) | status, code and message of the error |
| ModelError with a model's own exception | likewise; no details without `expose_model_errors` |
| any other exception | 500 without details; the traceback goes into the log |

A cancelled call has no reply, since its client has left: the router counts it as CLIENT_LEFT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger
from twisted.python.failure import Failure

from batcher.codecs.formats.json_lists import to_json
from batcher.codecs.formats.msgpack_maps import to_msgpack
from batcher.codecs.negotiation import wants_msgpack
from batcher.core.error_text import message
from batcher.errors import BatcherError, DeadlineExceeded, MethodNotAllowed, ModelError, Unavailable
from batcher.frontends.endpoints.call import Fields, Headers, Reply

CLIENT_LEFT = 499
"""Status of a request whose client left before the answer; only log and metrics show it."""

FailureReply = Callable[[BaseException, Headers, bool], Reply]
"""Makes the reply of an error.

Its arguments are the error, the headers of the request, and `expose_model_errors`.
"""

_log = Logger()


def failure_reply(
    error: BaseException,
    headers: Headers,
    expose_model_errors: bool = False,
    more: Mapping[str, object] | None = None,
) -> Reply:
    """Return the reply for `error` to a request with `headers`.

    Args:
        error: the failure.
        headers: header fields of the request; they say whether the client reads MessagePack.
        expose_model_errors: whether the reply names class and message of a model's own exception.
        more: members of the body besides `error` and `code`.
    """
    status, code, text, extra = describe_failure(error, expose_model_errors)
    document = {"error": text, "code": code, **(more or {})}
    accept = headers.get(b"accept", b"").decode("latin-1")
    if wants_msgpack(accept, headers.get(b"content-type", b"").decode("latin-1")):
        return Reply(status, b"application/msgpack", to_msgpack(document), extra)
    return Reply(status, b"application/json", to_json(document), extra)


def oip_failure_reply(
    error: BaseException, headers: Headers, expose_model_errors: bool = False
) -> Reply:
    """Return the reply for `error` by the Open Inference Protocol and TensorFlow Serving.

    The body is JSON with the one member `error`. A deadline that passed is a 503.
    """
    status, _, text, extra = describe_failure(error, expose_model_errors)
    status = Unavailable.http_status if isinstance(error, DeadlineExceeded) else status
    return Reply(status, b"application/json", to_json({"error": text}), extra)


def failure_reply_on(path: str) -> FailureReply:
    """Return the function that makes the reply of an error on `path`, where no route is known."""
    return oip_failure_reply if f"{path}/".startswith(("/v1/", "/v2/")) else failure_reply


def allow_field(methods: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return the `Allow` field of a path that has `methods`; `OPTIONS` is known everywhere."""
    return b"Allow", ", ".join((*methods, "OPTIONS")).encode()


def describe_failure(
    error: BaseException, expose_model_errors: bool
) -> tuple[int, str, str, Fields]:
    """Return the status, code, text and header fields for `error`.

    An error outside our own tree is logged with its traceback.
    """
    if not isinstance(error, BatcherError):
        _log.failure("a request failed unexpectedly", Failure(error))
        return 500, BatcherError.code, "the server failed on this request", ()
    text = message(error)
    if isinstance(error, ModelError) and error.private and not expose_model_errors:
        text = "the model failed on this request"
    extra: Fields = ()
    if isinstance(error, Unavailable) and error.retry_after:
        extra = ((b"Retry-After", b"%d" % error.retry_after),)
    elif isinstance(error, MethodNotAllowed):
        extra = (allow_field(error.allowed),)
    return error.http_status, error.code, text.encode("utf-8", "replace").decode(), extra
