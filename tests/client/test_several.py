"""Clients of several servers, in all three forms."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from batcher.client import (
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    NotConnected,
    TwistedClient,
    balancer,
    several,
    twisted_calls,
)
from batcher.client.listed_server import ListedServer, listed
from tests.support.client_forms import JumpingLoop
from tests.support.oip_peer import Peer, Refuse, doubled, refused
from tests.support.several_peers import CrossingClock, ask

__all__ = ["ask"]
ROW = np.ones((1, 4), "<f4")
ADDRESSES = ["http://a", "http://b"]


def infer(client: Any) -> Any:
    return client.infer("m", {"x": ROW})


@pytest.mark.parametrize("step", [Refuse(), refused(503, "20")], ids=["nobody", "refusal"])
def test_a_call_that_did_not_run_goes_to_another_server_at_once(ask: Any, step: Any) -> None:
    for _ in range(8):  # whichever server is drawn first
        peers = {"a": Peer(step), "b": Peer(doubled)}
        result, took = ask(peers, ADDRESSES, infer)
        assert (result.outputs["y"][0, 0], took) == (2, 0)
        assert peers["a"].attempts <= 1


def test_any_number_of_servers_may_be_gone(ask: Any) -> None:
    peers = {name: Peer(*[Refuse()] * 9) for name in "abcdefghi"}
    result, took = ask({**peers, "j": Peer(doubled)}, [f"http://{n}" for n in "abcdefghij"], infer)
    assert (result.outputs["y"][0, 0], took) == (2, 0)
    assert max(peer.attempts for peer in peers.values()) <= 1


def test_a_quota_is_not_gone_round(ask: Any) -> None:
    peers = {name: Peer(refused(429, "7"), doubled) for name in "ab"}
    result, took = ask(peers, ADDRESSES, infer)
    assert result.model == "m"
    assert took >= 7


def test_where_nobody_is_the_last_failure_is_told(ask: Any) -> None:
    result, took = ask({name: Peer(Refuse()) for name in "ab"}, ADDRESSES, infer)
    assert isinstance(result, NotConnected)
    assert took > 0


def test_an_error_of_the_model_is_told_and_asked_for_nowhere_else(ask: Any) -> None:
    peers = {name: Peer(refused(500)) for name in "ab"}
    result, _ = ask(peers, ADDRESSES, infer)
    assert result.status == 500
    assert sum(peer.attempts for peer in peers.values()) == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [([], "got \\[\\]"), ([1], "got \\[1\\]"), (["http://a", "b"], "got 'b'")],
    ids=str,
)
def test_a_list_is_checked_when_the_client_is_made(address: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Client(address)
    with pytest.raises(ValueError, match=reason):
        AsyncClient(address)
    with pytest.raises(ValueError, match=reason):
        TwistedClient(Clock(), address)


def test_a_connection_of_the_callers_own_is_to_one_server() -> None:
    with pytest.raises(ValueError, match="expected none for several servers"):
        Client(ADDRESSES, connect=lambda _: None)  # type: ignore[arg-type, return-value]  # unused


@pytest.mark.parametrize(
    "make", [Client, AsyncClient, partial(TwistedClient, MemoryReactorClock())]
)
def test_an_argument_that_is_wrong_is_refused_when_the_client_is_made(make: Any) -> None:
    with pytest.raises(ValueError, match="connections: expected 1 or more; got 0"):
        make(ADDRESSES, connections=0)


def infer_after_close(client: Any) -> Any:
    closing = client.close()
    if not asyncio.iscoroutine(closing):
        return infer(client)

    async def both() -> Any:
        await closing
        return await infer(client)

    return both()


def test_a_closed_client_asks_no_server_that_it_has_never_asked(ask: Any) -> None:
    peers = {name: Peer(doubled) for name in "ab"}
    result, _ = ask(peers, ADDRESSES, infer_after_close)
    assert isinstance(result, ClientClosed)
    assert not any(peer.attempts for peer in peers.values())


class Registry:
    """A registry that fails as often as it is told to, and lists both servers then."""

    place = "consul://here"
    period_s = 1000.0

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked = 0

    def servers(self) -> list[ListedServer]:
        self.asked += 1
        if self.asked <= self.failures:
            raise OSError("it is down")
        return listed(ADDRESSES)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("failures", [0, 2])
def test_the_first_call_waits_for_the_list(
    ask: Any, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    registry = Registry(failures)
    monkeypatch.setattr(several, "source_of", lambda _: registry)
    result, took = ask({name: Peer(doubled) for name in "ab"}, "consul://here", infer)
    assert result.outputs["y"][0, 0] == 2
    assert registry.asked == failures + 1
    assert (took == 0) == (failures == 0)


def test_a_registry_that_stays_away_ends_the_first_call_with_its_reason(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "source_of", lambda _: Registry(99))
    result, _ = ask({}, "consul://here", infer)
    assert isinstance(result, NotConnected)
    assert str(result) == "expected servers from consul://here; got none: it is down"


def test_a_list_that_never_comes_ends_a_call_on_time_and_a_close_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr(several, "source_of", lambda _: Registry(0))
    monkeypatch.setattr(balancer, "start_daemon", jobs.append)
    client = Client("consul://here")
    with pytest.raises(DeadlineExceeded):
        client.infer("m", {"x": ROW}, timeout=1e-3)

    async def main() -> None:
        client = AsyncClient("consul://here")
        with pytest.raises(DeadlineExceeded):
            await client.infer("m", {"x": ROW}, timeout=1)
        call = asyncio.ensure_future(client.infer("m", {"x": ROW}))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ClientClosed):
            await call

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    monkeypatch.setattr(twisted_calls, "_endpoint", lambda *_: None)
    clock = CrossingClock()
    twisted = TwistedClient(clock, "consul://here")
    failed: list[Any] = []
    twisted.infer("m", {"x": ROW}, timeout=1).addErrback(failed.append)
    clock.advance(1)
    twisted.infer("m", {"x": ROW}).addErrback(failed.append)
    twisted.close()
    clock.advance(0)
    assert [each.type for each in failed] == [DeadlineExceeded, CancelledError]
    assert not clock.getDelayedCalls()
