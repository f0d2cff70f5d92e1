"""Clients with other addresses than IPv4, and clients behind TLS that cannot end one side."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.frontends.web.test_klein_channel import Page, mount
from tests.support.http import ROW, MemoryServer, ask

Serve = Callable[..., MemoryServer]


@pytest.mark.parametrize(
    ("peer", "host", "logged"),
    [
        (("::1", 50007), "::1", "::1:50007"),
        (None, None, "unix"),
        (("192.0.2.7", 50007), "192.0.2.7", "192.0.2.7:50007"),
    ],
)
def test_a_clients_address_is_known_to_the_log_and_to_pages(
    serve: Serve, kind: str, peer: Any, host: str | None, logged: str
) -> None:
    server = serve()
    client = server.connect(kind, peer=peer)
    client.send(ask("/predict", ROW) + ask("/livez"))
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200]
    assert {json.loads(line)["peer"] for line in server.lines} == {logged}
    page = Page(lambda request: repr(getattr(request.getClientAddress(), "host", None)).encode())
    mount(server, page)
    client.send(ask("/any"))
    server.turn()
    assert client.answers[-1].body == repr(host).encode()


class TestTls:
    def test_a_page_knows_that_it_is_secure(self, serve: Serve, kind: str) -> None:
        server = serve()
        mount(server, Page(lambda request: b"%d" % request.isSecure()))
        for secure in (False, True):
            client = server.connect(kind, secure=secure)
            client.send(ask("/any"))
            server.turn()
            assert client.answers[0].body == b"%d" % secure

    def test_an_end_of_file_is_the_end_and_its_requests_are_cancelled(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(defaults={"pipeline_depth": 1})
        first, client = server.connect(kind, secure=True), server.connect(kind, secure=True)
        first.send(ask("/predict", ROW))
        assert server.hand_over() == 1
        client.send(ask("/predict", ROW))
        client.end()
        server.turn()
        assert client.closed
        assert client.received == b""
        server.work()
        assert server.model.sizes() == [1]

    def test_nothing_that_is_still_delivered_while_it_closes_is_begun(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(idle_timeout_s=5)
        client = server.connect(kind, secure=True)
        client.stall()
        client.send(ask("/predict", ROW))
        server.work()
        server.wait(6)
        protocol: Any = client.protocol  # type: ignore[attr-defined]
        deliver = protocol.data_received if kind == "loop" else protocol.dataReceived
        deliver(ask("/predict", ROW))  # as TLS does until the client has said its last word
        server.work()
        client.read()
        server.work()
        assert server.model.sizes() == [1]
        assert [answer.status for answer in client.answers] == [200]
        assert client.closed

    def test_a_refused_client_gets_its_answer_and_is_closed(self, serve: Serve, kind: str) -> None:
        server = serve()
        client = server.connect(kind, secure=True)
        client.send(b"nonsense\r\n\r\n")
        server.turn()
        assert [answer.status for answer in client.answers] == [400]
        assert client.closed
        assert not client.aborted
