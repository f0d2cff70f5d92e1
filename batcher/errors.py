"""Every failure that a client or an operator can see, as one tree.

Each class carries its HTTP status, its gRPC code and a stable word (`code`) as hints;
`endpoints/failures.py` is the one place that turns a failure into a reply. The message is written
for the reader of the answer: what was expected, what came.

    BatcherError                      500
     +- ClientError                   400  the request is at fault
     |   +- DecodingError             400  the bytes are not what their media type says
     |   +- InvalidInput              400  wrong name, dtype, shape or parameter
     |   +- MalformedHttp             400  the bytes are not an HTTP request that we serve
     |   +- UnknownModel              404  no such model or version
     |   +- UnknownRoute              404
     |   +- MethodNotAllowed          405  carries the methods that are
     |   +- NotAcceptable             406  no answer format that the client accepts
     |   +- RequestTimeout            408  headers or body came too slowly
     |   +- TooLarge                  413  body over the limit, or more rows than could ever be queued
     |   +- UnsupportedMediaType      415  media type or content coding
     |   +- UriTooLong                414
     |   +- HeadersTooLarge           431
     |   +- NotServed                 501  an extension of a protocol that is not served
     +- ServerError                   500  the request may be right
     |   +- ModelError                500  the model raised
     |   |   +- ModelContractError    500  the model's output is not what its specification says
     |   |   +- OutOfMemory           500  the device had not enough memory for it
     |   |   +- KnownToFail           500  the same inputs have failed before
     |   |   +- DeviceLost            500  nothing runs on the device any more
     |   +- UnsupportedTransferCoding 501
     |   +- Unavailable               503  try again later; carries Retry-After where the request did not run
     |   |   +- QueueFull             503
     |   |   +- BuffersFull           503  clients make the server hold too much
     |   |   +- Draining              503
     |   |   +- ModelNotReady         503
     |   |   +- WorkerLost            503  the worker ended, or hangs
     |   |   +- PredictedLate         503  it would miss its deadline
     |   |   +- QuotaExceeded         429  its key has asked for too many rows lately
     |   +- DeadlineExceeded          504
     +- OperatorError                      seen at start and at a reload, never by a client
         +- ConfigError                    carries path and line
         +- ModelLoadError
         +- ReloadRefused                  carries every reason
"""

from __future__ import annotations


class BatcherError(Exception):
    """Root of the tree; its attributes are the hints, `code` for programs that read the answer's member of that name."""

    http_status = 500
    grpc_code = "INTERNAL"
    code = "internal"


class ClientError(BatcherError):
    """The request is at fault; sending it again unchanged will fail again."""

    http_status = 400
    grpc_code = "INVALID_ARGUMENT"
    code = "bad_request"


class DecodingError(ClientError):
    """The body's bytes are not what its media type says they are."""

    code = "undecodable"


class InvalidInput(ClientError):
    """A decoded value has the wrong name, dtype, shape or range."""

    code = "invalid_input"


class MalformedHttp(ClientError):
    """The bytes on the connection are not an HTTP/1.1 request, or one that could be read in two ways."""

    code = "malformed_http"


class UnknownModel(ClientError):
    """No model, or no version of it, has that name."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "unknown_model"


class UnknownRoute(ClientError):
    """No route has that path."""

    http_status = 404
    grpc_code = "UNIMPLEMENTED"
    code = "unknown_route"


class MethodNotAllowed(ClientError):
    """The route exists, but not for this method.

    `allowed` are those that it knows, for the `Allow` header.
    """

    http_status = 405
    grpc_code = "UNIMPLEMENTED"
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        """Keep the methods that would have been right."""
        super().__init__(message)
        self.allowed = allowed


class NotAcceptable(ClientError):
    """No format that the client accepts can carry the answer."""

    http_status = 406
    code = "not_acceptable"


class RequestTimeout(ClientError):
    """Headers or body came more slowly than the limits allow."""

    http_status = 408
    grpc_code = "DEADLINE_EXCEEDED"
    code = "request_timeout"


class TooLarge(ClientError):
    """The body is over its limit, or the request could never fit into the queue."""

    http_status = 413
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "too_large"


class UriTooLong(ClientError):
    """The request target is longer than the limit."""

    http_status = 414
    code = "uri_too_long"


class UnsupportedMediaType(ClientError):
    """The body's media type or content coding is not one that this route reads."""

    http_status = 415
    code = "unsupported_media_type"


