"""A directory of ours (`batcher directory`), by HTTP."""

from __future__ import annotations

from urllib.parse import quote

from batcher.client.listed_server import ListedServer
from batcher.client.registries.http_calls import HttpCalls
from batcher.client.registries.records import id_of, members_of, readable, server_of
from batcher.client.registries.registry import PERIOD_S
from batcher.core.registry_address import RegistryAddress


class Directory:
    """A service in a directory. The contract is that of `Registry`."""

    period_s = PERIOD_S

    def __init__(self, address: RegistryAddress) -> None:
        """Ask the directory at `address`, with its token if it has one."""
        self.place = address.place
        self._path = f"/services/{quote(address.service, safe='')}"
        token = address.secret or address.user
        self._http = HttpCalls(address, {"authorization": f"Bearer {token}"} if token else {})
        self._id = ""

    def servers(self) -> list[ListedServer]:
        """Return the servers whose time is not over."""
        return readable(self._http.ask("GET", self._path)["servers"], server_of)

    def announce(self, server: ListedServer, ttl_s: float) -> None:
        """Put the entry anew."""
        self._id = quote(id_of(server), safe="")
        entry = {**members_of(server), "ttl_s": ttl_s}
        self._http.ask("PUT", f"{self._path}/{self._id}", entry)

    def withdraw(self) -> None:
        """Take the entry out."""
        if self._id:
            self._http.ask("DELETE", f"{self._path}/{self._id}")

    def close(self) -> None:
        """End the connections."""
        self._http.close()
