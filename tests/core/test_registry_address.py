"""Addresses of registries, and what no message shows of them."""

from __future__ import annotations

import pytest

from batcher.core.registry_address import is_registry, registry_address, without_secrets

SECRET = "p@ss:w0rd"
ESCAPED = "p%40ss%3Aw0rd"


@pytest.mark.parametrize(
    ("text", "place", "hosts"),
    [
        ("consul://localhost", "consul://localhost:8500/batcher", 1),
        ("etcd://a:1,b,[::1]:3/models/x", "etcd://a:1,b:2379,[::1]:3/models/x", 3),
        ("zk://a,b/", "zk://a:2181,b:2181/batcher", 2),
        ("directory://h/x?tls=true", "directory://h:8090/x", 1),
        ("srv://_b._tcp.example.com", "srv://_b._tcp.example.com", 0),
        ("srv://x.example?nameserver=[::1]:5353&scheme=https", "srv://x.example", 1),
    ],
)
def test_an_address_says_where_and_what(text: str, place: str, hosts: int) -> None:
    found = registry_address(text)
    assert (found.place, len(found.hosts)) == (place, hosts)
    assert found.has_tls == ("true" in text or "https" in text)


def test_user_and_secret_are_read_and_never_shown() -> None:
    found = registry_address(f"etcd://me:{ESCAPED}@h/x")
    assert (found.user, found.secret) == ("me", SECRET)
    assert repr(found) == f"{found}" == "etcd://h:2379/x"


@pytest.mark.parametrize(
    "text",
    [
        "http://h/x",
        "consul://",
        "consul://h:0",
        "consul://h:99999",
        "consul://h/a/b",
        "consul://h/a b",
        "etcd://h/x?tls=maybe",
        "etcd://h/x?ttl=1",
        "zk://h/x?tls=true",
        "zk://h,,i/x",
        "zk://h/x#y",
        "zk://[::1/x",
        "srv://",
        "srv://a,b",
        "srv://x/y",
        "srv://x?scheme=ftp",
        "srv://x?nameserver=",
        "srv://x?nameserver=a..b",
        "srv://a..b",
        "consul://a..b",
        f"etcd://a,{'b' * 64}",
    ],
)
def test_what_is_no_address_is_refused_without_its_secret(text: str) -> None:
    for each in (text, text.replace("://", f"://me:{SECRET}@")):
        with pytest.raises(ValueError, match="expected one such as consul://") as failed:
            registry_address(each)
        assert "w0rd" not in str(failed.value)


@pytest.mark.parametrize(
    "secret", ["a/w0rd", "a w0rd", "a/b@c w0rd", "?w0rd", "#w0rd", "it's/w0rd"]
)
def test_what_a_secret_should_have_escaped_shows_nothing_of_it(secret: str) -> None:
    address = f"consul://:{secret}@h/x"
    with pytest.raises(ValueError, match="expected one such as consul:") as failed:
        registry_address(address)
    assert "w0rd" not in str(failed.value)
    assert "w0rd" not in without_secrets(f"registry: expected that; got {address!r}, of h")


def test_texts_without_secrets_stay_as_they_are() -> None:
    text = "expected 'redis://me:w0rd@h/0' until then; got 'http://i/0', of a@b"
    shown = text.replace("me:w0rd", "…")
    assert without_secrets(text) == shown


def test_addresses_of_servers_are_not_taken_for_registries() -> None:
    for address in ("http://h", "https://h", "zmq://h:1", "h"):
        assert not is_registry(address)
    assert is_registry("consul://h")
