"""Names of DNS: which records count, for how long, and what a client makes of them."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest
from twisted.internet.task import Clock

from batcher.client import balancer
from batcher.client.attempts import checked_options
from batcher.client.balancer import Balancer
from batcher.client.listed_server import ListedServer
from batcher.client.registries.registry import Source, source_of
from batcher.core.registry_address import registry_address

pytest.importorskip("dns", reason="extra dns")
import dns.message
import dns.resolver
import dns.rrset

NAME = "_batcher._tcp.example.com"


class Zone:
    """Records that a name server would give."""

    def __init__(self, ttl: int, *records: str) -> None:
        self.ttl, self.records = ttl, records
        self.numbers: dict[str, str] = {}
        self.other_name = 0  # time to live of a CNAME that leads to the records
        self.asked: list[Any] = []

    def resolve(self, resolver: Any, name: str, kind: str, **options: Any) -> Any:
        self.asked.append((list(resolver.nameservers), resolver.port, options["lifetime"]))
        response = dns.message.make_response(dns.message.make_query(name, kind))
        at = f"{name}."
        if self.other_name:
            at = f"other.{name}."
            alias = dns.rrset.from_text(f"{name}.", self.other_name, "IN", "CNAME", at)
            response.answer.append(alias)
        response.answer.append(dns.rrset.from_text(at, self.ttl, "IN", kind, *self.records))
        for host, number in self.numbers.items():
            family = "AAAA" if ":" in number else "A"
            response.additional.append(dns.rrset.from_text(host, self.ttl, "IN", family, number))
        response = dns.message.from_wire(response.to_wire())
        return dns.resolver.Answer(
            dns.name.from_text(name), dns.rdatatype.SRV, dns.rdataclass.IN, response
        )


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Zone:
    found = Zone(30, "0 0 8080 a.example.")
    monkeypatch.setattr(dns.resolver.Resolver, "resolve", lambda *a, **b: found.resolve(*a, **b))
    return found


def registry(rest: str = "?nameserver=192.0.2.53:5353") -> Source:
    return source_of(registry_address(f"srv://{NAME}{rest}"))


def test_records_of_the_lowest_priority_count_by_their_weights(zone: Zone) -> None:
    zone.records = ("1 3 8080 a.example.", "1 0 8081 b.example.", "2 9 8082 c.example.")
    assert sorted(registry().servers()) == [
        ListedServer("http://a.example:8080", 3.0),
        ListedServer("http://b.example:8081", 0.1),
    ]
    assert zone.asked == [(["192.0.2.53"], 5353, 3.0)]


@pytest.mark.parametrize(
    ("number", "host"), [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]")]
)
def test_addresses_that_come_with_the_names_are_taken_but_not_for_tls(
    zone: Zone, number: str, host: str
) -> None:
    zone.numbers = {"a.example.": number}
    assert registry().servers()[0].address == f"http://{host}:8080"
    secure = registry("?scheme=https&nameserver=192.0.2.53")
    assert secure.servers()[0].address == "https://a.example:8080"


@pytest.mark.parametrize(("ttl", "period"), [(30, 30.0), (0, 1.0)])
def test_a_name_is_asked_for_again_when_its_time_is_over(
    zone: Zone, ttl: int, period: float
) -> None:
    zone.ttl = ttl
    found = registry()
    found.servers()
    assert found.period_s == period


def test_a_name_that_leads_to_another_is_asked_for_again_when_it_may_lead_elsewhere(
    zone: Zone,
) -> None:
    zone.ttl, zone.other_name = 3600, 7
    found = registry()
    assert found.servers() == [ListedServer("http://a.example:8080", 0.1)]
    assert found.period_s == 7.0


def test_a_name_server_may_have_a_name(zone: Zone) -> None:
    registry("?nameserver=localhost:5353").servers()
    ((numbers,), port, _) = zone.asked[0]
    assert (ip_address(numbers).is_loopback, port) == (True, 5353)


def test_a_client_follows_a_changed_record_and_spreads_its_calls(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer, "start_daemon", lambda job: job())
    clock = Clock()

    class Calls:
        options = checked_options("http://x", 1, 0)

        def close(self) -> None:
            pass

    servers = Balancer(registry(), lambda _: Calls(), lambda _: True, seconds=clock.seconds)

    def asked(calls: int) -> Counter[str]:
        found: Counter[str] = Counter()
        for _ in range(calls):
            upstream = servers.take("m", ())
            servers.give_back(upstream, None)
            found[upstream.server.address] += 1
        return found

    zone.records = tuple(f"0 10 80{number} a.example." for number in range(10, 14))
    servers.wait(lambda: None)
    spread = asked(20_000)
    assert len(spread) == 4
    assert max(spread.values()) <= 1.1 * min(spread.values())
    zone.records = ("0 10 9090 b.example.",)
    clock.advance(zone.ttl)
    asked(1)
    assert set(asked(50)) == {"http://b.example:9090"}
