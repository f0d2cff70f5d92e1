"""The routes of a directory: servers announce themselves, and clients ask who is there.

    PUT    /services/{service}/{id}   list a server for `ttl_s` seconds, or list it anew
    DELETE /services/{service}/{id}   list it no more
    GET    /services/{service}        the servers whose time is not over

A directory keeps nothing on disk. One that is started anew has heard of all servers again after a
third of their TTL, and clients keep their lists meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, succeed

from batcher.client.errors import MalformedAnswer
from batcher.client.registries.records import read_record, record_of
from batcher.client.server_address import checked_address
from batcher.codecs.content_coding import plain_body
from batcher.codecs.formats.json_text import from_json
from batcher.core.error_text import brief
from batcher.errors import Forbidden, InvalidInput, Unavailable
from batcher.frontends.endpoints.call import Call, Reply
from batcher.frontends.endpoints.json_reply import json_reply
from batcher.frontends.endpoints.openapi.operations import FLAG, LIVE, object_of, operation_of
from batcher.frontends.endpoints.routing import Route

MAX_SERVERS = 1024
"""Servers of all services together; with `MAX_ENTRY_BYTES`, 16 MiB."""

MAX_ENTRY_BYTES = 16 << 10
"""Bytes of an announcement: the names of some hundred models."""

MAX_TTL_S = 86_400.0

_LISTED = operation_of(object_of(("listed",), listed=FLAG), {400: "No such entry is taken."})
_SERVERS = operation_of(object_of(("servers",), servers={"type": "array"}))


class _Entry(NamedTuple):
    """A server's record, and when its time is over.

    The record is kept as text: as objects, the names of models take seventeen times as much, and
    would be written anew for each client that asks.
    """

    record: bytes
    ends_at: float


class DirectoryRoutes:
    """The servers of a directory, and its routes. Reactor thread."""

    def __init__(self, seconds: Callable[[], float], token: str = "") -> None:
        """List nobody yet; whoever announces or asks has to know `token`, if there is one."""
        self._seconds = seconds
        self._token = token
        self._entries: dict[tuple[str, str], _Entry] = {}

    def routes(self) -> tuple[Route, ...]:
        """Return the routes."""
        service, server = "/services/{service}", "/services/{service}/{id}"
        return (
            Route("GET", service, self.servers, "The servers that are there.", _SERVERS, fast=True),
            Route("PUT", server, self.announce, "List a server.", _LISTED),
            Route("DELETE", server, self.withdraw, "List a server no more.", _LISTED),
            Route("GET", "/livez", self.live, "Whether the process is up.", LIVE, fast=True),
        )

    def servers(self, call: Call) -> Deferred[Reply]:
        """Answer with the servers whose time is not over. Raises Forbidden."""
        self._check_token(call)
        now, wanted = self._seconds(), call.head.arguments["service"]
        found = [
            entry.record
            for (service, _), entry in self._entries.items()
            if service == wanted and entry.ends_at > now
        ]
        body = b'{"servers":[%b]}' % b",".join(found)
        return succeed(Reply(200, b"application/json", body))

    def announce(self, call: Call) -> Deferred[Reply]:
        """List a server. Raises Forbidden, InvalidInput or Unavailable."""
        self._check_token(call)
        key, entry = _key(call), self._entry(bytes(plain_body(call.body)))
        if key not in self._entries and len(self._entries) >= MAX_SERVERS:
            self._forget()
            if len(self._entries) >= MAX_SERVERS:
                raise Unavailable(f"expected at most {MAX_SERVERS} servers; got another one")
        self._entries[key] = entry
        return json_reply({"listed": True})

    def withdraw(self, call: Call) -> Deferred[Reply]:
        """List a server no more. Raises Forbidden."""
        self._check_token(call)
        self._entries.pop(_key(call), None)
        return json_reply({"listed": False})

    def live(self, call: Call) -> Deferred[Reply]:
        """Answer that the process is up."""
        return json_reply({"live": True})

    def _check_token(self, call: Call) -> None:
        given = call.head.header(b"authorization").removeprefix("Bearer ")
        # The bytes as they came: clients send the token in UTF-8.
        if self._token and not compare_digest(given.encode("latin-1"), self._token.encode()):
            raise Forbidden("this directory: expected Authorization: Bearer and its token")

    def _entry(self, body: bytes) -> _Entry:
        """Return the entry of an announcement. Raises InvalidInput."""
        if len(body) > MAX_ENTRY_BYTES:
            raise InvalidInput(f"expected at most {MAX_ENTRY_BYTES} bytes; got {len(body)}")
        try:
            server = read_record(body)
            checked_address(server.address)
        except (MalformedAnswer, ValueError) as err:
            raise InvalidInput(str(err)) from err
        ttl_s: Any = from_json(body).get("ttl_s")
        if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float):
            raise InvalidInput(f"ttl_s: expected a number of seconds; got {brief(ttl_s)}")
        if not 0 < ttl_s <= MAX_TTL_S:
            raise InvalidInput(f"ttl_s: expected up to {MAX_TTL_S:g} s; got {brief(ttl_s)}")
        # A copy: what orjson returns has room for up to forty times as much behind its text.
        record = bytes(memoryview(record_of(server)))
        return _Entry(record, self._seconds() + ttl_s)

    def _forget(self) -> None:
        """Forget the servers whose time is over."""
        now = self._seconds()
        self._entries = {key: each for key, each in self._entries.items() if each.ends_at > now}


def _key(call: Call) -> tuple[str, str]:
    found = call.head.arguments
    return found["service"], found["id"]
