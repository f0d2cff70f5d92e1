"""The Twisted form: treq on an Agent that keeps connections, on the reactor that is handed in.

Cancelling a call's Deferred closes its connection, at any moment, and the server then drops the
request too.

- The pool repeats nothing by itself (`retryAutomatically`): only `retrying` decides on that.
- A body is written in one piece: treq's own producer needs the global reactor's cooperator.
- A response's body is read by a protocol of our own, whose Deferred can be cancelled; treq's
  cannot.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterable
from math import inf
from random import random
from typing import Any, NoReturn, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from batcher.client.attempts import UNTIL_READY, Attempts, checked_options
from batcher.client.errors import ClientFailure
from batcher.client.over_twisted import UncompressedAgent, WholeBody, body_of, client_failures
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
from batcher.client.retrying import CONNECT_TIMEOUT_S, KEEP_ALIVE_S, RetryPolicy

Result = TypeVar("Result")


class TwistedClient:
    """A server to be asked, from the thread of the client's reactor.

    A call's Deferred fires with the result or fails with a `ClientFailure`. A call is repeated only
    if its request surely did not run. Cancelling the Deferred gives the call up. Connections are
    kept and used again until `close`.

    Args:
        reactor: connects, and tells the time.
        address: as for `Client`, and so are `timeout`, `retries` and `api_key`.
        timeout: seconds for a whole call.
        retries: most attempts of a call after the first.
        connections: most idle connections that are kept; connections in use have no limit.
        api_key: key whose quota the requests are charged to.
        agent: an agent in place of one on a pool of our own, for another TLS setup or a Unix
            socket.
    """

    def __init__(
        self,
        reactor: Any,
        address: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        agent: IAgent | None = None,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._options = checked_options(address, timeout, retries, api_key)
        self._reactor = reactor
        self._pool = _pool(reactor, connections)
        own = agent or Agent(reactor, connectTimeout=CONNECT_TIMEOUT_S, pool=self._pool)
        self._http = HTTPClient(UncompressedAgent(own), data_to_body_producer=WholeBody)
        self._calls: set[Deferred[Any]] = set()

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
    ) -> Deferred[InferResult]:
        """Run a model, and fire with its outputs. Reactor thread.

        The arguments are those of `Client.infer`; so are the `TypeError` and the `ValueError`,
        which this method raises at once.
        """
        operation = infer_operation(model, inputs, version, outputs, priority, request_id)
        return self._call(operation, timeout)

    def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> Deferred[dict[str, Any]]:
        """Fire with a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`."""
        return self._call(MetadataOperation(model_path(model, version)), timeout)

    def is_ready(self, *, timeout: float | None = None) -> Deferred[bool]:
        """Fire with whether every model of the server is ready; False also if nobody answers."""

        def unready(failure: Failure) -> bool:
            failure.trap(ClientFailure)
            return False

        ready = self._call(ReadyOperation(), timeout, RetryPolicy(0))
        return ready.addCallbacks(lambda _: True, unready)

    def wait_ready(self, timeout: float | None = None) -> Deferred[None]:
        """Fire once every model of the server is ready.

        The Deferred fails with the ClientFailure of the last attempt, if the time is over.
        """
        return self._call(ReadyOperation(), timeout, UNTIL_READY)

    def close(self) -> Deferred[None]:
        """Cancel the calls that have not ended, and fire once all connections are closed."""
        for call in list(self._calls):
            call.cancel()
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Deferred[Result]:
        attempts = self._options.attempts(operation, timeout, self._reactor.seconds(), policy)
        call = Deferred.fromCoroutine(self._run(attempts))
        self._calls.add(call)

        def ended(result: Result) -> Result:
            self._calls.discard(call)
            return result

        return call.addBoth(ended)

    async def _run(self, attempts: Attempts[Result]) -> Result:
        while True:
            request, seconds_left = attempts.next_request(self._reactor.seconds())
            try:
                response = await self._within(seconds_left, attempts, self._send(request))
                return attempts.read(response, time.time())
            except ClientFailure as err:
                wait = attempts.next_wait(err, self._reactor.seconds(), random())
                await deferLater(self._reactor, wait)

    def _within(
        self,
        seconds_left: float,
        attempts: Attempts[Any],
        sending: Coroutine[Any, Any, HttpResponse],
    ) -> Deferred[HttpResponse]:
        def expire(_: object, __: float) -> NoReturn:
            raise attempts.expired()

        response = Deferred.fromCoroutine(sending)
        if seconds_left == inf:
            return response
        return response.addTimeout(seconds_left, self._reactor, expire)

    async def _send(self, request: HttpRequest) -> HttpResponse:
        with client_failures():
            response = await self._http.request(
                request.method,
                self._options.address + request.path,
                headers=Headers({name: [value] for name, value in request.headers.items()}),
                data=request.body or None,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            body = await body_of(response)
        raw = response.headers.getAllRawHeaders()
        headers = {name.lower().decode(): values[-1].decode("latin-1") for name, values in raw}
        return HttpResponse(response.code, headers, body)


def _pool(reactor: Any, connections: int) -> HTTPConnectionPool:
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = connections
    pool.cachedConnectionTimeout = KEEP_ALIVE_S
    pool.retryAutomatically = False
    return pool
