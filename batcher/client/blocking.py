"""The blocking form, on httpx.

One client may be shared by threads: its pool gives each call a connection of its own.

httpx bounds each wait on the socket, not the call, so a wait gets what is left of the call's time
when its part of the call begins (the connection, the request, the head, the body), and the time is
looked at again with each piece of the body. A server that hangs is left on time; one that trickles
its answer may hold a call for up to as long again, or, if it trickles the head itself, longer. The
other forms have a clock to cancel by, and do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
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


class Client:
    """A server to be asked, from any thread.

    A call ends with its result, or raises a `ClientFailure`; it is repeated only if it surely did
    not run. Connections are kept and used again until `close`, or the end of the `with` block.
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
        """Connect to nothing yet.

        Args:
            address: of the server, as `http://localhost:8080`.
            timeout: seconds for a whole call, all its attempts included, where it names none;
                infinity for no limit.
            retries: most attempts of a call after its first.
            connections: most connections at once; a call beyond them waits for its turn.
            api_key: whose quota the requests are charged to, where the server has quotas.
            transport: in place of httpx's own, for another TLS setup or a Unix socket.
            seconds: a clock that never goes back.
            sleep: waits.

        Raises:
            ValueError: one of them is not what it should be.
        """
        self._terms = checked_terms(address, timeout, retries, api_key)
        self._http = httpx.Client(transport=transport, limits=limits(connections))
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
        """Run a model on `inputs`.

        Args:
            model: its name.
            inputs: name to array of shape (rows, *row shape), of the model's own dtype; read until
                the call ends.
            version: which; the newest that is ready if empty.
            outputs: names of those wanted; all if None.
            timeout: seconds for the whole call; the client's if None. The server drops the request
                when they are over.
            priority: 1 the highest, 0 for the model's default.
            request_id: the caller's name for the request.

        Raises:
            ClientFailure: in one of its forms, why there is no result.
            TypeError: an input's dtype has no datatype.
            ValueError: an argument is not what it should be.
        """
        return self._ask(
            questions.infer(model, inputs, version, outputs, priority, request_id), timeout
        )

    def metadata(
        self, model: str, version: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a model's description: `name`, `versions`, `platform`, `inputs`, `outputs`.

        Raises ClientFailure.
        """
        return self._ask(questions.Metadata(questions.model_path(model, version)), timeout)

    def is_ready(self, *, timeout: float | None = None) -> bool:
        """Return whether every model of the server is ready; False also if there is no answer."""
        try:
            self._ask(questions.Ready(), timeout, RetryPolicy(0))
        except ClientFailure:
            return False
        return True

    def wait_ready(self, timeout: float | None = None) -> None:
        """Return once every model of the server is ready.

        Raises the ClientFailure of the last look if that takes too long.
        """
        self._ask(questions.Ready(), timeout, PATIENT)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Use it in the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        self.close()

    def _ask(
        self, question: Question[Result], timeout: float | None, policy: RetryPolicy | None = None
    ) -> Result:
        exchange = self._terms.exchange(question, timeout, self._seconds(), policy)
        while True:
            outgoing, left = exchange.attempt(self._seconds())
            try:
                return exchange.read(self._send(outgoing, left, exchange), time.time())
            except ClientFailure as err:
                self._sleep(exchange.wait(err, self._seconds(), random()))

    def _send(self, outgoing: Outgoing, left: float, exchange: Exchange[Any]) -> Answer:
        pieces: list[bytes] = []
        request = arguments(self._terms.address, outgoing, left)
        with translated(exchange), self._http.stream(**request) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                if exchange.left(self._seconds()) <= 0:
                    raise exchange.expired()
            return Answer(response.status_code, response.headers, b"".join(pieces))
