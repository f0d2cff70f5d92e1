"""The asyncio form, on transports of the running loop.

Cancelling a call closes its connection, and the server then drops the request too.

Why no library sends the requests: httpx looks through all its waiting requests and connections at
each call, so 5,000 calls at once take minutes; aiohttp has its own layers of sessions, cookies and
redirects, which cost more than the rest of a call. `benchmarks/clients.py` measures both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from batcher.client.asyncio_calls import AsyncioCalls, AsyncioSetup, Connect
from batcher.client.attempts import UNTIL_READY, ClientOptions, checked_options
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
    from batcher.client.balanced_calls import BalancedCalls
    from batcher.client.several import SeveralOptions

Result = TypeVar("Result")


class AsyncClient:
    """A server to be asked, from the tasks of one asyncio loop; the loop's clock is the client's.

    A call returns its result or raises a `ClientFailure`. A call is repeated only if its request
    surely does not run twice. Connections are kept and used again until `close`, or until the end
    of the `async with` block. Thousands of calls may wait at once: each waits for its turn.

    Args:
        address: as for `Client`, and so are `timeout`, `retries`, `connections`, `api_key` and
            `ssl_context`.
        timeout: seconds for a whole call, the wait for a connection included.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to.
        ssl_context: what an `https` server must prove, in place of the system's usual.
        connect: opens a connection in place of the one to `address`, for a Unix socket, say:
            `lambda made: asyncio.get_running_loop().create_unix_connection(made, path)`.
        curve: as for `Client`.
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
        connect: Connect | None = None,
        curve: CurveKeys | None = None,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        setup = AsyncioSetup(connections, connect, ssl_context, curve)
        self._options, self._calls, self._home = _calls(setup, address, timeout, retries, api_key)

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
        """Close all connections; calls that have not ended raise `ClientClosed`."""
        for pool in self._calls.close():
            await pool.closed()

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
        self._home.check_loop()
        attempts = self._options.attempts(operation, timeout, self._home.seconds(), policy)
        return await self._calls.call(attempts)


def _calls(
    setup: AsyncioSetup, address: str | Sequence[str], timeout: float, retries: int, api_key: str
) -> tuple[ClientOptions | SeveralOptions, AsyncioCalls | BalancedCalls, AsyncioCalls]:
    """Return what holds for all calls, what makes them, and what knows their loop.

    Raises:
        ValueError: an argument is not what it should be.
    """
    if isinstance(address, str) and not is_registry(address):
        options = checked_options(address, timeout, retries, api_key)
        calls = setup.calls(options)
        return options, calls, calls
    # here, since one server needs none of this
    from batcher.client.balanced_calls import BalancedCalls
    from batcher.client.several import HOME, SeveralOptions, balancer_of

    several = SeveralOptions(timeout, retries, api_key, setup.ssl_context, setup.curve)
    home = setup.calls(HOME)
    balancer = balancer_of(address, several, setup.connect, setup.calls_in_this_loop)
    return several, BalancedCalls(balancer, home), home
