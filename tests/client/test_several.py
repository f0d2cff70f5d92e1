"""Clients of several servers, in all three forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twisted.internet.task import Clock

from batcher.client import AsyncClient, Client, NotConnected, TwistedClient
from tests.support.oip_peer import Peer, Refuse, doubled, refused
from tests.support.several_peers import ask

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
