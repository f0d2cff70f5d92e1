"""Any bytes, cut anywhere, at any moment of a connection's life.

What is a request is compared with h11, an independent parser: where both take a request, they must
take the same one. What we refuse and h11 takes (folded lines, bare line feeds, lists of lengths) is
our strictness. And whatever comes, nothing raises, every answer is well formed, and nothing is left
when the client is gone.
"""

from __future__ import annotations

import zlib
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.frontends.web.http11.test_reader import sent_requests
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import parse_answers
from tests.support.reading import cut
from tests.support.transports import KINDS

TOKENS = [
    b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"OPTIONS ", b"get ", b"/predict", b"/livez",
    b"/a%20b?c=d", b"http://h/", b"*", b"/\xff", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b"\r\n",
    b"\r\n\r\n", b"\n", b"\r", b"\n\n", b" ", b"\t", b":", b"\x00", b",", b";", b"Host: h\r\n",
    b"Host:", b"host: a\r\nHost: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n",
    b"Content-Length: 16\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n",
    b"Content-Length : 5\r\n", b"Content-Length: 18446744073709551621\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n", b"Content-Type: application/octet-stream\r\n",
    b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"X-Timeout-Ms: 1\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"X: y\r\n", b" folded\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n", b"5;a=b\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"hello", ROW,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01",
]  # fmt: skip
GOOD = [
    ask("/predict", ROW),
    ask("/predict", ROW * 5, ("X-Request-Id", "7")),
    ask("/models/unknown/predict", ROW),
    ask("/livez"),
    ask("/nowhere", b"", method="HEAD"),
    ask("/predict", ROW, ("Expect", "100-continue")),
    ask("/predict", ROW, ("Connection", "close")),
    ask("/predict", ROW, version="1.0"),
    ask("/predict", ROW, ("Connection", "Upgrade"), ("Upgrade", "h2c")),
    ask("/predict", ROW, ("X-Timeout-Ms", "5")),
]


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Draw valid requests with a few bytes taken out, put in or put twice."""
    data = b"".join(draw(st.lists(valid, min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        put = draw(
            st.sampled_from([b"", *TOKENS])
            | st.binary(max_size=3)
            | st.just(data[at : at + size] * 2)
        )
        data = data[:at] + put + data[at + size :]
    return data


soups = st.lists(st.sampled_from(TOKENS), max_size=12).map(b"".join)
streams = (
    mutated(sent_requests().map(lambda sent: sent.data))
    | mutated(st.sampled_from(GOOD))
    | soups
    | st.binary(max_size=60)
)
points = st.lists(st.integers(0, 2000), max_size=6)


class Echo(Resource):
    """Answers every request with its number, and remembers what it was."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes, bytes]] = []

    def render(self, request: Any) -> bytes:
        self.seen.append((request.method.decode(), request.uri, request.content.read()))
        return b"%d" % len(self.seen)


def read_by_h11(data: bytes) -> list[tuple[str, bytes, bytes]]:
    """Return the requests that h11 finds in `data`, bodies without their content coding."""
    found: list[tuple[str, bytes, bytes]] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    try:
        while True:
            request = connection.next_event()
            if not isinstance(request, h11.Request):
                return found
            body = b""
            while isinstance(event := connection.next_event(), h11.Data):
                body += bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                return found
            found.append(
                (request.method.decode(), request.target, _decoded(dict(request.headers), body))
            )
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return found


def _decoded(headers: dict[bytes, bytes], body: bytes) -> bytes:
    if headers.get(b"content-encoding") not in (b"gzip", b"deflate"):
        return body
    try:
        return zlib.decompress(body, zlib.MAX_WBITS | 32)
    except zlib.error:
        return b"undecodable, which we refuse"


def echoed(kind: str, pieces: list[bytes]) -> list[tuple[str, bytes, bytes]]:
    """Return the requests that the connection finds in `pieces`, each answered in its order."""
    server = MemoryServer(max_body_bytes=8192)
    server.router.only_klein = True
    echo = Echo()
    server.front.site = Site(echo, reactor=server.clock)
    client = server.connect(kind)
    client.send(*pieces)
    server.turn()
    answers, rest = parse_answers(bytes(client.received), server.front.methods, client.ended)
    assert rest == b""
    final = [answer for answer in answers if answer.status >= 200]
    taken = len(server.front.methods)
    numbers = [answer.body for answer in final if answer.status == 200 and answer.body]
    assert numbers == sorted(numbers, key=int), "in their order"
    assert len(final) - taken <= 1, "one refusal at most, at the end"
    assert all(
        answer.status >= 400 and answer.header("connection") == "close" for answer in final[taken:]
    )
    server.check_nothing_is_left()
    return echo.seen


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(stream=streams, places=points)
def test_what_both_take_for_a_request_is_the_same_to_us_and_to_h11(
    kind: str, stream: bytes, places: list[int]
) -> None:
    ours = echoed(kind, cut(stream, places))
    for mine, theirs in zip(ours, read_by_h11(stream), strict=False):
        assert mine == theirs


@settings(max_examples=100)
@given(stream=streams, places=points)
def test_where_bytes_are_cut_changes_nothing_about_what_they_are(
    stream: bytes, places: list[int]
) -> None:
    assert echoed("loop", cut(stream, places)) == echoed("loop", [stream])


actions = st.one_of(
    st.tuples(st.just("send"), streams, points),
    st.tuples(st.just("send"), st.sampled_from(GOOD), points),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 3.0, 16.0, 40.0, 80.0]), st.none()),
    st.tuples(
        st.sampled_from(["work", "work", "stall", "read", "end", "leave", "reset", "drain"]),
        st.none(),
        st.none(),
    ),
)


def act(server: MemoryServer, client: Any, action: tuple[str, Any, Any]) -> None:
    name, value, places = action
    if name == "send" and not client.gone and None not in client.inbox:
        client.send(*cut(value, places))
    elif name == "wait":
        server.wait(value, step=max(value / 8, 0.01))
    elif name == "work":
        server.work()
    elif name == "drain":
        server.front.drain()
    elif name in ("stall", "read", "end", "leave", "reset") and not client.gone:
        getattr(client, name)()
    server.turn()
    for served in server.server:
        served.scheduler.check_invariants()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(script=st.lists(actions, max_size=12))
def test_whatever_a_client_does_nothing_raises_and_nothing_is_left(
    kind: str, script: list[tuple[str, Any, Any]]
) -> None:
    server = MemoryServer(
        max_pipelined_requests=3, max_body_bytes=4096, max_header_bytes=2048, max_uri_bytes=512
    )
    client = server.connect(kind)
    for action in script:
        act(server, client, action)
    if not client.gone:
        client.read()
    server.work()
    server.check_nothing_is_left()
    answers, rest = parse_answers(bytes(client.received), server.front.methods, over=True)
    assert (
        len([answer for answer in answers if answer.status >= 200]) <= len(server.front.methods) + 1
    )
    assert rest in (b"", b"HTTP/1.1 ") or client.aborted or client.gone, (
        "whole answers, or nothing but the prefix"
    )
