"""The blocking form, on httpx.

Threads may share one client: the client's pool gives each call a connection of its own.

httpx bounds each wait on the socket, not the whole call. So each part of a call (the connection,
the request, the head, the body) begins with a bound of the time that is then left, and the time is
looked at again after each piece of the body. A server that hangs is left on time. A server that
sends its body in drops may hold a call for up to as long again; a server that sends its head in
drops may hold the call longer. The other forms have a clock to cancel by, and end every call on
time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from random import random
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from batcher.client.attempts import UNTIL_READY, Attempts, checked_options
from batcher.client.errors import ClientFailure
from batcher.client.over_httpx import client_failures, httpx_arguments, pool_limits
from batcher.client.request_building import (
    HttpRequest,
    Inputs,
    MetadataOperation,
    Operation,
    ReadyOperation,
    infer_operation,
    model_path,
)
from batcher.client.response_reading import HttpResponse, InferResult
from batcher.client.retrying import RetryPolicy

Result = TypeVar("Result")


class Client:
    """A server to be asked, from any thread.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely did not run. Connections are kept and used again until `close`, or until the end of the
    `with` block.

    Args:
        address: address of the server, as `http://localhost:8080`.
        timeout: seconds for a whole call, all its attempts included, unless the call names its own
            `timeout`; infinity for no limit.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to, where the server has quotas.
        transport: a transport in place of httpx's own, for another TLS setup or a Unix socket.
        seconds: a clock that never goes back.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        transport: httpx.BaseTransport | None = None,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._options = checked_options(address, timeout, retries, api_key)
        self._http = httpx.Client(transport=transport, limits=pool_limits(connections))
        self._seconds = seconds
        self._sleep = sleep

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str = "",
        outputs: Iterable[str] | None = None,
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> InferResult:
        """Run a model on `inputs`: name to array of shape (rows, *row shape), of the model's dtype.

        The arrays are read until the call ends. `version` empty is the newest version that is
        ready. `outputs` are the names of the outputs wanted, None for all. `timeout` is in seconds,
        None for the client's own; the server drops the request when the time is over. `priority` 1
        is the highest, 0 the model's default. `request_id` is the caller's name for the request.

        Raises:
            ClientFailure: in one of its forms, why there is no result.
            TypeError: an input's dtype has no datatype.
            ValueError: an argument is not what it should be.
        """
        operation = infer_operation(model, inputs, version, outputs, priority, request_id)
        return self._call(operation, timeout)

    def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`.

        Raises:
            ClientFailure: in one of its forms, why there is no description.
        """
        return self._call(MetadataOperation(model_path(model, version)), timeout)

    def is_ready(self, *, timeout: float | None = None) -> bool:
        """Return whether every model of the server is ready; False also if nobody answers."""
        try:
            self._call(ReadyOperation(), timeout, RetryPolicy(0))
        except ClientFailure:
            return False
        return True

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once every model of the server is ready.

        Raises:
            ClientFailure: the failure of the last attempt, if the time is over.
        """
        self._call(ReadyOperation(), timeout, UNTIL_READY)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client, which the end of the block closes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self.close()

    def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Result:
        attempts = self._options.attempts(operation, timeout, self._seconds(), policy)
        while True:
            request, seconds_left = attempts.next_request(self._seconds())
            try:
                return attempts.read(self._send(request, seconds_left, attempts), time.time())
            except ClientFailure as err:
                self._sleep(attempts.next_wait(err, self._seconds(), random()))

    def _send(
        self, request: HttpRequest, seconds_left: float, attempts: Attempts[Any]
    ) -> HttpResponse:
        pieces: list[bytes] = []
        arguments = httpx_arguments(self._options.address, request, seconds_left)
        with client_failures(attempts), self._http.stream(**arguments) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                # httpx's own bound begins anew with each piece
                if attempts.seconds_left(self._seconds()) <= 0:
                    raise attempts.expired()
            return HttpResponse(response.status_code, response.headers, b"".join(pieces))
