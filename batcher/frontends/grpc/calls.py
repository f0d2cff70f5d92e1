"""How a gRPC call runs and ends.

The library runs a coroutine for each call, and hands the bytes of the request to the coroutine. A
handler that `Calls` makes parses the bytes, has a function answer the message, and counts the call
in the answer log. A call ends in one of three ways:

| end | status |
|---|---|
| the function returns a message | OK |
| the function raises | the status and text that `status_of` gives the error |
| the client leaves | none: the coroutine is cancelled, and with it what the coroutine waits for |
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from batcher.core.frames import clear_all_frames
from batcher.core.request import InferenceResponse
from batcher.errors import BatcherError, DeadlineExceeded, DecodingError, TooLarge, Unavailable
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.api_key import named_key
from batcher.frontends.endpoints.call import REPLAYED_FIELD, asks_anew, replayed_text
from batcher.frontends.endpoints.disclosure import Disclosure
from batcher.frontends.endpoints.failures import CLIENT_LEFT, describe_failure

Result = TypeVar("Result")
AnyMessage = TypeVar("AnyMessage", bound=Message)
Context = Any
"""A `grpc.aio.ServicerContext`."""

AnswerCall = Callable[[Any, Context], Awaitable[Any]]
PeerOf = Callable[[str], str]
"""Returns the address and the port of a client, of what the library calls the client."""

Parse = Callable[[bytes], Any]
Handler = Any
"""A `grpc.RpcMethodHandler` of any messages."""

INFERENCE_SERVICE = "inference.GRPCInferenceService"

MAX_STATUS_TEXT_BYTES = 4000
"""Bytes of a status's text. Escaping makes at most three bytes of one, and 3 * 4000 bytes fit into
the 16 KiB of trailers that clients take.
"""

MAX_SMALL_BYTES = 1 << 18
"""Most bytes of a message without tensors; the library reads a message on the loop."""

REPLAYED_ENTRY = REPLAYED_FIELD.decode().lower()
"""Name of the entry that HTTP has as a header field; names in metadata are in lower case."""

DEADLINE_SLACK_S = 0.005
"""Seconds before a call's deadline from which the deadline counts as passed.

The scheduler looks at deadlines as coarsely.
"""


async def outcome(deferred: Deferred[Result]) -> Result:
    """Wait for `deferred`; cancelling the coroutine cancels `deferred`. Reactor thread."""
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
    error: BaseException,
    disclosure: Disclosure,
    request_id: bytes | None = None,
    timed: bool = False,
) -> tuple[grpc.StatusCode, str]:
    """Return the status and the text for `error`.

    Args:
        error: what a call raised.
        disclosure: says how much of the error's message the client reads.
        request_id: the one that the client sent.
        timed: whether the deadline of the call itself has passed. Without, a DeadlineExceeded is
            about a `timeout` parameter, and its status is UNAVAILABLE, as in other servers.
    """
    _, _, text, _ = describe_failure(error, disclosure, request_id)
    text = text.encode()[:MAX_STATUS_TEXT_BYTES].decode(errors="ignore")
    name = error.grpc_code if isinstance(error, BatcherError) else BatcherError.grpc_code
    if isinstance(error, DeadlineExceeded) and not timed:
        name = Unavailable.grpc_code
    # An error of a model's own may have any name here.
    return grpc.StatusCode.__members__.get(name, grpc.StatusCode.INTERNAL), text


class Calls:
    """Makes the handlers of one service's calls. Reactor thread.

    Attributes:
        disclosure: decides what clients learn of errors.
        seconds: the clock.
        running: calls whose message is here and which have not ended, streams included.
    """

    running = 0

    def __init__(
        self, service: str, answer_log: AnswerLog, disclosure: Disclosure, peer_of: PeerOf
    ) -> None:
        """Count every call of the service named `service` in `answer_log`.

        `peer_of` says who is behind what the library calls the client.
        """
        self._peer_of = peer_of
        self._service = service
        self.disclosure = disclosure
        self.seconds = answer_log.seconds
        self._answer_log = answer_log

    def unary(self, name: str, answer: AnswerCall, parse: Parse) -> tuple[str, Handler]:
        """Return name and handler of the call `name`, with one request and one answer.

        `parse` makes a message of bytes. What `answer` raises becomes the status of the call.
        """

        async def handle(data: Any, context: Context) -> Any:
            began, message = self.seconds(), None
            self.running += 1
            try:
                message = parse(data)
                result = await answer(message, context)
            except asyncio.CancelledError:
                self.ended(name, CLIENT_LEFT, began, context, self.model_of(message))
                raise
            except Exception as err:  # the client gets a status for every error
                self.failed(name, err, began, message, context)
                data = message = None  # the library keeps the error for a while, and this frame
                await context.abort(*self.status_of(err, context))
            finally:
                self.running -= 1
            self.answered(name, began, result, context)
            return result

        return name, grpc.unary_unary_rpc_method_handler(handle, None, to_bytes)

    def failed(
        self, name: str, error: Exception, began: float, message: Any, context: Context
    ) -> None:
        """Count a call of `message` that `error` has ended; the other arguments as for `ended`."""
        status = getattr(error, "http_status", 500)
        self.ended(name, status, began, context, self.model_of(message))
        clear_all_frames(error)

    def answered(self, name: str, began: float, answer: Any, context: Context) -> None:
        """Count a call that ended with `answer`; the other arguments as for `ended`."""
        model, version = (getattr(answer, key, "") for key in ("model_name", "model_version"))
        self.ended(name, 200, began, context, model, version)

    def model_of(self, message: Any) -> str:
        """Return the name of the model that `message` asks for; empty if it asks for none."""
        name = getattr(message, "model_name", "")
        return self._answer_log.model_named(name) if name else ""

    def status_of(self, error: BaseException, context: Context) -> tuple[grpc.StatusCode, str]:
        """Return the status and the text for `error`, which the call of `context` raised."""
        return status_of(error, self.disclosure, request_id_of(context), is_timed(context))

    def ended(
        self,
        name: str,
        status: int,
        began: float,
        context: Context,
        model: str = "",
        version: str = "",
    ) -> None:
        """Count one call.

        Args:
            name: of the call.
            status: the HTTP status with the meaning of the call's own.
            began: when the call came, in seconds on the clock.
            context: of the call.
            model: name of the model that was asked for, empty where no model was.
            version: number of the version that answered, empty where none has.
        """
        route = f"/{self._service}/{name}"
        peer = partial(self._peer, context)
        self._answer_log.answered_rpc(route, model, status, began, peer, version)

    def _peer(self, context: Context) -> str:
        return self._peer_of(context.peer())


def is_timed(context: Context) -> bool:
    """Return whether the call's own deadline has passed, or passes within DEADLINE_SLACK_S."""
    remaining = context.time_remaining()
    return remaining is not None and remaining <= DEADLINE_SLACK_S


