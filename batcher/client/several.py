"""A client's arguments where it has several servers, or a registry that lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from ssl import SSLContext
from time import monotonic, sleep
from typing import Any, TypeVar

from batcher.client.attempts import (
    Attempts,
    ClientOptions,
    checked_options,
    checked_timeout,
)
from batcher.client.balancer import Balancer, Listed
from batcher.client.blocking_calls import BlockingSetup
from batcher.client.errors import ClientFailure
from batcher.client.listed_server import listed
from batcher.client.registries.registry import Source, source_of
from batcher.client.request_building import Operation, ReadyOperation
from batcher.client.retrying import RetryPolicy
from batcher.client.server_address import CurveKeys
from batcher.core.registry_address import registry_address

PROBE_TIMEOUT_S = 2.0
"""Longest time of a probe: a server that takes longer to say that it is ready is not."""

_ONCE = RetryPolicy(0)

HOME_ADDRESS = "http://several"
HOME = checked_options(HOME_ADDRESS, inf, 0)
"""For calls that only wait and tell the time: nobody is asked at this address."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class SeveralOptions:
    """What holds for all calls to all servers.

    Attributes:
        timeout: seconds for a call that names no timeout.
        retries: most attempts of a call after the first.
        api_key: key whose quota the requests are charged to.
        ssl_context: what an `https` server must prove; None for the system's usual.
        curve: keys for servers of ZeroMQ that ask for some.
    """

    timeout: float
    retries: int
    api_key: str = field(repr=False)
    ssl_context: SSLContext | None
    curve: CurveKeys | None

    def attempts(
        self,
        operation: Operation[Result],
        timeout: float | None,
        now: float,
        policy: RetryPolicy | None = None,
    ) -> Attempts[Result]:
        """Return the attempts of a call that begins `now`; None takes the client's own value.

        Raises:
            ValueError: `timeout` is not more than 0 seconds.
        """
        seconds = self.timeout if timeout is None else checked_timeout(timeout)
        return Attempts(operation, policy or RetryPolicy(self.retries), seconds, now)

    def of(self, address: str) -> ClientOptions:
        """Return what holds for the server at one address.

        Raises:
            ValueError: an argument is not what it should be.
        """
        return checked_options(address, self.timeout, self.retries, self.api_key)

    def is_ready(self, address: str) -> bool:
        """Return whether the server at `address` is ready. The client's own thread."""
        options = self.of(address)
        setup = BlockingSetup(1, None, self.ssl_context, self.curve, monotonic, sleep)
        calls = setup.calls(options)
        try:
            calls.call(options.attempts(ReadyOperation(), PROBE_TIMEOUT_S, monotonic(), _ONCE))
        except ClientFailure:
            return False
        finally:
            calls.close()
        return True


def balancer_of(
    address: str | Sequence[str],
    options: SeveralOptions,
    connect: object,
    make: Callable[[ClientOptions], Any],
) -> Balancer:
    """Return the balancer of a client whose servers `address` lists.

    Args:
        address: addresses of servers, or that of a registry.
        options: what holds for all of them.
        connect: the caller's own way to connect, which only a client of one server may have.
        make: returns the connections to one server; runs where the calls do.

    Raises:
        ValueError: an argument is not what it should be.
    """
    if connect is not None:
        raise ValueError("connect, endpoint: expected none for several servers; got one")
    options.of(HOME_ADDRESS)  # what is wrong is told now, not at some call
    source = _source(address)
    for each in source.servers() if isinstance(source, Listed) else ():
        options.of(each.address)
    return Balancer(source, lambda each: make(options.of(each)), options.is_ready)


def _source(address: str | Sequence[str]) -> Source:
    if isinstance(address, str):
        try:
            return source_of(registry_address(address))
        except ValueError as err:
            raise ValueError(f"address: {err}") from err
    addresses = list(address)
    if not addresses or not all(isinstance(each, str) for each in addresses):
        raise ValueError(
            "address: expected one such as http://localhost:8080, or a list of them; got "
            f"{address!r}"
        )
    return Listed(listed(addresses))
