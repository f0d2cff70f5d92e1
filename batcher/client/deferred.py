"""The Twisted form, on endpoints of the reactor that is handed in.

Cancelling a call's Deferred closes its connection, at any moment, and the server then drops the
request too.

Why no library sends the requests: treq and Twisted's Agent bound no connections in use, so 5,000
calls at once would open 5,000 of them, and a call costs several times what it costs here
(`benchmarks/clients.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

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
from batcher.client.twisted_calls import TwistedCalls, TwistedSetup
from batcher.core.registry_address import is_registry

if TYPE_CHECKING:
    from batcher.client.balanced_calls import BalancedCalls
    from batcher.client.several import SeveralOptions

Result = TypeVar("Result")


class TwistedClient:
    """A server to be asked, from the thread of the client's reactor.

    A call's Deferred fires with the result or fails with a `ClientFailure`. A call is repeated only
    if its request surely does not run twice. Cancelling the Deferred gives the call up. Connections
    are kept and used again until `close`.

    Args:
        reactor: connects, and tells the time.
        address: as for `Client`, and so are `timeout`, `retries` and `api_key`.
        timeout: seconds for a whole call.
        retries: most attempts of a call after the first.
        connections: most connections at once; a call beyond them waits for its turn.
        api_key: key whose quota the requests are charged to.
        endpoint: connects in place of the one to `address`, for another TLS setup or a Unix
            socket.
        curve: as for `Client`.
    """

    def __init__(
        self,
        reactor: Any,
        address: str | Sequence[str],
        *,
        timeout: float = 60.0,
        retries: int = 3,
        connections: int = 100,
        api_key: str = "",
        endpoint: IStreamClientEndpoint | None = None,
        curve: CurveKeys | None = None,
    ) -> None:
        """Connect to nothing yet; the class says what the arguments are.

        Raises:
            ValueError: an argument is not what it should be.
        """
        self._reactor = reactor
        self._running: set[Deferred[Any]] = set()
        setup = TwistedSetup(reactor, connections, endpoint, curve)
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
        pools = self._calls.close()
        for call in list(self._running):
            call.cancel()
        return gatherResults([pool.closed() for pool in pools]).addCallback(lambda _: None)

    def _call(
        self,
        operation: Operation[Result],
        timeout: float | None,
        policy: RetryPolicy | None = None,
    ) -> Deferred[Result]:
        attempts = self._options.attempts(operation, timeout, self._reactor.seconds(), policy)
        call = Deferred.fromCoroutine(self._calls.call(attempts))
        self._running.add(call)
        return call.addBoth(self._ended, call)

    def _ended(self, result: Result, call: Deferred[Any]) -> Result:
        self._running.discard(call)
        return result


def _calls(
    setup: TwistedSetup, address: str | Sequence[str], timeout: float, retries: int, api_key: str
) -> tuple[ClientOptions | SeveralOptions, TwistedCalls | BalancedCalls]:
    """Return what holds for all calls, and what makes them. Raises ValueError."""
    if isinstance(address, str) and not is_registry(address):
        options = checked_options(address, timeout, retries, api_key)
        return options, setup.calls(options)
    # here, since one server needs none of this
    from batcher.client.balanced_calls import BalancedCalls
    from batcher.client.several import HOME, SeveralOptions, balancer_of

    several = SeveralOptions(timeout, retries, api_key, None, setup.curve)
    balancer = balancer_of(address, several, setup.endpoint, setup.calls)
    return several, BalancedCalls(balancer, setup.calls(HOME))
