"""One of several servers, as a list names it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MAX_SERVERS = 4096
"""Most servers of a list that a client follows: whoever fills a registry fills no client."""


class ListedServer(NamedTuple):
    """One of several servers.

    Attributes:
        address: where the server is, as `http://host:8080`.
        weight: its part of the calls, beside the weights of the others; 0 for none.
        models: names of the models that it has; empty where the list does not tell.
    """

    address: str
    weight: float = 1.0
    models: frozenset[str] = frozenset()


def listed(addresses: Iterable[str]) -> list[ListedServer]:
    """Return servers of equal weight."""
    return [ListedServer(address) for address in addresses]
