"""The asyncio form over ZeroMQ: a connection as `PooledCalls` has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from batcher.client.attempts import ClientOptions
from batcher.client.errors import ClientFailure, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.server_address import CurveKeys
from batcher.client.zeromq import ZeromqExchange


class AsyncZeromqConnection:
    """A connection of the client's; one request at a time. Thread of the loop."""

    def __init__(
        self,
        options: ClientOptions,
        curve: CurveKeys | None,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[AsyncZeromqConnection], object],
    ) -> None:
        """Begin to connect; `ended` is called when the connection has ended."""
        self._exchange = ZeromqExchange(options, curve)
        self._loop = loop
        self._ended = ended
        self._is_open = True
        self._waiting: asyncio.Future[Any] | None = None
        sockets = self._exchange.socket, self._exchange.monitor
        self._descriptors = [each.get(zmq.FD) for each in sockets]
        for descriptor in self._descriptors:
            loop.add_reader(descriptor, self._advance)

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange allows another one."""
        return self._is_open and self._exchange.is_reusable

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent; what has come meanwhile is looked at."""
        self._advance()
        return self.is_reusable

    async def connected(self, seconds: float) -> None:
        """Return once the server has let the client in. Raises NotConnected."""
        waiting = self._waiting = self._loop.create_future()
        self._loop.call_soon(self._advance)
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except TimeoutError as err:
            raise NotConnected(f"expected a connection within {seconds:g} s; got none") from err

    def ask(self, request: HttpRequest) -> asyncio.Future[HttpResponse]:
        """Send a request."""
        answer: asyncio.Future[HttpResponse] = self._loop.create_future()
        self._waiting = answer
        self._exchange.send(request)
        # Sending may take note of what has come, and the descriptor stays silent.
        self._loop.call_soon(self._advance)
        return answer

    def abort(self) -> None:
        """End the connection now."""
        if self._is_open:
            self._is_open = False
            for descriptor in self._descriptors:
                self._loop.remove_reader(descriptor)
            self._exchange.close()
            self._ended(self)

    def _advance(self) -> None:
        if not self._is_open:
            return
        was_connected = self._exchange.is_connected
        try:
            response = self._exchange.advance()
        except ClientFailure as err:
            self.abort()
            self._fire(partial(_set_exception, err))
            return
        if response is not None or self._exchange.is_connected != was_connected:
            self._fire(lambda waiting: waiting.set_result(response))

    def _fire(self, fire: Callable[[asyncio.Future[Any]], object]) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            fire(waiting)


def _set_exception(error: ClientFailure, waiting: asyncio.Future[Any]) -> None:
    waiting.set_exception(error)
