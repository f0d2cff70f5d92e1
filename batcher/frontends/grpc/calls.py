"""What every call ends with: the answer, a status of the error tree, or the client's leaving.

And waiting for a Deferred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.errors import BatcherError, DeadlineExceeded, DecodingError, Unavailable
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.api_key import named_key
from batcher.frontends.endpoints.failures import CLIENT_LEFT, told

Result = TypeVar("Result")
AnyMessage = TypeVar("AnyMessage", bound=Message)
Context = Any
"""A `grpc.aio.ServicerContext`."""

SERVICE = "inference.GRPCInferenceService"

MOST_TEXT = 4000
"""Bytes of a status's text: three times as many, if each is escaped, fit into the 16 KiB of
trailers that clients take.
"""


async def outcome(deferred: Deferred[Result]) -> Result:
    """Wait for `deferred`, and cancel it if whoever waits is cancelled. Reactor thread."""
    future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def succeeded(result: Result) -> None:
        if not future.done():
            future.set_result(result)

    def failed(failure: Failure) -> None:
        if not future.done() and failure.value is not None:
            future.set_exception(failure.value)

    deferred.addCallbacks(succeeded, failed)
    try:
        return await future
    except asyncio.CancelledError:
        deferred.cancel()
        raise


def status_of(
    error: BaseException, expose_model_errors: bool, timed: bool = False
) -> tuple[grpc.StatusCode, str]:
    """Return the status and the text for `error`.

    A deadline of the protocol's own that has passed is UNAVAILABLE, as clients of other servers
    expect; `timed` says that it was the call's.
    """
    text = told(error, expose_model_errors)[2].encode()[:MOST_TEXT].decode(errors="ignore")
    name = error.grpc_code if isinstance(error, BatcherError) else BatcherError.grpc_code
    if isinstance(error, DeadlineExceeded) and not timed:
        name = Unavailable.grpc_code
    return grpc.StatusCode.__members__.get(
        name, grpc.StatusCode.INTERNAL
    ), text  # a model's own error may name any


class Calls:
    """Makes handlers of functions. Reactor thread.

    Attributes:
        expose_model_errors: whether class and message of a model's exception reach the client.
        seconds: the clock.
    """

    def __init__(self, service: str, journal: AnswerLog, expose_model_errors: bool) -> None:
        """Tell `journal` of every call of `service`."""
        self._service = service
        self.expose_model_errors = expose_model_errors
        self.seconds = journal.seconds
        self._journal = journal

    def unary(
        self, name: str, answer: Callable[[Any, Context], Awaitable[Any]], request: Any
    ) -> tuple[str, grpc.RpcMethodHandler[Any, Any]]:
        """Return the handler of the call `name`, which `answer` answers from a message of the class `request`."""

        async def handle(data: bytes, context: Context) -> Any:
            began = self._journal.seconds()
            try:
                result = await answer(parsed(request, data), context)
            except asyncio.CancelledError:
                self.ended(name, CLIENT_LEFT, began)
                raise
            except Exception as err:  # whatever a call raises is a status
                self.ended(name, getattr(err, "http_status", 500), began)
                await context.abort(*status_of(err, self.expose_model_errors, is_timed(context)))
            self.ended(name, 200, began, getattr(result, "model_name", ""))
            return result

        return name, grpc.unary_unary_rpc_method_handler(handle, None, to_bytes)

    def ended(self, name: str, status: int, began: float, model: str = "") -> None:
        """Tell the journal of a call that ended with the equal of HTTP's `status`."""
        self._journal.answered(f"/{self._service}/{name}", model, status, began)


def is_timed(context: Context) -> bool:
    """Whether the call's own deadline has passed, or is about to."""
    left = context.time_remaining()
    return left is not None and left <= _SOON


_SOON = 0.005
"""Seconds; the scheduler looks at deadlines as coarsely."""


def key_of(context: Context) -> str:
    """Return the key whose quota a call is charged to, by its metadata; empty if it names none."""
    values: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            values.setdefault(name, []).append(value)
    return named_key(
        *(", ".join(values.get(name, ())) for name in ("x-api-key", "authorization"))
    )  # as over HTTP


def parsed(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Return the message of the class `kind` in `data`. Raises DecodingError."""
    try:
        return kind.FromString(data)
    except DecodeError as err:
        raise DecodingError(
            f"expected a {kind.DESCRIPTOR.name} of {len(data)} bytes; got something else"
        ) from err


def to_bytes(message: Message) -> bytes:
    """Return the bytes of `message`."""
    return message.SerializeToString()
