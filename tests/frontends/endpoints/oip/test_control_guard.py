"""Who may load and unload models where clients may: no foreign page, and no foreign name."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.config.settings import ServerSettings, load_settings
from batcher.errors import ConfigError, Forbidden
from batcher.frontends.endpoints.oip.control_guard import ControlGuard
from tests.frontends.endpoints.conftest import Both
from tests.frontends.endpoints.oip.test_infer import error
from tests.support.http import MemoryServer, ask


def is_accepted(name: str | None, origin: str | None = None, **settings: Any) -> bool:
    """Return whether a request with these header fields may change models."""
    headers = {}
    if name is not None:
        headers[b"host"] = name.encode("latin-1")
    if origin is not None:
        headers[b"origin"] = origin.encode("latin-1")
    try:
        ControlGuard(ServerSettings(**settings)).check(headers)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "127.9.9.9:1",
        "localhost",
        "LOCALHOST:8000",
        "localhost.:8000",
        "models.localhost",
        "[::1]:8080",
        "",
        None,
    ],
)
def test_this_machine_is_accepted_under_each_of_its_names(host: str | None) -> None:
    assert is_accepted(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "notlocalhost",
        "192.0.2.7:8080",
        "[2001:db8::1]",
        "0x7f.1",
        "2130706433",
        "localhost@evil.example",
        "[::1",
        "localhost:port",
    ],
)
def test_a_foreign_name_is_refused(host: str) -> None:
    assert not is_accepted(host)


def test_the_name_and_the_address_that_are_configured_are_accepted() -> None:
    assert is_accepted("192.0.2.7:8080", host="192.0.2.7")
    assert is_accepted("[2001:db8::1]:80", host="2001:db8::1")
    assert is_accepted("Models.Example.com", host="models.example.com")
    assert not is_accepted("192.0.2.8:8080", host="192.0.2.7")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_server_on_all_addresses_takes_every_address_and_no_name(host: str) -> None:
    assert is_accepted("192.0.2.7:8080", host=host)
    assert is_accepted("[2001:db8::1]:8080", host=host)
    assert not is_accepted("evil.example", host=host)


def test_a_name_behind_a_proxy_is_accepted_by_a_setting() -> None:
    names = ["models.example.com", "[2001:db8::7]"]
    assert is_accepted("models.example.com", control_hosts=names)
    assert is_accepted("MODELS.example.com:443", control_hosts=names)
    assert is_accepted("[2001:db8::7]:443", control_hosts=names)
    assert not is_accepted("www.models.example.com", control_hosts=names)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("127.0.0.1:80", "http://127.0.0.1"),
        ("localhost", "https://localhost"),
        ("localhost:443", "https://localhost"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("127.0.0.1:8080", "https://models.example.com"),
        ("models.example.com", "https://models.example.com"),
    ],
)
def test_the_servers_own_pages_and_named_ones_are_accepted(host: str, origin: str) -> None:
    assert is_accepted(host, origin, control_hosts=["models.example.com"])


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:3000",
        "http://localhost",
        "null",
        "",
        "http://",
        "file://",
        "chrome-extension://localhost:8080",
        "http://localhost:8080.evil.example",
        "http://evil.example#localhost:8080",
        "http://[::1",
        "http://localhost:99999",
    ],
)
def test_a_foreign_page_is_refused(origin: str) -> None:
    assert not is_accepted("localhost:8080", origin)


@pytest.mark.parametrize("path", ["index", "models/m/load", "models/m/unload"])
def test_every_control_route_refuses_foreign_names_and_pages(both: Both, path: str) -> None:
    server = MemoryServer(model_control="explicit")
    target = f"/v2/repository/{path}"
    assert "Host" in error(both(server, ask(target, b"{}")), 403)
    server = MemoryServer(model_control="explicit", control_hosts=["batcher.test"])
    foreign = ask(target, b"{}", ("Origin", "http://evil.example"))
    assert "Origin" in error(both(server, foreign), 403)
    assert server.server.find("m").accepts, "nothing was done"


def test_routes_that_change_nothing_take_any_name(both: Both) -> None:
    server = MemoryServer(model_control="explicit")
    assert both(server, ask("/v2/models/m", b"", ("Origin", "http://evil.example"))).status == 200
    assert both(MemoryServer(), ask("/v2/repository/index", b"{}")).status == 200


def test_the_list_of_names_takes_no_urls() -> None:
    url = {"BATCHER_CONTROL_HOSTS": "[https://models.example.com]"}
    with pytest.raises(ConfigError, match="without scheme and port"):
        load_settings(None, url)
    address = {"BATCHER_CONTROL_HOSTS": "['[::1]']"}
    assert load_settings(None, address).control_hosts == ("::1",)
