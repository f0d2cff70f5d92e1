"""Consul, by the HTTP interface of its agent.

A server is a service of the agent with a TTL check: passing while the server says so, critical once
the TTL is over without a word. Names of models are kept with the service where they fit.

Sources: Consul's pages on `/agent/service/register`, `/agent/check/pass` and `/health/service`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from batcher.client.errors import InferenceFailed
from batcher.client.listed_server import ListedServer
from batcher.client.registries.http_calls import HttpCalls
from batcher.client.registries.records import readable
from batcher.client.registries.registry import PERIOD_S
from batcher.client.server_address import checked_address
from batcher.codecs.formats.json_text import from_json, to_json
from batcher.core.registry_address import RegistryAddress

_MAX_META_CHARACTERS = 512
"""Longest value that Consul keeps with a service."""

_FORGOTTEN = "1m"
"""When Consul drops a service whose check is critical; it takes no shorter time."""


class Consul:
    """A service in Consul. The contract is that of `Registry`."""

    period_s = PERIOD_S

    def __init__(self, address: RegistryAddress) -> None:
        """Ask the agent at `address`, with its token if it has one."""
        self.place = address.place
        self._service = address.service
        token = address.secret or address.user
        self._http = HttpCalls(address, {"x-consul-token": token} if token else {})
        self._registered: tuple[ListedServer, float] | None = None
        self._id = ""

    def servers(self) -> list[ListedServer]:
        """Return the services whose checks pass."""
        path = f"/v1/health/service/{quote(self._service, safe='')}?passing=true"
        return readable(self._http.ask("GET", path), _server)

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        """Register the service if the agent does not have it, and tell its health."""
        if self._registered != (server, ttl_s):
            self._register(server, ttl_s)
        try:
            self._tell(server)
        except InferenceFailed:  # the agent has forgotten it
            self._register(server, ttl_s)
            self._tell(server)

    def withdraw(self) -> None:
        """Take the service out of the agent."""
        if self._id:
            self._registered = None
            self._http.ask("PUT", f"/v1/agent/service/deregister/{quote(self._id, safe='')}")

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def _register(self, server: ListedServer, ttl_s: float) -> None:
        where = checked_address(server.address)
        self._id = f"{self._service}-{where.host}-{where.port}"
        models = to_json(sorted(server.models)).decode()
        meta = {"scheme": urlsplit(server.address).scheme, "path": where.prefix}
        if len(models) <= _MAX_META_CHARACTERS:
            meta["models"] = models
        service = {
            "ID": self._id,
            "Name": self._service,
            "Address": where.host,
            "Port": where.port,
            "Meta": meta,
            "Weights": {"Passing": max(round(server.weight), 1), "Warning": 1},
            "Check": {"TTL": f"{ttl_s:g}s", "DeregisterCriticalServiceAfter": _FORGOTTEN},
        }
        self._http.ask("PUT", "/v1/agent/service/register", service)
        self._registered = (server, ttl_s)

    def _tell(self, server: ListedServer) -> None:
        health = "pass" if server.weight else "fail"
        self._http.ask("PUT", f"/v1/agent/check/{health}/service:{quote(self._id, safe='')}")


def _server(entry: dict[str, Any]) -> ListedServer:
    service = entry["Service"]
    host, meta = service["Address"] or entry["Node"]["Address"], service["Meta"] or {}
    name = f"[{host}]" if ":" in host else host
    path = f"{service['Port']}{meta.get('path', '')}"
    address = f"{meta.get('scheme', 'http')}://{name}:{path}"
    weight = (service.get("Weights") or {}).get("Passing", 1)
    return ListedServer(address, float(weight), frozenset(from_json(meta.get("models", "[]"))))
