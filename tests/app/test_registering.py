"""A server's entry in a registry, on a clock; what threads would do is done when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher.app import registering
from batcher.app.registering import (
    WITHDRAW_LIMIT_S,
    Registering,
    State,
    advertised,
    listing_of,
)
from batcher.client.listed_server import ListedServer
from batcher.config.settings import load_settings
from batcher.core.registry_address import registry_address
from batcher.errors import ConfigError
from tests.serving.repository.test_repository import write
from tests.support.service import MemoryService

TTL_S = 9.0


class Registry:
    """A registry that notes what it is told."""

    place = "consul://here"
    period_s = 1.0

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.failure: Exception | None = None

    def servers(self) -> list[ListedServer]:
        return []

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append((server.address, server.weight, sorted(server.models), ttl_s))

    def withdraw(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append("withdrawn")

    def close(self) -> None:
        self.told.append("closed")


class World:
    """An entry, its registry, and the jobs of threads that have not run."""

    def __init__(self) -> None:
        self.registry, self.clock = Registry(), Clock()
        self.jobs: list[Callable[[], object]] = []
        self.state = State(100.0, frozenset({"m"}))
        self.entry = Registering(
            self.registry,
            lambda port: port,
            lambda: self.state,
            TTL_S,
            self.clock,
            lambda function, *arguments: function(*arguments),
        )

    def start(self, job: Callable[[], object], name: str) -> None:
        self.jobs.append(job)

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(registering, "start_daemon", found.start)
    found.entry.begin("http://h:1")
    return found


def test_a_server_is_announced_three_times_within_its_ttl_as_it_is_then(world: World) -> None:
    world.work()
    world.state = State(0.0, frozenset())
    for _ in range(2):
        world.clock.advance(TTL_S / 3)
        world.work()
    assert world.registry.told == [
        ("http://h:1", 100.0, ["m"], TTL_S),
        ("http://h:1", 0.0, [], TTL_S),
        ("http://h:1", 0.0, [], TTL_S),
    ]


def test_a_registry_that_is_away_is_one_line_and_gets_one_call_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    class Log:
        def info(self, text: str, **values: object) -> None:
            lines.append(text.format(**values))

        warn = info

    monkeypatch.setattr(registering, "_log", Log())
    world.registry.failure = OSError("down: consul://:sesame@here")
    for _ in range(3):
        world.work()
        world.clock.advance(TTL_S / 3)
    world.clock.advance(TTL_S)  # the registry is silent: nobody asks again meanwhile
    assert len(world.jobs) == 1
    world.registry.failure = None
    world.work()
    world.clock.advance(TTL_S / 3)
    world.work()
    assert lines == [
        "not listed in consul://here: down: consul://…@here",
        "listed in consul://here as http://h:1",
    ]


def test_at_its_end_a_server_is_withdrawn_and_says_nothing_more(world: World) -> None:
    world.work()
    ended = [world.entry.end(), world.entry.end()]
    assert not any(each.called for each in ended)
    world.work()
    assert all(each.called for each in ended)
    assert world.entry.end().called
    assert world.registry.told[1:] == ["withdrawn", "closed"]
    assert not world.clock.getDelayedCalls()


def test_an_announcement_under_way_comes_before_the_withdrawal(world: World) -> None:
    world.work()
    world.clock.advance(TTL_S / 3)
    ended = world.entry.end()
    world.work()
    assert ended.called
    assert world.registry.told[-2:] == ["withdrawn", "closed"]


def test_a_registry_that_is_silent_holds_the_end_up_for_a_second(world: World) -> None:
    world.work()
    ended = world.entry.end()
    world.clock.advance(WITHDRAW_LIMIT_S)
    assert ended.called
    world.work()
    assert not world.clock.getDelayedCalls()


def test_a_server_that_is_not_listed_ends_at_once(world: World) -> None:
    world.registry.failure = OSError("down")
    world.work()
    assert world.entry.end().called
    world.work()
    assert world.registry.told == ["closed"]


def test_a_system_without_threads_is_a_registry_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: object, name: str) -> None:
        raise RuntimeError("can't start new thread")

    world.work()
    monkeypatch.setattr(registering, "start_daemon", refuse)
    world.clock.advance(TTL_S / 3)
    assert world.entry.end().called


def test_a_service_is_listed_once_it_is_ready_and_withdrawn_before_its_ports_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry()
    monkeypatch.setattr(registering, "registry_of", lambda _: registry)
    monkeypatch.setattr(registering, "start_daemon", lambda job, name: job())
    write(tmp_path / "models/m/1", "2")
    service = MemoryService(
        tmp_path, "registry: consul://here\nadvertise: http://10.0.0.7:80\ndrain_timeout_s: 10\n"
    )
    assert registry.told == []
    service.start()
    service.loop.clock.advance(0)
    ((address, weight, models, ttl_s),) = registry.told
    assert (address, weight, models, ttl_s) == ("http://10.0.0.7:80", 100.0, ["m"], 10.0)
    closed: list[int] = []
    withdraw = registry.withdraw

    def withdrawn() -> None:
        closed.append(service.ports.closed)
        withdraw()

    monkeypatch.setattr(registry, "withdraw", withdrawn)
    stopped: Deferred[None] = service.service.stopService()
    service.wait(stopped)
    assert closed == [0]
    assert registry.told[1:] == ["withdrawn", "closed"]


def test_a_server_without_a_registry_asks_nobody(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("port: 8080\n")
    server: Any = None
    entry = listing_of(load_settings(tmp_path / "config.yaml", {}), server, lambda *_: None)
    entry.begin("http://h:1")
    assert entry.end().called


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("http://10.0.0.7:8080", "http://10.0.0.7:8080"),
        ("https://0.0.0.0:8443", "https://127.0.0.1:8443"),
        ("http://[::]:8080", "http://127.0.0.1:8080"),
        ("unix:/run/b.sock and http://127.0.0.1:80 and http://[::1]:80", "http://127.0.0.1:80"),
        ("http://10.0.0.7:80 and grpc://10.0.0.7:81 and tcp://10.0.0.7:82", "http://10.0.0.7:80"),
    ],
)
def test_a_server_that_listens_on_all_addresses_is_listed_by_one(port: str, expected: str) -> None:
    registry = registry_address("consul://127.0.0.1/batcher")
    assert advertised(load_settings(None, {}), registry, port) == expected


@pytest.mark.parametrize(
    "port", ["unix:/run/batcher.sock", "http://127.0.0.1:80", "http://[::1]:80"]
)
def test_a_server_that_others_do_not_reach_is_not_listed_for_them(port: str) -> None:
    elsewhere = registry_address("etcd://127.0.0.1,10.0.0.9/batcher")
    both = f"{port} and http://10.0.0.7:80"
    assert advertised(load_settings(None, {}), elsewhere, both) == "http://10.0.0.7:80"
    with pytest.raises(ConfigError, match="advertise, host: expected an address that clients"):
        advertised(load_settings(None, {}), elsewhere, port)
