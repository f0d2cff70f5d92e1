"""Pages of Klein over the fast connection, as a plain twisted.web server would send them."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import Client

Serve = Callable[..., MemoryServer]


class Page(Resource):
    """Answers with whatever `render_with` does; remembers its requests."""

    isLeaf = True

    def __init__(self, render_with: Callable[[Any], object]) -> None:
        super().__init__()
        self.requests: list[Any] = []
        self._render_with = render_with

    def render(self, request: Any) -> Any:
        self.requests.append(request)
        return self._render_with(request)


def mount(server: MemoryServer, resource: Resource) -> None:
    """Let `server` answer everything but inference from `resource`."""
    server.front.site = Site(resource, reactor=server.clock)
    server.front.site.displayTracebacks = False


def in_pieces(request: Any) -> int:
    for piece in (b"one ", b"two ", b"three"):
        request.write(piece)
    request.finish()
    return NOT_DONE_YET


@pytest.mark.parametrize(
    ("target", "content_type", "holds"),
    [
        ("/", "text/html; charset=utf-8", b"m/1"),
        ("/docs", "text/html; charset=utf-8", b"/models/{name}/predict"),
        ("/openapi.json", "application/json", b"/models/{name}/predict"),
        ("/metrics", "text/plain", b"batcher_connections 1.0"),
        ("/livez", "application/json", b"true"),
        ("/readyz", "application/json", b"true"),
    ],
)
def test_a_page_is_served_by_get_and_its_head_by_head(
    serve: Serve, kind: str, target: str, content_type: str, holds: bytes
) -> None:
    server = serve()
    client = server.connect(kind)
    client.methods = ["GET", "HEAD", "GET"]
    client.send(ask(target) + ask(target, method="HEAD") + ask("/livez"))
    server.turn()
    page, head, last = client.answers
    assert client.unparsed == b""
    assert (page.status, head.status, last.decoded()) == (200, 200, {"live": True})
    assert (page.header("content-type") or "").startswith(content_type)
    assert holds in page.body
    assert head.header("content-type") == page.header("content-type")
    assert target == "/metrics" or head.header("content-length") == str(len(page.body))


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/predict", {"POST", "OPTIONS"}),
        ("PUT", "/models/m/predict", {"POST", "OPTIONS"}),
        ("HEAD", "/models/m/versions/1/predict", {"POST", "OPTIONS"}),
        ("POST", "/livez", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_a_route_does_not_know_gets_405_with_those_it_knows(
    serve: Serve, kind: str, method: str, target: str, allowed: set[str]
) -> None:
    server = serve()
    client = server.connect(kind)
    client.methods = [method]
    client.send(ask(target, b"", method=method))
    server.turn()
    (answer,) = client.answers
    assert answer.status == 405
    assert set((answer.header("allow") or "").split(", ")) == allowed
    assert method == "HEAD" or answer.decoded()["code"] == "method_not_allowed"
    assert client.unparsed == b""


@pytest.mark.parametrize(
    "target", ["/nowhere", "/models", "/predict/", "/models/m/n", "/livez/more", "/models//predict"]
)
def test_a_path_without_a_route_gets_404(serve: Serve, kind: str, target: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask(target))
    server.turn()
    (answer,) = client.answers
    assert (answer.status, answer.decoded()["code"]) == (404, "unknown_route")
    assert not client.closed


def test_an_answer_without_a_length_is_chunked_for_http_1_1(serve: Serve, kind: str) -> None:
    server = serve()
    mount(server, Page(in_pieces))
    client = server.connect(kind)
    client.send(ask("/any") + ask("/predict", ROW))
    server.work()
    assert client.answers[0].body == b"one two three"
    assert client.answers[0].header("transfer-encoding") == "chunked"
    assert client.answers[1].status == 200


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_an_answer_without_a_length_ends_with_the_connection_for_http_1_0(
    serve: Serve, kind: str, connection: str
) -> None:
    server = serve()
    mount(server, Page(in_pieces))
    client = server.connect(kind)
    client.send(ask("/any", b"", ("Connection", connection), version="1.0"))
    server.turn()
    assert client.closed, "how else would the client know that this was all"
    server.turn()
    (answer,) = client.answers
    assert answer.body == b"one two three"
    assert answer.header("connection") == "close"


def test_a_page_sees_its_request_as_twisted_web_shows_it(serve: Serve, kind: str) -> None:
    def render(request: Any) -> bytes:
        request.addCookie("a", "1")
        request.addCookie("b", "2")
        request.setHeader("X-Answer", "yes")
        request.setResponseCode(201)
        return b"|".join(
            (
                request.method,
                request.uri,
                request.path,
                request.content.read(),
                request.getHeader(b"x-one"),
                request.getClientAddress().host.encode(),
                request.getHost().host.encode(),
                request.getRequestHostname(),
            )
        )

    server = serve()
    mount(server, Page(render))
    client = server.connect(kind)
    client.send(ask("/some/page?q=v%20w", b"body", ("X-One", "1"), method="PUT"))
    server.turn()
    (answer,) = client.answers
    assert answer.status == 201
    assert (
        answer.body == b"PUT|/some/page?q=v%20w|/some/page|body|1|192.0.2.7|192.0.2.1|batcher.test"
    )
    cookies = SimpleCookie()
    for name, value in answer.fields:
        if name == "set-cookie":
            cookies.load(value)
    assert {name: morsel.value for name, morsel in cookies.items()} == {"a": "1", "b": "2"}
    assert answer.header("x-answer") == "yes"


def test_nobody_parses_queries_and_cookies_of_pages(serve: Serve, kind: str) -> None:
    seen: list[Any] = []

    def render(request: Any) -> bytes:
        seen.append((request.args, request.received_cookies, request.uri.count(b"%")))
        return b""

    server = serve()
    mount(server, Page(render))
    client = server.connect(kind)
    client.send(ask(f"/some/page?{'%41=%41&' * 900}", b"", ("Cookie", ";" * 20_000)))
    server.turn()
    assert client.answers[0].status == 200
    assert seen == [({}, {}, 1800)]


def test_a_page_that_raises_gets_500_and_the_next_request_is_served(
    serve: Serve, kind: str, logged_errors: list[Any]
) -> None:
    def render(request: Any) -> bytes:
        raise ZeroDivisionError

    server = serve()
    mount(server, Page(render))
    client = server.connect(kind)
    client.send(ask("/any") + ask("/predict", ROW))
    server.work()
    assert [answer.status for answer in client.answers] == [500, 200]
    assert len(logged_errors) == 1
    logged_errors.clear()


def later(server: MemoryServer) -> Callable[[Any], int]:
    def render(request: Any) -> int:
        call = server.clock.callLater(1, lambda: (request.write(b"late"), request.finish()))
        request.notifyFinish().addErrback(
            lambda failure: (call.cancel(), lost.append(failure.type))
        )
        return NOT_DONE_YET

    lost: list[type] = []
    render.lost = lost  # type: ignore[attr-defined]
    return render


def test_pages_that_answer_later_come_in_the_order_of_their_requests(
    serve: Serve, kind: str
) -> None:
    server = serve()
    mount(server, Page(later(server)))
    client = server.connect(kind)
    client.send(ask("/late") + ask("/predict", ROW) + ask("/late"))
    server.work()
    assert client.received == b""
    server.wait(1)
    assert [
        answer.body for answer in client.answers if answer.header("content-type") == "text/html"
    ] == [b"late", b"late"]
    assert len(client.answers) == 3


def test_a_half_closed_client_gets_a_later_page_whole_and_once(serve: Serve, kind: str) -> None:
    server = serve()
    mount(server, Page(later(server)))
    client = server.connect(kind)
    client.send(ask("/late"))
    client.end()
    server.turn()
    assert bytes(client.received) == b"HTTP/1.1 "
    server.wait(2)
    assert [answer.body for answer in client.answers] == [b"late"]
    assert client.received.count(b"HTTP/1.1") == 1
    assert client.closed


def test_a_page_whose_client_left_is_told(serve: Serve, kind: str) -> None:
    server = serve()
    render = later(server)
    mount(server, Page(render))
    client: Client = server.connect(kind)
    client.send(ask("/late") + ask("/late"))
    client.reset()
    server.turn()
    assert render.lost == [ConnectionDone, ConnectionDone]  # type: ignore[attr-defined]
    server.wait(3)
    assert server.server.metrics.connections == 0


def test_a_page_that_gives_up_its_connection_ends_it(serve: Serve, kind: str) -> None:
    def render(request: Any) -> int:
        request.write(b"some")
        request.loseConnection()
        return NOT_DONE_YET

    server = serve()
    mount(server, Page(render))
    client = server.connect(kind)
    client.send(ask("/any"))
    server.turn()
    assert client.closed
    assert client.answers == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_twisteds_own_files_are_served_whole_in_ranges_and_by_head(
    serve: Serve, kind: str, tmp_path: Path
) -> None:
    from twisted.web.static import File  # it warns of itself when it is imported

    content = bytes(range(256)) * 4096
    (tmp_path / "big.bin").write_bytes(content)
    server = serve()
    mount(server, File(str(tmp_path)))
    client = server.connect(kind)
    client.methods = ["GET", "HEAD", "GET", "GET"]
    client.stall()
    client.send(
        ask("/big.bin")
        + ask("/big.bin", method="HEAD")
        + ask("/big.bin", b"", ("Range", "bytes=5-9"))
        + ask("/none.bin")
    )
    server.turn()
    for _ in range(len(content) // 50_000 + 2):
        client.read(50_000)
        server.turn()
    whole, head, part, none = client.answers
    assert whole.body == content
    assert head.header("content-length") == str(len(content))
    assert (part.status, part.body) == (206, content[5:10])
    assert none.status == 404
