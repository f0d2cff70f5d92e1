"""Calls over pooled connections, for the two forms whose calls wait side by side in one thread.

The asyncio and the Twisted form run the same coroutine; what is left to a form is to connect, to
wait and to tell the time (`PooledCalls`). The request of an attempt is built once the attempt has
its connection: thousands of waiting calls hold their arrays, and no bytes beside them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from random import random
from typing import Any, Generic, Protocol, Self, TypeVar

from batcher.client.attempts import Attempts, ClientOptions
from batcher.client.connection_pool import ConnectionPool, Turn
from batcher.client.errors import ClientClosed, ClientFailure, NotConnected
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse
from batcher.client.retrying import CONNECT_TIMEOUT_S

Result = TypeVar("Result")


class Asked(Protocol):
    """A connection as the calls see it."""

    @property
    def is_reusable(self) -> bool:
        """Whether the last exchange allows another one."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether a request may be sent: the server has not closed meanwhile."""
        ...

    def ask(self, request: HttpRequest) -> Awaitable[HttpResponse]:
        """Send a request; the response comes later."""
        ...

    def abort(self) -> None:
        """End the connection now."""
        ...


Connection = TypeVar("Connection", bound=Asked)


class PooledCalls(ABC, Generic[Connection]):
    """Runs the calls of one client.

    Attributes:
        options: what holds for all calls.
        is_closed: whether the client is closed.
    """

    def __init__(self, options: ClientOptions, connections: int) -> None:
        """Open at most so many connections."""
        self.options = options
        self.is_closed = False
        self._turns: list[Turn[Connection]] = []  # those that never come, once it is closed
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            connections, lambda connection: connection.abort()
        )

    async def call(self, attempts: Attempts[Result]) -> Result:
        """Return what the operation's response says, after as many attempts as it takes."""
        while True:
            try:
                return attempts.read(await self.exchange(attempts), time.time())
            except ClientFailure as err:
                if self.is_closed:
                    raise ClientClosed("expected an open client; got a closed one") from err
                wait = attempts.next_wait(err, self.seconds(), random())
            await self.sleep(wait)

    async def exchange(self, attempts: Attempts[Any]) -> HttpResponse:
        """Send the request of the next attempt, and return the response."""
        connection = await self._connection(attempts)
        try:
            request, _ = attempts.next_request(self.seconds())
            answer = connection.ask(request)
            timer = self.timer(attempts, answer)
            try:
                response = await answer
            finally:
                self.stop(timer)
        except BaseException:  # a cancelled call too: its request is dropped with its connection
            connection.abort()
            self._pool.give_up()
            raise
        if connection.is_reusable and not self.is_closed:
            self._pool.give_back(connection, self.seconds())
        else:
            connection.abort()
            self._pool.give_up()
        return response

    def ended(self, connection: Connection) -> None:
        """Forget a connection that has ended by itself."""
        self._pool.ended(connection)

    def close(self) -> list[Self]:
        """End idle connections, let no call begin, and return what has connections: itself."""
        self.is_closed = True
        self._turns = self._pool.close()
        return [self]

    @abstractmethod
    def seconds(self) -> float:
        """Return the time of a clock that never goes back."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    async def connect(self, seconds: float) -> Connection:
        """Open a connection within so many seconds.

        Raises:
            NotConnected: there is none.
        """

    @abstractmethod
    def call_from_thread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function soon, where the calls are. Any thread."""

    @abstractmethod
    def turn(self) -> tuple[Turn[Connection], Awaitable[Any]]:
        """Return a turn, and what ends once the turn has come."""

    @abstractmethod
    def timer(self, attempts: Attempts[Any], waiting: Any) -> Any:
        """Fail `waiting`, what `turn` or `ask` gave, with `DeadlineExceeded` at the deadline."""

    @abstractmethod
    def stop(self, timer: Any) -> None:
        """End a timer, whether it has run or not."""

    async def _connection(self, attempts: Attempts[Any]) -> Connection:
        """Return a connection, whose place in the pool the caller gives up or back."""
        connection = self._pool.idle(self.seconds())
        if connection is None and not self._pool.has_place():
            connection = await self._granted(attempts)
        if connection is not None:
            if connection.is_usable:
                return connection
            connection.abort()
        try:
            return await self._connected(attempts)
        except BaseException:
            self._pool.give_up()
            raise

    async def _granted(self, attempts: Attempts[Any]) -> Connection | None:
        turn, waiting = self.turn()
        self._pool.wait(turn)
        timer = self.timer(attempts, waiting)
        try:
            await waiting
        except BaseException:
            self._pool.leave(turn, self.seconds())
            raise
        finally:
            self.stop(timer)
        return turn.connection

    async def _connected(self, attempts: Attempts[Any]) -> Connection:
        if self.is_closed:
            raise ClientClosed("expected an open client; got a closed one")
        seconds_left = attempts.seconds_left(self.seconds())
        try:
            connection = await self.connect(min(seconds_left, CONNECT_TIMEOUT_S))
        except NotConnected as err:
            if attempts.seconds_left(self.seconds()) <= 0:
                raise attempts.expired() from err
            raise
        if self.is_closed:
            connection.abort()
            raise ClientClosed("expected an open client; got a closed one")
        return connection
