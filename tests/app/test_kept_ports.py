"""Ports of gRPC and ZeroMQ that the system chose: each engine of a server has the same ones."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.app.fronts import kept_ports
from batcher.app.fronts.kept_ports import KeptPorts
from batcher.config.settings import ServerSettings
from batcher.errors import ConfigError

NOTHING = ServerSettings()
BOTH = ServerSettings(grpc_port=0, zeromq="tcp://*:0")


class Bound:
    """A socket that is bound to a port; remembers whether it was closed."""

    family = None
    is_open = True

    def __init__(self, port: int) -> None:
        self.port = port

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Bound]]:
    """Return the sockets that were bound, with the host of each; ports count up from 5001."""
    found: list[tuple[str, Bound]] = []

    def bound_sockets(host: str, port: int, reuse_port: bool) -> list[Any]:
        assert (port, reuse_port) == (0, False)
        found.append((host, Bound(5001 + len(found))))
        return [found[-1][1]]

    monkeypatch.setattr(kept_ports, "bound_sockets", bound_sockets)
    return found


def test_every_reading_of_the_settings_has_the_ports_that_were_chosen_once(
    bound: list[tuple[str, Bound]],
) -> None:
    ports = KeptPorts(BOTH)
    for settings in (ports.named_in(BOTH), ports.named_by(lambda: BOTH)()):
        assert (settings.grpc_port, settings.zeromq) == (5001, "tcp://*:5002")
    assert [host for host, _ in bound] == ["127.0.0.1", ""]


@pytest.mark.parametrize(
    ("address", "host"), [("tcp://127.0.0.1:0", "127.0.0.1"), ("tcp://[::1]:0", "::1")]
)
def test_the_port_of_zeromq_is_kept_where_its_address_is(
    address: str, host: str, bound: list[tuple[str, Bound]]
) -> None:
    settings = ServerSettings(zeromq=address)
    assert KeptPorts(settings).named_in(settings).zeromq == f"{address[:-1]}5001"
    assert [each for each, _ in bound] == [host]


@pytest.mark.parametrize(
    "settings",
    [
        NOTHING,
        ServerSettings(grpc_port=8081, zeromq="tcp://127.0.0.1:80"),
        ServerSettings(zeromq="ipc://s:0"),
    ],
    ids=["none", "named", "a path"],
)
def test_other_settings_stay_as_they_are(
    settings: ServerSettings, bound: list[tuple[str, Bound]]
) -> None:
    assert KeptPorts(settings).named_in(settings) == settings
    assert bound == []


def test_a_port_that_is_named_at_a_reload_counts(bound: list[tuple[str, Bound]]) -> None:
    ports = KeptPorts(BOTH)
    named = ServerSettings(grpc_port=8081)
    assert ports.named_in(named) == named


def test_a_host_that_has_no_port_is_left_to_the_engine_which_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_: object) -> list[Any]:
        raise OSError("not ours")

    monkeypatch.setattr(kept_ports, "bound_sockets", none)
    assert KeptPorts(BOTH).named_in(BOTH) == BOTH


def test_settings_that_cannot_be_read_are_an_error_as_ever(
    bound: list[tuple[str, Bound]],
) -> None:
    def read() -> ServerSettings:
        raise ConfigError("config.yaml:1: wrong")

    with pytest.raises(ConfigError, match="wrong"):
        KeptPorts(BOTH).named_by(read)()


def test_a_copy_of_the_process_lets_go_of_the_ports(bound: list[tuple[str, Bound]]) -> None:
    KeptPorts(BOTH).close()
    assert [each.is_open for _, each in bound] == [False, False]
