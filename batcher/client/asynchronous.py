"""The asyncio form, on httpx.

Cancelling a call closes its connection, which drops the request on the server too.
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

from batcher.client import questions
from batcher.client.answers import Answer, InferResult
from batcher.client.errors import ClientFailure
from batcher.client.exchange import PATIENT, Exchange, checked_terms
from batcher.client.over_httpx import arguments, limits, translated
from batcher.client.questions import Inputs, Outgoing, Question
from batcher.client.retrying import RetryPolicy

Result = TypeVar("Result")


class AsyncClient:
    """A server to be asked, from the tasks of one loop, whose clock it uses.

    A call ends with its result, or raises a `ClientFailure`; it is repeated only if it surely did
    not run. Connections are kept and used again until `close`, or the end of the `async with`
    block.
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
        """Connect to nothing yet; the arguments, and what they may raise, are those of `Client`."""
        self._terms = checked_terms(address, timeout, retries, api_key)
        self._http = httpx.AsyncClient(transport=transport, limits=limits(connections))

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
        """Run a model on `inputs`.

        The arguments, and what they may raise, are those of `Client.infer`.
        """
        return await self._ask(
            questions.infer(model, inputs, version, outputs, priority, request_id), timeout
        )

    async def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`.

        Raises ClientFailure.
        """
        return await self._ask(questions.Metadata(questions.model_path(model, version)), timeout)

    async def is_ready(self, *, timeout: float | None = None) -> bool:
        """Return whether every model of the server is ready; False also if there is no answer."""
        try:
            await self._ask(questions.Ready(), timeout, RetryPolicy(0))
        except ClientFailure:
            return False
        return True

    async def wait_ready(self, timeout: float | None = None) -> None:
        """Return once every model of the server is ready.

        Raises the ClientFailure of the last look if that takes too long.
        """
        await self._ask(questions.Ready(), timeout, PATIENT)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Use it in the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self.close()

    async def _ask(
        self, question: Question[Result], timeout: float | None, policy: RetryPolicy | None = None
    ) -> Result:
        seconds = asyncio.get_running_loop().time
        exchange = self._terms.exchange(question, timeout, seconds(), policy)
        while True:
            outgoing, left = exchange.attempt(seconds())
            try:
                return exchange.read(await self._send(outgoing, left, exchange), time.time())
            except ClientFailure as err:
                await asyncio.sleep(exchange.wait(err, seconds(), random()))

    async def _send(self, outgoing: Outgoing, left: float, exchange: Exchange[Any]) -> Answer:
        try:
            async with asyncio.timeout(left if left < inf else None):
                with translated(exchange):
                    response = await self._http.request(
                        **arguments(self._terms.address, outgoing, left)
                    )
        except TimeoutError as err:
            raise exchange.expired() from err
        return Answer(response.status_code, response.headers, response.content)
