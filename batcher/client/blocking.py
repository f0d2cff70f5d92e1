"""The blocking form, on plain sockets.

Threads may share one client: a call has a connection for itself, and waits for its turn where all
are taken. The time of a call bounds each wait of the call, so every call ends on time.

A process that was forked from one with a client begins with no connections: two processes that read
from one connection would get each other's answers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from random import random
from socket import socket
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from batcher.client.attempts import UNTIL_READY, Attempts, ClientOptions, checked_options
from batcher.client.errors import ClientClosed, ClientFailure
from batcher.client.request_building import (
    Inputs,
    MetadataOperation,
    Operation,
    ReadyOperation,
    infer_operation,
    model_path,
)
from batcher.client.response_reading import HttpResponse, InferResult
from batcher.client.retrying import RetryPolicy
from batcher.client.server_address import CurveKeys
from batcher.client.shared_sockets import Connect, Connection, SharedSockets, tcp

Result = TypeVar("Result")


class Client:
    """A server to be asked, from any thread.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely does not run twice. Connections are kept and used again until `close`, or until the end
    of the `with` block.

    Args:
        address: address of the server, as `http://localhost:8080`, or with the extra `zeromq`
            `zmq://localhost:8082` or `zmq:///run/batcher.zmq`.
        timeout: seconds for a whole call, all its attempts included, unless the call names its own
            `timeout`; infinity for no limit.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to, where the server has quotas.
        ssl_context: what an `https` server must prove, in place of the system's usual.
        connect: makes a connected socket within so many seconds, in place of one to `address`, for
            a Unix socket, say.
        curve: keys for a server of ZeroMQ that asks for some.
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
        ssl_context: SSLContext | None = None,
        connect: Callable[[float], socket] | None = None,
        curve: CurveKeys | None = None,
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._options = checked_options(address, timeout, retries, api_key)
        opened = _opened(self._options, connect, ssl_context, curve, seconds)
        self._sockets = SharedSockets(connections, opened, seconds)
        self._seconds = seconds
        self._sleep = sleep
        _CLIENTS.add(self._sockets)

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
        """Close all connections; calls that have not ended raise `ClientClosed`."""
        self._sockets.close()

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
            try:
                return attempts.read(self._exchange(attempts), time.time())
            except ClientFailure as err:
                if self._sockets.is_closed:
                    raise ClientClosed("expected an open client; got a closed one") from err
                wait = attempts.next_wait(err, self._seconds(), random())
            self._sleep(wait)

    def _exchange(self, attempts: Attempts[Any]) -> HttpResponse:
        connection = self._sockets.take(attempts)
        try:
            request, _ = attempts.next_request(self._seconds())
            response = connection.ask(request, attempts)
        except BaseException:
            self._sockets.end(connection)
            raise
        self._sockets.give_back(connection)
        return response


def _opened(
    options: ClientOptions,
    connect: Connect | None,
    ssl_context: SSLContext | None,
    curve: CurveKeys | None,
    seconds: Callable[[], float],
) -> Callable[[float], Any]:
    """Return what opens a connection, of HTTP or of ZeroMQ as the address says."""
    if not options.address.endpoint:
        made = connect or tcp(options.address, ssl_context)
        return lambda left: Connection(made(left), options, seconds)
    # here, since only such an address needs the library
    from batcher.client.zeromq_blocking import ZeromqConnection

    def connected(left: float) -> ZeromqConnection:
        connection = ZeromqConnection(options, curve, seconds)
        try:
            connection.connect(left)
        except BaseException:
            connection.close()
            raise
        return connection

    return connected


_CLIENTS: WeakSet[SharedSockets] = WeakSet()


def _begin_anew() -> None:
    for sockets in list(_CLIENTS):
        sockets.begin_anew()


if hasattr(os, "register_at_fork"):  # not every system forks
    os.register_at_fork(after_in_child=_begin_anew)
