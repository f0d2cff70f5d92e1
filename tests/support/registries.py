"""Registries without sockets: fakes of Consul's and etcd's HTTP interfaces, and our directory."""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from twisted.internet.task import Clock

from batcher.app.directory.running import directory_front
from batcher.client.response_reading import HttpResponse
from tests.support.oip_peer import Hang, Lose, Peer, Refuse
from tests.support.transports import connect

TOKEN = "sesame-open"


class Away(Exception):
    """A registry that is away; `Refuse`, `Lose` or `Hang` says how."""


class FakeRegistry(Peer):
    """Answers requests of HTTP on a clock.

    Attributes:
        clock: the registry's time.
        away: how it is away: `Refuse`, `Lose` or `Hang`; None for a registry that is there.
        leaderless: how many of the next requests come to a host that is cut off from the others.
        instead: what is answered instead of what was asked for.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(Hang())
        self.clock = clock
        self.away: type[Exception] | None = None
        self.leaderless = 0
        self.instead: HttpResponse | None = None

    def accept(self) -> None:
        if self.away is Refuse:
            self.refusals += 1
            raise ConnectionRefusedError("refused")
        self.accepted += 1

    def ask(self, path: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        self.seen.append((path, dict(headers), body))
        if self.away is not None:
            raise Lose if self.away is Refuse else self.away
        if self.leaderless:
            self.leaderless -= 1
            return said({"error": "no leader"}, 503)
        if self.instead is not None:
            return self.instead
        return self.answer(self.method, path, headers, body)

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        raise NotImplementedError

    def forget(self) -> None:
        """Lose everything, as by a restart."""
        raise NotImplementedError

    def spoil(self) -> None:
        """List something beside the servers that is none, if this registry takes that."""


def said(document: Any, status: int = 200) -> HttpResponse:
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    return HttpResponse(status, {}, body)


class FakeConsul(FakeRegistry):
    """An agent of Consul with services and TTL checks. It wants `TOKEN`."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.services: dict[str, dict[str, Any]] = {}
        self.passes_until: dict[str, float] = {}

    def forget(self) -> None:
        self.services.clear()
        self.passes_until.clear()

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        if headers.get("x-consul-token") != TOKEN:
            return said("Permission denied", 403)
        path = unquote(path)
        if path == "/v1/agent/service/register":
            service = json.loads(body)
            self.services[service["ID"]] = service
            return said("")
        if found := re.fullmatch("/v1/agent/check/(pass|fail)/service:(.+)", path):
            if found[2] not in self.services:
                return said(f'Unknown check ID "service:{found[2]}"', 404)
            ttl = float(self.services[found[2]]["Check"]["TTL"].removesuffix("s"))
            now = self.clock.seconds()
            self.passes_until[found[2]] = now + ttl if found[1] == "pass" else now
            return said("")
        if found := re.fullmatch("/v1/agent/service/deregister/(.+)", path):
            self.services.pop(found[1], None)
            return said("")
        assert path.startswith("/v1/health/service/"), path
        return said([self._entry(each) for each in self.services.values() if self._passes(each)])

    def spoil(self) -> None:
        for name, meta in (("odd", {"models": "{"}), ("odder", "text")):
            self.services[name] = {"ID": name, "Address": "h", "Port": 1, "Meta": meta}
            self.passes_until[name] = 1e9

    def _passes(self, service: dict[str, Any]) -> bool:
        return self.clock.seconds() < self.passes_until.get(service["ID"], 0)

    def _entry(self, service: dict[str, Any]) -> dict[str, Any]:
        return {"Node": {"Address": "192.0.2.1"}, "Service": service, "Checks": []}


class FakeEtcd(FakeRegistry):
    """The JSON gateway of an etcd with leases, which wants a login."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.forget()

    def forget(self) -> None:
        self.tokens: set[str] = set()
        self.ends: dict[str, tuple[float, float]] = {}  # lease to its TTL and when it ends
        self.keys: dict[str, tuple[str, str]] = {}  # key to its value and its lease

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        asked = json.loads(body)
        if path == "/v3/auth/authenticate":
            if asked != {"name": "me", "password": TOKEN}:
                return said({"error": "authentication failed"}, 400)
            self.tokens.add(f"token-{len(self.seen)}")
            return said({"token": f"token-{len(self.seen)}"})
        if headers.get("authorization") not in self.tokens:
            return said({"error": "etcdserver: invalid auth token", "code": 16}, 401)
        call: Callable[[Any], Any] = getattr(self, path.removeprefix("/v3/").replace("/", "_"))
        return said(call(asked))

    def spoil(self) -> None:
        self.ends["odd"] = (1e9, 1e9)
        for number, value in enumerate(("", "e30=", "W10=", "?")):
            self.keys[f"/batcher/{number}"] = (value, "odd")

    def lease_grant(self, asked: Any) -> Any:
        lease, ttl = str(7587 + len(self.seen)), float(asked["TTL"])
        self.ends[lease] = (ttl, self.clock.seconds() + ttl)
        return {"ID": lease, "TTL": asked["TTL"]}

    def lease_keepalive(self, asked: Any) -> Any:
        lease = asked["ID"]
        if not self._lives(lease):
            return {"result": {"ID": lease}}
        ttl = self.ends[lease][0]
        self.ends[lease] = (ttl, self.clock.seconds() + ttl)
        return {"result": {"ID": lease, "TTL": str(int(ttl))}}

    def lease_revoke(self, asked: Any) -> Any:
        self.ends.pop(asked["ID"], None)
        return {}

    def kv_txn(self, asked: Any) -> Any:
        is_so = all(self._is_so(**compare) for compare in asked["compare"])
        for each in asked.get("success" if is_so else "failure", ()):
            put = each["requestPut"]
            self.keys[b64decode(put["key"]).decode()] = (put["value"], put["lease"])
        return {"succeeded": True} if is_so else {}

    def _is_so(self, key: str, target: str, result: str, value: str = "", lease: str = "") -> bool:
        assert result == "EQUAL"
        found = self.keys.get(b64decode(key).decode(), ("", "0"))
        if not self._lives(found[1]):
            return False
        return found[0] == value if target == "VALUE" else found[1] == lease

    def kv_range(self, asked: Any) -> Any:
        first, end = (b64decode(asked[name]).decode() for name in ("key", "range_end"))
        found = [
            {"key": b64encode(key.encode()).decode(), "value": value}
            for key, (value, lease) in self.keys.items()
            if first <= key < end and self._lives(lease)
        ]
        return {"kvs": found, "count": str(len(found))} if found else {}

    def _lives(self, lease: str) -> bool:
        return lease in self.ends and self.clock.seconds() < self.ends[lease][1]


class RealDirectory(FakeRegistry):
    """Our directory, behind the server's own connections."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.forget()

    def forget(self) -> None:
        self.front = directory_front(self.clock, TOKEN)

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> HttpResponse:
        client = connect("loop", self.front, self.clock)
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.methods = [method]
        client.send(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode() + body)
        self.clock.advance(0)
        (answer,), _ = client.parsed()
        return HttpResponse(answer.status, {}, answer.body)


FAKES: dict[str, tuple[type[FakeRegistry], str]] = {
    "consul": (FakeConsul, f"consul://:{TOKEN}@one,two:8501/batcher"),
    "etcd": (FakeEtcd, f"etcd://me:{TOKEN}@one,two/batcher"),
    "directory": (RealDirectory, f"directory://:{TOKEN}@one,two/batcher"),
}
"""Kind to a registry of that kind, and the address of it."""
