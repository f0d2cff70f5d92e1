"""Every failure that a client or an operator can see, as one tree.

Each class has three hints for whoever writes an answer: the HTTP status, the name of the gRPC code,
and `code`, a stable word for programs. `frontends/endpoints/failures.py` is the one place that
turns a failure into an HTTP reply, and `frontends/grpc/calls.py` the one for gRPC. A message is
written for the reader of the answer: what was expected, and what came.

                                     HTTP  gRPC                cause
    BatcherError                     500   INTERNAL
     +- ClientError                  400   INVALID_ARGUMENT    the request is at fault
     |   +- DecodingError            400   INVALID_ARGUMENT    a body is not what its type says
     |   +- InvalidInput             400   INVALID_ARGUMENT    wrong name, dtype, shape or parameter
     |   +- MalformedHttp            400   INVALID_ARGUMENT    no HTTP/1.1, or ambiguous
     |   +- Forbidden                403   PERMISSION_DENIED   not allowed to this client, or to any
     |   +- UnknownModel             404   NOT_FOUND           no such model or version
     |   +- UnknownJob               404   NOT_FOUND           no batch job has that id
     |   +- InputMissing             404   NOT_FOUND           no file is at the address of an input
     |   +- UnknownRoute             404   UNIMPLEMENTED       no route has that path
     |   +- MethodNotAllowed         405   UNIMPLEMENTED       the route has other methods
     |   +- NotAcceptable            406   INVALID_ARGUMENT    no format that the client accepts
     |   +- RequestTimeout           408   DEADLINE_EXCEEDED   head or body came too slowly
     |   +- TooLarge                 413   RESOURCE_EXHAUSTED  body or number of rows over a limit
     |   +- UriTooLong               414   INVALID_ARGUMENT    request target over its limit
     |   +- UnsupportedMediaType     415   INVALID_ARGUMENT    unknown media type or content coding
     |   +- KeyReused                422   INVALID_ARGUMENT    the key of an earlier, other request
     |   +- HeadersTooLarge          431   INVALID_ARGUMENT    header fields over their limit
     |   +- NotServed                501   UNIMPLEMENTED       a part of a protocol that is missing
     +- ServerError                  500   INTERNAL            the request may be right
     |   +- ModelError               500   INTERNAL            the model raised
     |   |   +- ModelContractError   500   INTERNAL            output against the specification
     |   |   |   +- NoRowsPrepared   500   INTERNAL            `preprocess` made no rows
     |   |   +- OutOfMemory          500   INTERNAL            too little memory for the batch
     |   |   +- KnownToFail          500   INTERNAL            the same inputs failed before
     |   |   +- DeviceLost           500   INTERNAL            the device answers with errors alone
     |   +- UnsupportedTransferCoding 501  UNIMPLEMENTED       a transfer coding but chunked
     |   +- InputSourceFailed        502   UNAVAILABLE         where an input lies does not answer
     |   +- Unavailable              503   UNAVAILABLE         the same request may succeed later
     |   |   +- QueueFull            503   UNAVAILABLE         no place in a queue
     |   |   +- BuffersFull          503   UNAVAILABLE         no memory for another body
     |   |   +- Draining             503   UNAVAILABLE         server or model is being stopped
     |   |   +- ModelNotReady        503   UNAVAILABLE         the model loads, or could not load
     |   |   +- WorkerLost           503   UNAVAILABLE         the worker ended or hangs
     |   |   +- PredictedLate        503   UNAVAILABLE         the deadline would be missed
     |   |   +- QuotaExceeded        429   RESOURCE_EXHAUSTED  the key has no rows left for now
     |   +- DeadlineExceeded         504   DEADLINE_EXCEEDED   the deadline has passed
     +- OperatorError                500   INTERNAL            at start or reload; no client sees it
         +- ConfigError              500   INTERNAL            a setting is wrong
         +- ModelLoadError           500   INTERNAL            a model did not load or warm up
         +- ReloadRefused            500   INTERNAL            a reload is impossible as a whole

Authors of models import this module, so its path stays.
"""

from __future__ import annotations

MODEL_FAILED = "the model failed on this request"
"""What clients read in place of a model's own exception. The client library knows the text."""


class BatcherError(Exception):
    """Root of the tree.

    Attributes:
        http_status: status of an HTTP answer.
        grpc_code: name of the status code of a gRPC answer.
        code: a stable word for the cause, which JSON answers have in their member `code`.
        public: what clients read in place of the message; None where they may read the message.
            Then the message is the operator's, who finds it in the log.
    """

    http_status = 500
    grpc_code = "INTERNAL"
    code = "internal"
    public: str | None = None


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
    """The bytes are not an HTTP/1.1 request, or one that could be read in two ways."""

    code = "malformed_http"


class Forbidden(ClientError):
    """The server's settings do not allow it, to this client or to any; nothing was done."""

    http_status = 403
    grpc_code = "PERMISSION_DENIED"
    code = "forbidden"


class UnknownModel(ClientError):
    """No model has that name, or the model has no such version."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "unknown_model"


class UnknownJob(ClientError):
    """No batch job has that id, or no file of one."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "unknown_job"


class InputMissing(ClientError):
    """No file is at the address that stands in place of an input."""

    http_status = 404
    grpc_code = "NOT_FOUND"
    code = "input_missing"


class UnknownRoute(ClientError):
    """No route has that path."""

    http_status = 404
    grpc_code = "UNIMPLEMENTED"
    code = "unknown_route"


