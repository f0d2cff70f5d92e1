"""Other routes and limits while connections are open: they hold from the next request on."""

from __future__ import annotations

from typing import Any

import pytest

from batcher.config.settings import ServerSettings
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.web.klein_app import klein_site
from batcher.frontends.web.limits import Limits
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.transports import Client


def renew(server: MemoryServer, **settings: Any) -> None:
    """Have `server` answer as it would have with `settings`."""
    new = ServerSettings(**settings)
    disclosure = disclosure_of(new, server.clock.seconds)
    table = routes(server.server, server.repository, new, disclosure)
    router = Router(table, server.router.answer_log, disclosure)
    server.front.renew(router, klein_site(router, new.max_body_bytes), Limits.from_settings(new))


def sent(server: MemoryServer, client: Client, request: bytes) -> Answer:
    """Return the answer to one request on an open connection."""
    before = len(client.answers)
    client.send(request)
    server.work()
    (answer,) = client.answers[before:]
    return answer


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def test_limits_hold_for_a_connection_that_is_open(server: MemoryServer) -> None:
    client = server.connect("loop")
    assert sent(server, client, ask(body=ROW * 2)).status == 200
    renew(server, max_body_bytes=16)
    assert sent(server, client, ask(body=ROW)).status == 200
    assert sent(server, client, ask(body=ROW * 2)).status == 413


def test_what_is_asked_again_and_again_finds_the_new_routes_and_settings(
    server: MemoryServer,
) -> None:
    client, request = server.connect("loop"), ask(body=ROW)
    for _ in range(3):
        assert sent(server, client, request).header("server-timing") is None
    renew(server, server_timing=True)
    for _ in range(3):
        assert "compute" in (sent(server, client, request).header("server-timing") or "")
    renew(server)
    assert sent(server, server.connect("loop"), request).header("server-timing") is None


def test_a_route_comes_and_goes_for_a_connection_that_asks_for_it(server: MemoryServer) -> None:
    client, request = server.connect("loop"), ask("/ping")
    assert sent(server, client, request).status == 404
    renew(server, sagemaker=True)
    assert sent(server, client, request).status == 200
    renew(server)
    assert sent(server, client, request).status == 404


def test_a_request_that_has_begun_is_answered(server: MemoryServer) -> None:
    client, request = server.connect("loop"), ask(body=ROW * 2)
    client.send(request)
    client.send(request[:-20])
    server.turn()
    renew(server, max_body_bytes=16, max_pipelined_requests=1)
    client.send(request[-20:])
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200]


def test_idle_time_counts_by_the_new_limit(server: MemoryServer) -> None:
    client = server.connect("loop")
    sent(server, client, ask(body=ROW))
    renew(server, idle_timeout_s=2)
    server.wait(3)
    assert client.closed


def test_fewer_requests_of_one_connection_are_worked_on(server: MemoryServer) -> None:
    client = server.connect("loop")
    sent(server, client, ask(body=ROW))
    renew(server, max_pipelined_requests=2)
    client.send(ask(body=ROW) * 5)
    server.turn()
    assert server.server.find("m").scheduler.pending == 2
    server.work()
    assert [answer.status for answer in client.answers] == [200] * 6
