"""What a registry is, and which one an address names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from batcher.client.listed_server import ListedServer
from batcher.core.registry_address import RegistryAddress

PERIOD_S = 1.0
"""Seconds between two questions of a client that has calls: a server that is new, or is gone, is
known about as fast as a probe would find out.
"""

_CLASSES = {
    "consul": ("consul", "Consul"),
    "directory": ("directory", "Directory"),
    "etcd": ("etcd", "Etcd"),
    "srv": ("dns_srv", "DnsSrv"),
    "zk": ("zookeeper", "ZooKeeper"),
}
_EXTRAS = {"dns": ("srv://", "dns"), "kazoo": ("zk://", "zookeeper")}
"""Top-level module of a library to the addresses that need it, and to its extra."""


class Source(Protocol):
    """Where the list comes from. The methods run on a thread of the client's, one at a time.

    A system without threads lets `close` run in a thread of the caller's.

    Attributes:
        place: where that is, in words, without anything secret.
        period_s: seconds for which a list is as good as new.
    """

    place: str
    period_s: float

    def servers(self) -> Sequence[ListedServer]:
        """Return the servers. Whatever it raises means that the list is not known."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Registry(Source, Protocol):
    """A registry in which servers announce themselves.

    Its methods run on one thread at a time, and raise whatever went wrong.
    """

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        """List `server`, or list it anew, for so many seconds. A weight of 0 is not ready."""
        ...

    def withdraw(self) -> None:
        """List the server that was announced no more."""
        ...


def registry_of(address: RegistryAddress) -> Registry:
    """Return the registry at `address`, which is none of DNS; nobody is asked yet.

    Raises:
        ModuleNotFoundError: an extra is missing; the text says which.
    """
    return cast(Registry, source_of(address))


def source_of(address: RegistryAddress) -> Source:
    """Return what lists the servers at `address`; nobody is asked yet.

    Raises:
        ModuleNotFoundError: an extra is missing; the text says which.
    """
    module, name = _CLASSES[address.kind]
    try:
        made: Callable[[RegistryAddress], Any] = getattr(
            import_module(f"batcher.client.registries.{module}"), name
        )
    except ModuleNotFoundError as err:
        library = (err.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        what, extra = _EXTRAS[library]
        raise ModuleNotFoundError(
            f"{what}: expected the extra `{extra}` (pip install 'batcher-inference[{extra}]', or "
            f"'batcher-inference-client[{extra}]'); got no {library}",
            name=err.name,
        ) from err
    source: Source = made(address)
    return source
