"""The blocking form, on plain sockets.

Threads may share one client: a call has a connection for itself, and waits for its turn where all
are taken. The time of a call bounds each wait of the call, so every call ends on time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from socket import socket
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from batcher.client.attempts import UNTIL_READY, ClientOptions, checked_options
from batcher.client.blocking_calls import BlockingCalls, BlockingSetup
from batcher.client.errors import ClientFailure
from batcher.client.request_building import (
    Inputs,
    MetadataOperation,
    Operation,
    ReadyOperation,
    infer_operation,
    model_path,
)
from batcher.client.response_reading import InferResult
from batcher.client.retrying import RetryPolicy
from batcher.client.server_address import CurveKeys
from batcher.core.registry_address import is_registry

if TYPE_CHECKING:
    from batcher.client.balanced_blocking import BalancedBlockingCalls
    from batcher.client.several import SeveralOptions

Result = TypeVar("Result")


class Client:
    """A server to be asked, from any thread.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely does not run twice. Connections are kept and used again until `close`, or until the end
    of the `with` block.

    Args:
        address: address of the server, as `http://localhost:8080`, or with the extra `zeromq`
            `zmq://localhost:8082` or `zmq:///run/batcher.zmq`. A list of addresses, or the
            address of a registry such as `consul://localhost:8500/batcher`, stands for several
            servers, among which the calls are spread.
        timeout: seconds for a whole call, all its attempts included, unless the call names its own
            `timeout`; infinity for no limit.
        retries: most attempts of a call after the first.
        connections: most connections at once to a server; a call beyond them waits for its turn.
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
        address: str | Sequence[str],
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
        setup = BlockingSetup(connections, connect, ssl_context, curve, seconds, sleep)
        self._seconds = seconds
        self._options, self._calls = _calls(setup, address, timeout, retries, api_key)

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
        self._calls.close()

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
        return self._calls.call(attempts)


def _calls(
    setup: BlockingSetup, address: str | Sequence[str], timeout: float, retries: int, api_key: str
) -> tuple[ClientOptions | SeveralOptions, BlockingCalls | BalancedBlockingCalls]:
    """Return what holds for all calls, and what makes them. Raises ValueError."""
    if isinstance(address, str) and not is_registry(address):
        options = checked_options(address, timeout, retries, api_key)
        return options, setup.calls(options)
    # here, since one server needs none of this
    from batcher.client.balanced_blocking import BalancedBlockingCalls
    from batcher.client.several import HOME, SeveralOptions, balancer_of

    setup.calls(HOME)  # refuses now what is wrong, not at some call
    several = SeveralOptions(timeout, retries, api_key, setup.ssl_context, setup.curve)
    balancer = balancer_of(address, several, setup.connect, setup.calls)
    return several, BalancedBlockingCalls(balancer, setup.seconds, setup.sleep)
