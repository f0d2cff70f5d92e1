"""A server as registries without a form of their own keep it: a small JSON object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

from batcher.client.errors import MalformedAnswer
from batcher.client.listed_server import ListedServer
from batcher.codecs.formats.json_text import from_json, to_json
from batcher.errors import BatcherError

Entry = TypeVar("Entry")


def members_of(server: ListedServer) -> dict[str, object]:
    """Return the members of a server's record."""
    models = sorted(server.models)
    return {"address": server.address, "weight": server.weight, "models": models}


def record_of(server: ListedServer) -> bytes:
    """Return the record of a server."""
    return to_json(members_of(server))


def readable(entries: Iterable[Entry], read: Callable[[Entry], ListedServer]) -> list[ListedServer]:
    """Return the servers of `entries`, as `read` reads them.

    Entries that cannot be read are left out: one that somebody else has put there must not hide
    all others.
    """
    found = []
    for entry in entries:
        with suppress(
            BatcherError, MalformedAnswer, AttributeError, LookupError, TypeError, ValueError
        ):
            found.append(read(entry))
    return found


def read_record(record: bytes) -> ListedServer:
    """Return the server of a record.

    Raises:
        MalformedAnswer: the record is another one.
    """
    try:
        return server_of(from_json(record))
    except (BatcherError, LookupError, TypeError, ValueError) as err:
        raise MalformedAnswer(f"expected a server's record; got {record!r:.80}") from err


def server_of(found: dict[str, object]) -> ListedServer:
    """Return the server of a record's members. Raises LookupError, TypeError or ValueError."""
    address, weight = found["address"], found.get("weight", 1.0)
    models = found.get("models", [])
    if not isinstance(address, str):
        raise ValueError(f"address: expected a text; got {address!r:.80}")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
        raise ValueError(f"weight: expected 0 or more; got {weight!r:.80}")
    if not isinstance(models, list) or not all(isinstance(each, str) for each in models):
        raise ValueError(f"expected names of models; got {models!r:.80}")
    return ListedServer(address, float(weight), frozenset(models))


def id_of(server: ListedServer) -> str:
    """Return the name of a server within its service: host and port."""
    return urlsplit(server.address).netloc
