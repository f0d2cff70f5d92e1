"""What a kind of hostile client is: a name, and how the client does its worst once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

LIMIT = 64 << 20
"""Bytes of the largest body that a server takes by default (`max_body_bytes`)."""


class Target(NamedTuple):
    """Where a hostile client goes.

    Attributes:
        host: of both ports.
        port: of HTTP.
        grpc_port: of gRPC.
    """

    host: str
    port: int
    grpc_port: int

    @property
    def grpc(self) -> str:
        """`host:port` of gRPC."""
        return f"{self.host}:{self.grpc_port}"


Attack = Callable[[Target], str]
"""Does the worst once, and returns in a word what came of it: mostly the status of the answer."""


class Kind(NamedTuple):
    """A kind of hostile client.

    Attributes:
        name: what `--kinds` is matched with.
        prepare: makes the attack, bodies included. It runs before anything is measured.
        clients: how many clients attack at a time.
    """

    name: str
    prepare: Callable[[], Attack]
    clients: int = 1


def repeated(
    head: bytes, unit: bytes, tail: bytes, separator: bytes = b",", limit: int = LIMIT
) -> bytes:
    """Return `head`, as many `unit`s as fit into `limit` bytes, each apart, and `tail`."""
    room = limit - len(head) - len(tail) + len(separator)
    units = (unit + separator) * (room // (len(unit) + len(separator)))
    return head + units[: len(units) - len(separator)] + tail
