"""The three forms of the client, each with several servers, which are a `Peer` each.

What a thread of the client's would do is done at once, so that nothing happens by chance but the
drawing of servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.client import (
    AsyncClient,
    Client,
    TwistedClient,
    asyncio_calls,
    balancer,
    blocking_calls,
    twisted_calls,
)
from tests.support.client_forms import (
    CallResult,
    ClientCall,
    JumpingLoop,
    PeerEndpoint,
    PeerSocket,
    PeerTransport,
)
from tests.support.oip_peer import Peer, doubled

Peers = Mapping[str, Peer]
Address = str | Sequence[str]


class CrossingClock(Clock):
    """A clock for code that comes back from threads."""

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        self.callLater(0, function, *arguments)  # as a reactor: in a turn of its own


def blocking(
    monkeypatch: pytest.MonkeyPatch, peers: Peers, address: Address, call: ClientCall
) -> CallResult:
    """Run `call` on a `Client`."""
    clock = Clock()
    made: list[PeerSocket] = []

    def tcp(server: Any, _: object) -> Callable[[float], Any]:
        def connect(seconds: float) -> Any:
            made.append(PeerSocket(peers[server.host], clock))
            return made[-1]

        return connect

    monkeypatch.setattr(blocking_calls, "tcp", tcp)
    with Client(address, seconds=clock.seconds, sleep=clock.advance) as client:
        try:
            result = call(client)
        except Exception as err:
            result = err
    assert all(each.is_closed for each in made)
    return result, clock.seconds()


def asynchronous(
    monkeypatch: pytest.MonkeyPatch, peers: Peers, address: Address, call: ClientCall
) -> CallResult:
    """Run `call` on an `AsyncClient`."""
    made: list[PeerTransport] = []

    def tcp(options: Any, _: object) -> Any:
        async def connect(factory: Callable[[], Any]) -> Any:
            protocol = factory()
            made.append(PeerTransport(peers[options.address.host], protocol))
            return made[-1], protocol

        return connect

    async def main() -> CallResult:
        async with AsyncClient(address) as client:
            try:
                result = await call(client)
            except Exception as err:
                result = err
            took = asyncio.get_running_loop().time()
        return result, took

    monkeypatch.setattr(asyncio_calls, "_tcp", tcp)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        found = runner.run(main())
    assert all(each.is_aborted for each in made)
    return found


def deferred(
    monkeypatch: pytest.MonkeyPatch, peers: Peers, address: Address, call: ClientCall
) -> CallResult:
    """Run `call` on a `TwistedClient`."""
    clock = CrossingClock()
    endpoints: list[PeerEndpoint] = []
    outcomes: list[Any] = []

    def endpoint(_: object, options: Any) -> PeerEndpoint:
        endpoints.append(PeerEndpoint(peers.get(options.address.host, Peer(doubled))))
        return endpoints[-1]

    monkeypatch.setattr(twisted_calls, "_endpoint", endpoint)
    client = TwistedClient(clock, address)
    call(client).addErrback(lambda failure: failure.value).addCallback(outcomes.append)
    while not outcomes:
        (due, *_) = sorted(timer.getTime() for timer in clock.getDelayedCalls())
        clock.advance(due - clock.seconds())
    closed: list[None] = []
    client.close().addCallback(closed.append)
    assert closed
    assert all(each.is_aborted for known in endpoints for each in known.transports)
    return outcomes[0], clock.seconds()


FORMS = {"blocking": blocking, "asyncio": asynchronous, "Twisted": deferred}


@pytest.fixture(params=FORMS)
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a call on a client of one of the forms: peers, address and call go in."""
    monkeypatch.setattr(balancer, "start_daemon", lambda function: function())

    def asked(peers: Peers, address: Address, call: ClientCall) -> CallResult:
        return FORMS[request.param](monkeypatch, peers, address, call)

    return asked
