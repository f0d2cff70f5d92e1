"""The Twisted form: treq on an Agent with a pool of kept connections, on the reactor that is handed in.

Cancelling a call's Deferred closes its connection, at any moment, which drops the request on the
server too. The pool repeats nothing by itself (`retryAutomatically`). The body is written in one
piece, since treq's own producer needs the global reactor's cooperator, and is read by a protocol
whose Deferred can be cancelled, which treq's cannot.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterable
from math import inf
from random import random
from typing import Any, NoReturn, TypeVar

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

# RequestNotSent is there, but not in its __all__
from twisted.web.client import (  # type: ignore[attr-defined]
    Agent,
    HTTPConnectionPool,
    RequestNotSent,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from batcher.client import questions
from batcher.client.answers import Answer, InferResult
from batcher.client.errors import AnswerLost, ClientFailure, NotConnected
from batcher.client.exchange import PATIENT, Exchange, checked_terms
from batcher.client.over_twisted import PlainAgent, WholeBody, body_of, was_cancelled
from batcher.client.questions import Inputs, Outgoing, Question
from batcher.client.retrying import CONNECT_SECONDS, KEEP_SECONDS, RetryPolicy

Result = TypeVar("Result")
_NOT_CONNECTED = (ConnectError, DNSLookupError, RequestNotSent)


class TwistedClient:
    """A server to be asked, from the thread of its reactor.

    A call's Deferred fires with its result, or fails with a `ClientFailure`; the call is repeated
    only if it surely did not run. Cancelling it gives the call up. Connections are kept and used
    again until `close`.
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
        """Connect to nothing yet.

        Args:
            reactor: connects, and tells the time.
            address: as for `Client`, and so are `timeout` and `retries`.
            timeout: seconds.
            retries: attempts.
            connections: most idle connections that are kept; there is no limit to those in use.
            api_key: as for `Client`.
            agent: in place of one on a pool of our own, for another TLS setup or a Unix socket.

        Raises:
            ValueError: one of them is not what it should be.
        """
        self._terms = checked_terms(address, timeout, retries, api_key)
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = connections
        self._pool.cachedConnectionTimeout = KEEP_SECONDS
        self._pool.retryAutomatically = False
        own = agent or Agent(reactor, connectTimeout=CONNECT_SECONDS, pool=self._pool)
        self._http = HTTPClient(PlainAgent(own), data_to_body_producer=WholeBody)
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
        """Run a model on `inputs`.

        The arguments, and what they may raise at once, are those of `Client.infer`.
        """
        return self._ask(
            questions.infer(model, inputs, version, outputs, priority, request_id), timeout
        )

    def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> Deferred[dict[str, Any]]:
        """Fire with a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`."""
        return self._ask(questions.Metadata(questions.model_path(model, version)), timeout)

    def is_ready(self, *, timeout: float | None = None) -> Deferred[bool]:
        """Fire with whether every model of the server is ready.

        False also if there is no answer.
        """

        def unready(failure: Failure) -> bool:
            failure.trap(ClientFailure)
            return False

        return self._ask(questions.Ready(), timeout, RetryPolicy(0)).addCallbacks(
            lambda _: True, unready
        )

    def wait_ready(self, timeout: float | None = None) -> Deferred[None]:
        """Fire once every model of the server is ready.

        Fails with the ClientFailure of the last look if time is over.
        """
        return self._ask(questions.Ready(), timeout, PATIENT)

    def close(self) -> Deferred[None]:
        """Cancel the calls that are still here and fire once all connections are closed."""
        for call in list(self._calls):
            call.cancel()
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    def _ask(
        self, question: Question[Result], timeout: float | None, policy: RetryPolicy | None = None
    ) -> Deferred[Result]:
        exchange = self._terms.exchange(question, timeout, self._reactor.seconds(), policy)
        call = Deferred.fromCoroutine(self._attempts(exchange))
        self._calls.add(call)

        def ended(result: Result) -> Result:
            self._calls.discard(call)
            return result

        return call.addBoth(ended)

    async def _attempts(self, exchange: Exchange[Result]) -> Result:
        while True:
            outgoing, left = exchange.attempt(self._reactor.seconds())
            try:
                return exchange.read(
                    await self._within(left, exchange, self._send(outgoing)), time.time()
                )
            except ClientFailure as err:
                await deferLater(
                    self._reactor, exchange.wait(err, self._reactor.seconds(), random())
                )

    def _within(
        self, left: float, exchange: Exchange[Any], sending: Coroutine[Any, Any, Answer]
    ) -> Deferred[Answer]:
        def over(_: object, __: float) -> NoReturn:
            raise exchange.expired()

        answer = Deferred.fromCoroutine(sending)
        return answer if left == inf else answer.addTimeout(left, self._reactor, over)

    async def _send(self, outgoing: Outgoing) -> Answer:
        headers = Headers({name: [value] for name, value in outgoing.headers.items()})
        url = self._terms.address + outgoing.path
        try:
            response = await self._http.request(
                outgoing.method,
                url,
                headers=headers,
                data=outgoing.body or None,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            body = await body_of(response)
        except _NOT_CONNECTED as err:
            raise NotConnected(f"expected a connection; got none: {err}") from err
        except Exception as err:
            if was_cancelled(err):
                raise CancelledError from err
            raise AnswerLost(
                f"expected an answer; the connection broke: {err or type(err).__name__}"
            ) from err
        raw = response.headers.getAllRawHeaders()
        return Answer(
            response.code,
            {name.lower().decode(): values[-1].decode("latin-1") for name, values in raw},
            body,
        )
