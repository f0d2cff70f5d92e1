"""The address of a Redis server, and texts in which no password of such an address is left."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator

from batcher.core.registry_address import without_secrets

LOCAL = "local"
"""The store of a server that asks no other."""

REDIS_PORT = 6379

_EXPECTED = (
    "local, or the address of a Redis server such as redis://redis.example:6379/0, or rediss://… "
    "for TLS"
)
_SECRET = re.compile(r"""(['"]secret['"]: )('[^']*'|"[^"]*")""")


class RedisAddress(NamedTuple):
    """Where a Redis server is, and how a client logs in.

    Attributes:
        host: name or address.
        port: TCP port.
        database: number of the database.
        user: name of the user; None for the default user.
        password: None where the server asks for none.
        has_tls: whether the connection is encrypted, and the server's certificate checked.
    """

    host: str
    port: int
    database: int
    user: str | None
    password: str | None
    has_tls: bool

    def __repr__(self) -> str:
        """Return the address without user and password."""
        return self.place

    @property
    def place(self) -> str:
        """The address without user and password, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.has_tls}://{host}:{self.port}/{self.database}"


def redis_address(text: str) -> RedisAddress:
    """Return the address that `text` is. Raises ValueError; the message does not repeat `text`."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        database = re.fullmatch(r"/?(\d{0,4})", parts.path)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    wrong = parts.scheme not in ("redis", "rediss") or parts.query or parts.fragment
    if wrong or not host or port == 0 or database is None:
        raise ValueError(_EXPECTED)
    return RedisAddress(
        host,
        port or REDIS_PORT,
        int(database[1] or 0),
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
        parts.scheme == "rediss",
    )


def _store(value: str) -> str:
    if value != LOCAL:
        redis_address(value)
    return value


StoreAddress = Annotated[str, AfterValidator(_store)]


def without_passwords(text: str) -> str:
    """Return `text` without passwords in addresses and without values of `secret`."""
    return _SECRET.sub(r"\1'…'", without_secrets(text))