class MethodNotAllowed(ClientError):
    """The route exists, but not for this method.

    Attributes:
        allowed: methods that the route has, for the `Allow` header.
    """

    http_status = 405
    grpc_code = "UNIMPLEMENTED"
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        """Keep the methods that the route has."""
        super().__init__(message)
        self.allowed = allowed


class NotAcceptable(ClientError):
    """No format that the client accepts can carry the answer."""

    http_status = 406
    code = "not_acceptable"


class RequestTimeout(ClientError):
    """The head or the body came more slowly than the limits allow."""

    http_status = 408
    grpc_code = "DEADLINE_EXCEEDED"
    code = "request_timeout"


class TooLarge(ClientError):
    """The body is over its limit, or the request has more rows than the queue could ever hold."""

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


class KeyReused(ClientError):
    """The `Idempotency-Key` is that of an earlier request with other inputs."""

    http_status = 422
    code = "key_reused"


class HeadersTooLarge(ClientError):
    """The header fields together, or their number, are over the limit."""

    http_status = 431
    code = "headers_too_large"


class NotServed(ClientError):
    """The request needs a part of its protocol that this server does not have."""

    http_status = 501
    grpc_code = "UNIMPLEMENTED"
    code = "not_served"


class ServerError(BatcherError):
    """The server, the model or the moment is at fault, not the request."""


class ModelError(ServerError):
    """The model raised while these rows ran.

    Attributes:
        private: whether the message is the model's own text, which clients see only if the setting
            `expose_model_errors` allows it.
        place: file and line of the model's code that the error comes from, for the log; empty if
            that is not known.
    """

    code = "model_error"
    private = True
    place = ""


class ModelContractError(ModelError):
    """The model returned something other than its specification promises."""

    code = "model_contract"
    private = False


class NoRowsPrepared(ModelContractError):
    """`preprocess` of the model made no rows of the request, such as of an empty text."""

    code = "no_rows_prepared"


class OutOfMemory(ModelError):
    """The device or the machine had too little memory for the batch; a smaller batch may run."""

    code = "out_of_memory"


class KnownToFail(ModelError):
    """The request was not run: the same inputs have failed alone more than once."""

    code = "known_to_fail"
    private = False


class DeviceLost(ModelError):
    """The device answers every further call of this process with an error.

    The process that holds the device has to be started anew.
    """

    code = "device_lost"


class UnsupportedTransferCoding(ServerError):
    """The body has a transfer coding other than `chunked`."""

    http_status = 501
    grpc_code = "UNIMPLEMENTED"
    code = "unsupported_transfer_coding"


class InputSourceFailed(ServerError):
    """The store or web server of an input does not answer, or answers no file."""

    http_status = 502
    grpc_code = "UNAVAILABLE"
    code = "input_source_failed"


class Unavailable(ServerError):
    """The same request may succeed later.

    Attributes:
        retry_after: whole seconds after which another attempt makes sense, at least 1. It is 0, and
            no `Retry-After` is sent, if the request may have run: no request shall run twice.
    """

    http_status = 503
    grpc_code = "UNAVAILABLE"
    code = "unavailable"

    def __init__(self, message: str, retry_after: int = 1, public: str | None = None) -> None:
        """Keep the seconds for the `Retry-After` header, and what clients read."""
        super().__init__(message)
        self.retry_after = retry_after
        self.public = public


class QueueFull(Unavailable):
    """The queue of requests, or that of work for the CPU pool, has no place at the moment."""

    code = "queue_full"


class BuffersFull(Unavailable):
    """The bodies and unread answers of all clients together have reached their limit."""

    code = "buffers_full"


class Draining(Unavailable):
    """The server or the model is being stopped and takes no new requests."""

    code = "draining"


class ModelNotReady(Unavailable):
    """The model is still loading, or failed to load."""

    code = "model_not_ready"


class WorkerLost(Unavailable):
    """The worker that held the batch has ended, or hangs.

    Attributes:
        begun: whether the batch may have run.
    """

    code = "worker_lost"

    def __init__(self, message: str, begun: bool = True) -> None:
        """Allow another attempt, by `Retry-After`, only if the batch has not run."""
        public = "the worker that held the request was lost"
        super().__init__(message, retry_after=0 if begun else 1, public=public)
        self.begun = begun


class PredictedLate(Unavailable):
    """The request was not run, because its answer was predicted to miss the deadline."""

    code = "predicted_late"


class QuotaExceeded(Unavailable):
    """The quota of the request's key is used up at the moment; the request was not queued."""

    http_status = 429
    grpc_code = "RESOURCE_EXHAUSTED"
    code = "quota_exceeded"


class DeadlineExceeded(ServerError):
    """The deadline of the request passed while the request waited or ran."""

    http_status = 504
    grpc_code = "DEADLINE_EXCEEDED"
    code = "deadline_exceeded"


class OperatorError(BatcherError):
    """Something that the operator set up cannot work. Clients never read these messages."""

    public = "what the operator set up does not work"


class ConfigError(OperatorError):
    """A setting is wrong; the message names file, line, setting, what was expected and got."""


class ModelLoadError(OperatorError):
    """A model could not be loaded or warmed up.

    Attributes:
        stage: what the model's own code did when it raised: `import`, `load` or `warmup`; empty
            where that code did not raise.
    """

    def __init__(self, message: str = "", stage: str = "") -> None:
        """Keep the stage."""
        super().__init__(message)
        self.stage = stage


class ReloadRefused(OperatorError):
    """A reload is impossible, nothing has changed; the message has a line for each reason."""

    def __init__(self, *reasons: str) -> None:
        """Make the message of `reasons`."""
        super().__init__("\n".join(reasons))
