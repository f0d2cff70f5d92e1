"""Addresses of a host that this machine has, and those that it has not, with real sockets.

192.0.2.1 is an address for documentation (RFC 5737), which no machine has.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from batcher.config.settings import ServerSettings
from batcher.frontends.listening.sockets import open_sockets

Opened = Callable[..., list[tuple[str, int]]]
NOBODY = "192.0.2.1"


def resolve_to(*addresses: str) -> Callable[..., list[Any]]:
    """Return what stands for `getaddrinfo`: a row for each of `addresses`."""

    def rows(host: object, port: int, **more: object) -> list[Any]:
        kinds = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET6, *kinds, (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, *kinds, (address, port))
            for address in addresses
        ]

    return rows


@pytest.fixture
def opened() -> Any:
    with ExitStack() as stack:

        def opened(host: str) -> list[tuple[str, int]]:
            found = open_sockets(ServerSettings(host=host, port=0), Path())
            for listener in found:
                stack.callback(listener.close)
            return [listener.getsockname()[:2] for listener in found]

        yield opened


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("addresses", [("127.0.0.1", NOBODY), (NOBODY, "127.0.0.1")])
def test_an_address_that_the_machine_has_not_is_left_out(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, str]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to(*addresses))
    ((host, port),) = opened("localhost")
    assert host == "127.0.0.1"
    assert port > 0


def test_a_host_of_which_the_machine_has_no_address_is_an_error(opened: Opened) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {NOBODY}:0: Cannot assign") as caught:
        opened(NOBODY)
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example.org"])
def test_what_cannot_be_the_name_of_a_host_is_an_error_that_says_so(
    opened: Opened, host: str
) -> None:
    with pytest.raises(OSError, match="labels of 1 to 63 characters"):
        opened(host)


def test_an_address_that_is_taken_is_an_error_though_another_could_be_had(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", resolve_to("127.0.0.1", "127.0.0.2"))
        with pytest.raises(OSError, match="Address already in use"):
            open_sockets(ServerSettings(host="localhost", port=port), Path())
        with socket.create_server(("127.0.0.1", port)):
            pass  # the socket that could be had is closed again


@pytest.mark.skipif(not has_ipv6(), reason="IPv6 is off")
@pytest.mark.parametrize("host", ["::", ""])
def test_all_addresses_are_those_of_both_families_on_one_port(opened: Opened, host: str) -> None:
    addresses = opened(host)
    assert {address for address, _ in addresses} == {"0.0.0.0", "::"}
    assert len({port for _, port in addresses}) == 1


def test_all_addresses_are_those_of_ipv4_where_the_system_knows_no_other(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolve_to("0.0.0.0"))
    ((address, _),) = opened("::")
    assert address == "0.0.0.0"
