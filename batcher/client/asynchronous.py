"""The asyncio form, on httpx.

Cancelling a call closes its connection, and the server then drops the request too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from math import inf
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


class AsyncClient:
    """A server to be asked, from the tasks of one asyncio loop; the loop's clock is the client's.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely did not run. Connections are kept and used again until `close`, or until the end of the
    `async with` block.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet; the arguments and the errors are those of `Client`."""
        self._options = checked_options(address, timeout, retries, api_key)
        self._http = httpx.AsyncClient(transport=transport, limits=pool_limits(connections))

    async def infer(
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
        """Run a model, and return its outputs.

        The arguments and the errors are those of `Client.infer`.
        """
        operation = infer_operation(model, inputs, version, outputs, priority, request_id)
        return await self._call(operation, timeout)

    async def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`.

        Raises:
            ClientFailure: in one of its forms, why there is no description.
        """
        return await self._call(MetadataOperation(model_path(model, version)), timeout)

    async def is_ready(self, *, timeout: float | None = None) -> bool:
        """Return whether every model of the server is ready; False also if nobody answers."""
        try:
            await self._call(ReadyOperation(), timeout, RetryPolicy(0))
        except ClientFailure:
            return False
        return True

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return once every model of the server is ready.

        Raises:
            ClientFailure: the failure of the last attempt, if the time is over.
        """
        await self._call(ReadyOperation(), timeout, UNTIL_READY)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client, which the end of the block closes."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.close()

    async def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Result:
        seconds = asyncio.get_running_loop().time
        attempts = self._options.attempts(operation, timeout, seconds(), policy)
        while True:
            request, seconds_left = attempts.next_request(seconds())
            try:
                return attempts.read(await self._send(request, seconds_left, attempts), time.time())
            except ClientFailure as err:
                await asyncio.sleep(attempts.next_wait(err, seconds(), random()))

    async def _send(
        self, request: HttpRequest, seconds_left: float, attempts: Attempts[Any]
    ) -> HttpResponse:
        arguments = httpx_arguments(self._options.address, request, seconds_left)
        try:
            # httpx bounds single waits only; this bounds them all together
            async with asyncio.timeout(seconds_left if seconds_left < inf else None):
                with client_failures(attempts):
                    response = await self._http.request(**arguments)
        except TimeoutError as err:
            raise attempts.expired() from err
        return HttpResponse(response.status_code, response.headers, response.content)