def request_id_of(context: Context) -> bytes | None:
    """Return the entry `x-request-id` in the metadata of a call; None without that entry."""
    for name, value in context.invocation_metadata() or ():
        if name == "x-request-id" and isinstance(value, str):
            return value.encode()
    return None


def route_of(context: Context) -> str:
    """Return the text by which the version is chosen, empty without.

    It is the entry `x-route-key` of the call's metadata, or else `x-request-id`.
    """
    found = dict(context.invocation_metadata() or ())
    route = found.get("x-route-key") or found.get("x-request-id") or ""
    return route if isinstance(route, str) else ""


def fresh_of(context: Context) -> bool:
    """Return whether the entry `cache-control` of the call's metadata wants no kept answer."""
    found = dict(context.invocation_metadata() or ()).get("cache-control", "")
    return isinstance(found, str) and asks_anew(found)


def once_of(context: Context) -> str:
    """Return the entry `idempotency-key` of the call's metadata, empty without."""
    found = dict(context.invocation_metadata() or ()).get("idempotency-key", "")
    return found if isinstance(found, str) else ""


def say_replayed(response: InferenceResponse, context: Context) -> InferenceResponse:
    """Say in the trailing metadata whether `response` is that of an earlier attempt; return it."""
    context.set_trailing_metadata(((REPLAYED_ENTRY, replayed_text(response)),))
    return response


def key_of(context: Context) -> str:
    """Return the API key in the metadata of a call, empty without a key.

    The metadata have the names of HTTP's header fields; repeated entries are joined as there.
    """
    values: dict[str, list[str]] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            values.setdefault(name, []).append(value)
    api_key, authorization = values.get("x-api-key", ()), values.get("authorization", ())
    return named_key(", ".join(api_key), ", ".join(authorization))


def parse_message(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Return the message of the class `kind` that `data` holds. Raises DecodingError."""
    try:
        return kind.FromString(data)
    except DecodeError as err:
        raise DecodingError(
            f"expected a {kind.DESCRIPTOR.name} of {len(data)} bytes; got something else"
        ) from err


def small_message(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Return the message of a call that carries no tensors.

    Raises TooLarge or DecodingError.
    """
    if len(data) > MAX_SMALL_BYTES:
        raise TooLarge(
            f"expected a {kind.DESCRIPTOR.name} of at most {MAX_SMALL_BYTES} bytes; got {len(data)}"
        )
    return parse_message(kind, data)


def to_bytes(message: Message) -> bytes:
    """Return the bytes of `message`."""
    return message.SerializeToString()
