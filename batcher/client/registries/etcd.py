"""etcd, by the JSON gateway of its version 3: a key for each server, with a lease.

No library: etcd has no client for Python that is looked after, and these are six calls.

Source: etcd's page "Why gRPC gateway"; keys and values are in base64 there, numbers are texts.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from math import ceil
from typing import Any

from batcher.client.errors import InferenceFailed
from batcher.client.listed_server import ListedServer
from batcher.client.registries.http_calls import HttpCalls
from batcher.client.registries.records import id_of, read_record, readable, record_of
from batcher.client.registries.registry import PERIOD_S
from batcher.core.registry_address import RegistryAddress

_LOGGED_OUT = (400, 401)
"""What etcd answers to a token that it does not know any more, as after its own restart."""


class Etcd:
    """Keys below `/service/` in etcd. The contract is that of `Registry`."""

    period_s = PERIOD_S

    def __init__(self, address: RegistryAddress) -> None:
        """Ask the servers at `address`, logged in if it has a user."""
        self.place = address.place
        self._prefix = f"/{address.service}/"
        self._login = {"name": address.user, "password": address.secret} if address.user else None
        self._http = HttpCalls(address, {})
        self._token = ""
        self._lease = ""

    def servers(self) -> list[ListedServer]:
        """Return the servers below the service's name."""
        end = self._prefix[:-1] + "0"  # the character after the slash
        found = self._ask("kv/range", {"key": _coded(self._prefix), "range_end": _coded(end)})
        return readable(found.get("kvs", []), lambda each: read_record(b64decode(each["value"])))

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        """Keep the lease, or take another one, and put the key if it is not there as it should be.

        It may be gone, or of another lease, whoever did that. A put that changes nothing would be
        one more revision in etcd's history.
        """
        if not self._keeps_lease():
            self._lease = self._ask("lease/grant", {"TTL": str(ceil(ttl_s))})["ID"]
        key = {"key": _coded(self._prefix + id_of(server))}
        value = {"value": b64encode(record_of(server)).decode()}
        lease = {"lease": self._lease}
        as_it_should_be = [
            {**key, **value, "target": "VALUE", "result": "EQUAL"},
            {**key, **lease, "target": "LEASE", "result": "EQUAL"},
        ]
        put = {"requestPut": {**key, **value, **lease}}
        self._ask("kv/txn", {"compare": as_it_should_be, "failure": [put]})

    def withdraw(self) -> None:
        """Give the lease back, and with it the key."""
        if self._lease:
            lease, self._lease = self._lease, ""
            self._ask("lease/revoke", {"ID": lease})

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def _keeps_lease(self) -> bool:
        if not self._lease:
            return False
        answer = self._ask("lease/keepalive", {"ID": self._lease})
        return int(answer["result"].get("TTL", 0)) > 0

    def _ask(self, call: str, document: Mapping[str, object]) -> Any:
        if self._login is not None and not self._token:
            self._token = self._http.ask("POST", "/v3/auth/authenticate", self._login)["token"]
        try:
            return self._post(call, document)
        except InferenceFailed as err:
            if self._login is None or err.status not in _LOGGED_OUT:
                raise
            self._token = self._http.ask("POST", "/v3/auth/authenticate", self._login)["token"]
            return self._post(call, document)

    def _post(self, call: str, document: Mapping[str, object]) -> Any:
        headers = {"authorization": self._token} if self._token else {}
        return self._http.ask("POST", f"/v3/{call}", document, headers)


def _coded(text: str) -> str:
    return b64encode(text.encode()).decode()
