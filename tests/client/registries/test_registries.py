"""What every registry does for a server that announces itself, and for a client that asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from gzip import compress
from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.client import ClientFailure, blocking_calls
from batcher.client.listed_server import ListedServer
from batcher.client.registries import http_calls
from batcher.client.registries.registry import Registry, registry_of
from batcher.client.response_reading import HttpResponse
from batcher.core.registry_address import registry_address
from batcher.errors import BatcherError
from tests.support.client_forms import PeerSocket
from tests.support.oip_peer import Hang, Lose, Refuse
from tests.support.registries import FAKES, TOKEN, FakeRegistry

ONE = ListedServer("http://10.0.0.7:8080", 100, frozenset({"digits", "café"}))
OTHER = ListedServer("https://[fd00::7]:443", 50)
TTL_S = 10.0


class World:
    """A registry that is there twice, as `one` and `two`, and makers of what asks it."""

    def __init__(self, kind: str) -> None:
        self.clock = Clock()
        made, self.address = FAKES[kind]
        self.fake: FakeRegistry = made(self.clock)
        self.connected: list[str] = []
        self.made: list[Registry] = []

    def connect(self, server: Any, _: object) -> Callable[[float], Any]:
        def connected(_: float) -> PeerSocket:
            self.connected.append(server.host)
            if server.host == "one" and self.connected.count("one") > 1:
                raise ConnectionRefusedError("one is gone")
            return PeerSocket(self.fake, Clock())

        return connected

    def registry(self, address: str = "") -> Registry:
        self.made.append(registry_of(registry_address(address or self.address)))
        return self.made[-1]


@pytest.fixture(params=FAKES)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    found = World(request.param)
    monkeypatch.setattr(blocking_calls, "tcp", found.connect)
    yield found
    for registry in found.made:
        registry.close()


def test_a_server_is_listed_as_long_as_it_says_so(world: World) -> None:
    server, client = world.registry(), world.registry()
    assert client.servers() == []
    for _ in range(5):
        server.announce(ONE, TTL_S)
        world.clock.advance(TTL_S - 0.1)
        assert client.servers() == [ONE]
    world.clock.advance(0.2)
    assert client.servers() == []
    server.announce(ONE, TTL_S)
    assert client.servers() == [ONE]


def test_a_server_that_changes_is_listed_as_it_is_now(world: World) -> None:
    server, client = world.registry(), world.registry()
    server.announce(ONE, TTL_S)
    changed = ListedServer(ONE.address, 7, frozenset({"other"}))
    server.announce(changed, TTL_S)
    assert client.servers() == [changed]
    server.announce(changed._replace(weight=0.0), TTL_S)
    assert [each for each in client.servers() if each.weight] == []
    server.announce(changed, TTL_S)
    assert client.servers() == [changed]


def test_a_server_that_leaves_is_gone_at_once_and_others_stay(world: World) -> None:
    first, second, client = world.registry(), world.registry(), world.registry()
    first.withdraw()
    first.announce(ONE, TTL_S)
    second.announce(OTHER, TTL_S)
    assert sorted(client.servers()) == sorted([ONE, OTHER])
    first.withdraw()
    assert client.servers() == [OTHER]
    first.withdraw()


def test_a_registry_that_has_forgotten_all_is_told_again(world: World) -> None:
    server, client = world.registry(), world.registry()
    server.announce(ONE, TTL_S)
    world.fake.forget()
    server.announce(ONE, TTL_S)
    assert client.servers() == [ONE]


def test_an_entry_that_another_process_took_along_is_there_again(world: World) -> None:
    server, last_run, client = (world.registry() for _ in range(3))
    server.announce(ONE, TTL_S)
    last_run.announce(ONE, TTL_S)
    last_run.withdraw()
    assert client.servers() == []
    server.announce(ONE, TTL_S)
    assert client.servers() == [ONE]


@pytest.mark.parametrize("status", [302, 304, 407])
def test_what_a_proxy_says_in_place_of_the_registry_is_an_error(world: World, status: int) -> None:
    server = world.registry()
    server.announce(ONE, TTL_S)
    world.fake.instead = HttpResponse(status, {"location": "http://login.example"}, b"")
    for call in (server.servers, lambda: server.announce(ONE, TTL_S)):
        with pytest.raises(ClientFailure):
            call()


def test_an_entry_that_is_no_server_hides_no_other(world: World) -> None:
    server, client = world.registry(), world.registry()
    server.announce(ONE, TTL_S)
    world.fake.spoil()
    assert client.servers() == [ONE]


@pytest.mark.parametrize("away", [Refuse, Lose, Hang])
def test_a_registry_that_is_away_is_an_error_and_never_a_secret(
    world: World, away: type[Exception]
) -> None:
    server = world.registry()
    server.announce(ONE, TTL_S)
    world.fake.away = away
    for call in (server.servers, lambda: server.announce(ONE, TTL_S), server.withdraw):
        with pytest.raises(ClientFailure) as failed:
            call()
        assert TOKEN not in str(failed.value)
    world.fake.away = None
    server.announce(ONE, TTL_S)
    assert server.servers() == [ONE]
    assert TOKEN not in server.place


def test_another_host_answers_where_one_is_gone(world: World) -> None:
    for _ in range(2):
        registry = world.registry()
        registry.announce(ONE, TTL_S)
        assert registry.servers() == [ONE]
    assert world.connected == ["one", "one", "two"]


def test_a_host_without_the_others_is_left_for_one_of_them(world: World) -> None:
    server = world.registry()
    server.announce(ONE, TTL_S)
    world.fake.leaderless = 1
    assert server.servers() == [ONE]
    assert world.connected == ["one", "two"]


@pytest.mark.parametrize("fields", [{}, {"content-encoding": "gzip"}], ids=["long", "bomb"])
def test_an_answer_without_end_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    monkeypatch.setattr(http_calls, "MAX_ANSWER_BYTES", 8 << 10)
    body = compress(b" " * (1 << 22)) if fields else b" " * (16 << 10)
    client = world.registry()
    world.fake.instead = HttpResponse(200, fields, body)
    with pytest.raises((ClientFailure, BatcherError)):
        client.servers()


def test_whoever_does_not_know_the_secret_gets_nothing(world: World) -> None:
    stranger = world.registry(world.address.replace(TOKEN, "guessed"))
    for call in (stranger.servers, lambda: stranger.announce(ONE, TTL_S)):
        with pytest.raises(ClientFailure) as failed:
            call()
        assert "guessed" not in str(failed.value)


@pytest.mark.parametrize(
    ("address", "library", "extra"),
    [("zk://here", "kazoo", "zookeeper"), ("srv://here.example", "dns", "dns")],
)
def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, address: str, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, name)
    for module in ("zookeeper", "dns_srv"):
        monkeypatch.delitem(sys.modules, f"batcher.client.registries.{module}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"batcher-inference-client\[{extra}\]"):
        registry_of(registry_address(address))
