"""Which of several servers gets a call, step by step."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from batcher.client import AnswerLost, DeadlineExceeded, InferenceFailed, NotConnected
from batcher.client.listed_server import ListedServer, listed
from batcher.client.server_list import MAX_CHOICES, MAX_ERRORS, MAX_FAILURES, ServerList, Upstream

A, B, C = "http://a", "http://b", "http://c"
LOST, NOBODY = AnswerLost("cut off"), NotConnected("refused")
FULL = InferenceFailed(503, "full", 30.0)


def list_of(*servers: ListedServer | str) -> ServerList:
    found = ServerList(Random(7).random)
    found.follow(each if isinstance(each, ListedServer) else ListedServer(each) for each in servers)
    return found


def take(servers: ServerList, model: str = "m", now: float = 0.0) -> Upstream:
    upstream = servers.take(model, (), now)
    assert upstream is not None
    return upstream


def asked(servers: ServerList, calls: int, model: str = "m", now: float = 0.0) -> Counter[str]:
    """Return how many of so many calls, one after the other, go to which server."""
    found: Counter[str] = Counter()
    for _ in range(calls):
        upstream = take(servers, model, now)
        found[upstream.server.address] += 1
        servers.give_back(upstream, None, now)
    return found


def fail(servers: ServerList, address: str, failure: Exception, now: float = 0.0) -> Upstream:
    """Have a call to one server end with `failure`."""
    while (upstream := take(servers, now=now)).server.address != address:
        servers.give_back(upstream, None, now)
    servers.give_back(upstream, failure, now)
    return upstream


def test_calls_are_spread_evenly_and_by_weights() -> None:
    for calls in asked(list_of(A, B, C), 9000).values():
        assert calls == pytest.approx(3000, rel=0.1)
    weighted = asked(list_of(ListedServer(A, 3), ListedServer(B, 1)), 8000)
    assert weighted[A] == pytest.approx(6000, rel=0.1)


def test_a_server_that_does_not_answer_gets_no_second_call_while_others_are_idle() -> None:
    servers = list_of(A, B, C)
    held = 0
    for _ in range(300):
        upstream = take(servers)
        if upstream.server.address == B:
            held += 1
        else:
            servers.give_back(upstream, None, 0.0)
    assert held == 1


def test_a_heavier_server_is_given_more_calls_at_a_time() -> None:
    servers = list_of(ListedServer(A, 3), ListedServer(B, 1))
    outstanding = Counter(take(servers).server.address for _ in range(400))
    assert outstanding == {A: 300, B: 100}


def test_a_server_without_a_connection_is_ejected_until_a_probe_finds_it() -> None:
    servers = list_of(A, B)
    ejected = fail(servers, A, NOBODY)
    assert set(asked(servers, 50)) == {B}
    assert servers.next_probe() is ejected
    probes = []
    for _ in range(6):
        probes.append(ejected.probe_at)
        servers.probed(ejected, False, ejected.probe_at)
    assert probes == [1, 3, 7, 15, 25, 35]
    servers.probed(ejected, True, 40.0)
    assert set(asked(servers, 50)) == {A, B}
    assert servers.next_probe() is None


@pytest.mark.parametrize("failure", [LOST, DeadlineExceeded("late")], ids=str)
def test_a_server_is_ejected_after_lost_calls_in_a_row(failure: Exception) -> None:
    servers = list_of(A, B)
    for _ in range(MAX_FAILURES - 1):
        fail(servers, A, failure)
    fail(servers, A, InferenceFailed(500, "an answer all the same"))
    for _ in range(MAX_FAILURES):
        assert servers.next_probe() is None
        fail(servers, A, failure)
    assert set(asked(servers, 50)) == {B}


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_is_ejected_after_errors_of_its_own_in_a_row(status: int) -> None:
    servers, failure = list_of(A, B), InferenceFailed(status, "broken")
    for _ in range(MAX_ERRORS - 1):
        fail(servers, A, failure)
    ejected = fail(servers, A, InferenceFailed(504, "late"))
    for _ in range(MAX_ERRORS):
        assert servers.next_probe() is None
        fail(servers, A, failure)
    assert set(asked(servers, 50)) == {B}
    assert ejected.probe_at == 1.0
    servers.probed(ejected, True, 1.0)
    assert servers.next_probe() is None
    for _ in range(MAX_ERRORS):
        fail(servers, A, failure, 1.0)
    assert ejected.probe_at == 3.0, "one that says it is ready and fails all calls is asked later"
    servers.probed(ejected, True, 3.0)
    assert set(asked(servers, 50, now=3.0)) == {A, B}
    fail(servers, A, NOBODY, 4.0)
    assert ejected.probe_at == 5.0, "it has answered calls since"


@pytest.mark.parametrize("status", [400, 404, 429, 504])
def test_errors_that_other_servers_would_answer_with_too_eject_nobody(status: int) -> None:
    servers = list_of(A, B)
    for _ in range(3 * MAX_ERRORS):
        fail(servers, A, InferenceFailed(status, "no"))
    assert servers.next_probe() is None


def test_a_server_that_refuses_rests_but_not_for_long() -> None:
    servers = list_of(A, B)
    fail(servers, A, FULL, 5.0)
    assert set(asked(servers, 50, now=5.9)) == {B}
    assert set(asked(servers, 50, now=6.0)) == {A, B}
    assert servers.next_probe() is None


def test_names_of_models_that_never_end_fill_no_memory() -> None:
    servers = list_of(A, B)
    for number in range(3 * MAX_CHOICES):
        servers.take(f"m{number}", (), 0.0)
    assert len(servers._choices) <= MAX_CHOICES + 1


def test_without_any_able_server_all_are_tried_and_an_answer_brings_one_back() -> None:
    servers = list_of(A, B)
    for address in (A, B):
        fail(servers, address, NOBODY)
    assert not servers.has_other("m", (), 0.0)
    assert sum(asked(servers, 1).values()) == 1
    assert servers.has_other("m", (), 0.0)
    assert servers.next_probe() is not None


def test_a_call_goes_to_a_server_that_it_has_not_been_to() -> None:
    servers = list_of(A, B, C)
    first = take(servers)
    second = servers.take("m", [first], 0.0)
    assert second is not None
    third = servers.take("m", [first, second], 0.0)
    assert third is not None
    assert len({first, second, third}) == 3
    assert not servers.has_other("m", [first, second, third], 0.0)
    assert servers.take("m", [first, second, third], 0.0) is not None


def test_calls_go_to_servers_that_have_the_model_if_any_has_it() -> None:
    servers = list_of(ListedServer(A, 1, frozenset({"m"})), ListedServer(B, 1, frozenset({"n"})), C)
    assert set(asked(servers, 50)) == {A, C}
    servers.follow([ListedServer(A, 1, frozenset({"m"})), ListedServer(B, 1, frozenset({"n"}))])
    assert set(asked(servers, 50, "n")) == {B}
    assert set(asked(servers, 50, "other")) == {A, B}
    assert set(asked(servers, 50, "")) == {A, B}


def test_a_weight_of_nothing_takes_a_server_out() -> None:
    assert set(asked(list_of(ListedServer(A, 0), B), 50)) == {B}
    assert set(asked(list_of(ListedServer(A, 0)), 5)) == {A}


def test_a_server_that_is_listed_no_more_is_forgotten_after_its_last_call() -> None:
    servers = list_of(A, B)
    while (upstream := take(servers)).server.address != A:
        servers.give_back(upstream, None, 0.0)
    fail(servers, B, NOBODY)
    servers.follow(listed([C]))
    assert set(asked(servers, 20)) == {C}
    assert [each.server.address for each in servers.forget()] == [B]
    assert servers.next_probe() is None
    servers.give_back(upstream, None, 0.0)
    assert servers.forget() == [upstream]
    assert servers.forget() == []


def test_a_server_that_is_listed_again_keeps_its_connections() -> None:
    servers = list_of(A, B)
    upstream = take(servers)
    servers.follow(listed([C]))
    servers.follow([ListedServer(A, 2), ListedServer(B, 2)])
    servers.give_back(upstream, None, 0.0)
    assert servers.forget()[0].server.address == C
    assert upstream in servers.upstreams
    assert upstream.server.weight == 2