class HeadersTooLarge(ClientError):
    """The header fields together, or their number, are over the limit."""

    http_status = 431
    code = "headers_too_large"


class NotServed(ClientError):
    """The request asks for a part of its protocol that this server does not have."""

    http_status = 501
    grpc_code = "UNIMPLEMENTED"
    code = "not_served"


class ServerError(BatcherError):
    """The server, the model or the moment is at fault, not the request."""


class ModelError(ServerError):
    """The model raised while it ran these rows.

    `private`: the text is its own, for clients only if the operator says so.
    """

    code = "model_error"
    private = True


class ModelContractError(ModelError):
    """The model returned something other than its specification promises."""

    code = "model_contract"
    private = False


class OutOfMemory(ModelError):
    """The device, or the machine, had not enough memory for the batch; a smaller one may run."""

    code = "out_of_memory"


class KnownToFail(ModelError):
    """The request was not run: the same inputs have failed alone more than once."""

    code = "known_to_fail"
    private = False


class DeviceLost(ModelError):
    """The device answers every call of this process with an error from now on.

    Whatever holds it has to be started anew.
    """

    code = "device_lost"


class UnsupportedTransferCoding(ServerError):
    """A transfer coding other than chunked."""

    http_status = 501
    grpc_code = "UNIMPLEMENTED"
    code = "unsupported_transfer_coding"


class Unavailable(ServerError):
    """The same request may succeed later.

    Attributes:
        retry_after: whole seconds after which trying again makes sense, at least 1; 0 for none, if
            the request may have run: a client that repeats what carries `Retry-After` shall not
            have it run twice.
    """

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "unavailable"

    def __init__(self, message: str, retry_after: int = 1) -> None:
        """Keep the advice for the `Retry-After` header."""
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """The queue, of requests or of work for the CPU pool, has no place at the moment."""

    code = "queue_full"


class BuffersFull(Unavailable):
    """There is no room for the body.

    Bodies and unread answers of all clients together are as much as may be held.
    """

    code = "buffers_full"


class Draining(Unavailable):
    """The server or the model is being stopped and takes no new requests."""

    code = "draining"


class ModelNotReady(Unavailable):
    """The model is still loading, or failed to load."""

    code = "model_not_ready"


class WorkerLost(Unavailable):
    """The worker that held the batch ended, or hangs.

    `begun` says whether the batch may have run.
    """

    code = "worker_lost"

    def __init__(self, message: str, begun: bool = True) -> None:
        """Give advice for the `Retry-After` header if it has not begun."""
        super().__init__(message, retry_after=0 if begun else 1)
        self.begun = begun


class PredictedLate(Unavailable):
    """The request was not run, since it would have missed its deadline."""

    code = "predicted_late"


class QuotaExceeded(Unavailable):
    """The quota of the request's key is used up for the moment; the request was not queued."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "quota_exceeded"


class DeadlineExceeded(ServerError):
    """The request's deadline passed while it waited or ran."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"
    code = "deadline_exceeded"


class OperatorError(BatcherError):
    """Something that the operator set up cannot work."""


class ConfigError(OperatorError):
    """A setting is wrong; the message names file, line, setting, what was expected and what came."""


class ModelLoadError(OperatorError):
    """A model could not be loaded or warmed up."""


class ReloadRefused(OperatorError):
    """A reload of the settings cannot be, and nothing has changed.

    The message has a line for each reason.
    """

    def __init__(self, *reasons: str) -> None:
        """Write a line for each of `reasons`."""
        super().__init__("\n".join(reasons))
