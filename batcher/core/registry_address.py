"""Addresses of registries, where servers are listed; no text of ours repeats what is secret there.

    consul://[:token@]host[:port][,host…]/service
    etcd://[user:password@]host[:port][,host…]/service
    zk://[user:password@]host[:port][,host…]/path
    directory://[:token@]host[:port][,host…]/service
    srv://_service._tcp.example.com

`?tls=true` has Consul, etcd or a directory asked by TLS. `srv://` takes `?scheme=https` for servers
of TLS, and `?nameserver=host:port` where not the system's name server knows.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from batcher.core.error_text import brief

DEFAULT_SERVICE = "batcher"
DEFAULT_PORTS = {"consul": 8500, "etcd": 2379, "zk": 2181, "directory": 8090, "srv": 53}
"""Kind of registry to the port on which one usually listens."""

_OPTIONS = {"srv": {"scheme", "nameserver"}, "zk": set[str]()}
_TREES = ("etcd", "zk")
"""Kinds in which a service may stand below others, as `/models/batcher`."""

_NAME = re.compile(r"[\w.-]+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?")
_SECRET = re.compile(r"""//([^'"]*|\S*)@""")
"""A user and a password, or a token: to the last @ of an address, since a password may have one.

Where an address is refused, its password may have slashes or blanks, which should have been
escaped. So only quotes, or blanks if there is a quote before, end what is left out.
"""
_EXPECTED = (
    "expected one such as consul://localhost:8500/batcher, etcd://localhost:2379/batcher, "
    "zk://localhost:2181/batcher, directory://localhost:8090/batcher or "
    "srv://_batcher._tcp.example.com"
)


class RegistryAddress(NamedTuple):
    """Where a registry is, and what to ask it for.

    Attributes:
        kind: `consul`, `etcd`, `zk`, `directory` or `srv`.
        hosts: host and port of each of its servers; of `srv`, the name server if it is told.
        service: name under which servers are listed; of `srv`, the name of the record.
        user: name of the user; empty for none.
        secret: token or password; empty for none.
        has_tls: whether it is asked by TLS; of `srv`, whether the listed servers are.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    user: str
    secret: str
    has_tls: bool

    def __repr__(self) -> str:
        """Return the address without user, token and password."""
        return self.place

    @property
    def place(self) -> str:
        """The address without user, token and password, for messages."""
        if self.kind == "srv":
            return f"srv://{self.service}"
        hosts = ",".join([f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in self.hosts])
        return f"{self.kind}://{hosts}/{self.service}"


def is_registry(address: str) -> bool:
    """Return whether `address` is meant as that of a registry."""
    return address.partition("://")[0] in DEFAULT_PORTS


def without_secrets(text: str) -> str:
    """Return `text` without the users, tokens and passwords of addresses in it."""
    return _SECRET.sub("//…@", text)


def registry_address(text: str) -> RegistryAddress:
    """Return the address that `text` is.

    Raises:
        ValueError: it is none; the message does not repeat what may be secret.
    """
    try:
        parts = urlsplit(text)
        found = _of_name(parts) if parts.scheme == "srv" else _of_hosts(parts)
    except (LookupError, ValueError):
        found = None
    if found is None or any(character <= " " for character in text):
        raise ValueError(f"{_EXPECTED}; got {brief(without_secrets(text), 200)}")
    return found


def _of_hosts(parts: SplitResult) -> RegistryAddress | None:
    options = _options(parts)
    login, _, places = parts.netloc.rpartition("@")
    user, _, secret = login.partition(":")
    hosts = [_host(place, DEFAULT_PORTS[parts.scheme]) for place in places.split(",")]
    service = parts.path.strip("/") or DEFAULT_SERVICE
    names = service.split("/")
    is_name = all(map(_NAME.fullmatch, names)) and (parts.scheme in _TREES or len(names) == 1)
    if not is_name or options.get("tls", "true") not in ("true", "false"):
        return None
    has_tls = options.get("tls") == "true"
    known = unquote(user), unquote(secret)
    return RegistryAddress(parts.scheme, tuple(hosts), service, *known, has_tls)


def _of_name(parts: SplitResult) -> RegistryAddress | None:
    options = _options(parts)
    nameserver = options.get("nameserver")
    hosts = () if nameserver is None else (_host(nameserver, DEFAULT_PORTS["srv"]),)
    scheme = options.get("scheme", "http")
    is_name = _NAME.fullmatch(parts.netloc) and parts.path in ("", "/")
    if not is_name or scheme not in ("http", "https"):
        return None
    name = _resolvable(parts.netloc)
    return RegistryAddress("srv", hosts, name, "", "", scheme == "https")


def _options(parts: SplitResult) -> dict[str, str]:
    found = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    if parts.fragment or not found.keys() <= _OPTIONS.get(parts.scheme, {"tls"}):
        raise ValueError
    return found


def _host(place: str, default: int) -> tuple[str, int]:
    found = _HOST.fullmatch(place)
    port = int(found[2] or default) if found else 0
    if found is None or not 0 < port < 65_536:
        raise ValueError
    return _resolvable(found[1].strip("[]")), port


def _resolvable(host: str) -> str:
    """Return `host`; raises ValueError for one such as `a..b`, which no resolver would take."""
    host.encode("idna")  # UnicodeError is a ValueError
    return host
