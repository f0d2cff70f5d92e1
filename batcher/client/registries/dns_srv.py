"""Names of DNS: SRV records list hosts and ports, with weights.

dnspython rather than twisted.names: the blocking form and the asyncio form know no Twisted. Of the
records those with the lowest priority count (RFC 2782). The name is asked for again after the
shortest time to live of the records and of the names that led to them. The servers that announce
themselves do so elsewhere: a zone belongs to whoever keeps it.
"""

from __future__ import annotations

from socket import SOCK_DGRAM, getaddrinfo
from typing import Any

import dns.rdatatype
import dns.resolver

from batcher.client.listed_server import ListedServer
from batcher.client.registries.registry import PERIOD_S
from batcher.core.registry_address import RegistryAddress

_TIMEOUT_S = 3.0
_LEAST_WEIGHT = 0.1
"""Weight of a record that has 0: such ones get a small part, or the same part if all have 0."""


class DnsSrv:
    """The servers that SRV records name. The contract is that of `Source`."""

    def __init__(self, address: RegistryAddress) -> None:
        """Ask for the name at `address`, at its name server or at the system's."""
        self.place = address.place
        self.period_s = PERIOD_S
        self._name = address.service
        self._scheme = "https" if address.has_tls else "http"
        self._nameserver = address.hosts[0] if address.hosts else None

    def servers(self) -> list[ListedServer]:
        """Return the servers of the lowest priority."""
        answer = self._resolver().resolve(self._name, "SRV", lifetime=_TIMEOUT_S, search=False)
        self.period_s = max(float(answer.chaining_result.minimum_ttl), PERIOD_S)
        first = min([record.priority for record in answer])
        hosts = _numbers(answer.response) if self._scheme == "http" else {}
        return [
            ListedServer(
                f"{self._scheme}://{hosts.get(record.target) or _host(record)}:{record.port}",
                float(record.weight or _LEAST_WEIGHT),
            )
            for record in answer
            if record.priority == first
        ]

    def close(self) -> None:
        """Do nothing: no connection is kept."""

    def _resolver(self) -> Any:
        resolver: Any = dns.resolver.Resolver(configure=self._nameserver is None)
        if self._nameserver is not None:
            host, resolver.port = self._nameserver
            resolver.nameservers = [getaddrinfo(host, resolver.port, type=SOCK_DGRAM)[0][4][0]]
        return resolver


def _host(record: Any) -> str:
    text: str = record.target.to_text(omit_final_dot=True)
    return text


def _numbers(response: Any) -> dict[Any, str]:
    """Return the addresses that a name server tells besides, by the names of their hosts.

    Where they are told the names need not be known to the system, as those of Consul are not.
    """
    found: dict[Any, str] = {}
    for records in response.additional:
        if records.rdtype == dns.rdatatype.A:
            found[records.name] = records[0].address
        elif records.rdtype == dns.rdatatype.AAAA:
            found.setdefault(records.name, f"[{records[0].address}]")
    return found
