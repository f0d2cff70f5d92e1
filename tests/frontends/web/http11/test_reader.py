"""What the reader makes of valid bytes, however they are cut."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.frontends.web.http11.reader import SLICE_BYTES, Continue, Request
from tests.support.reading import (
    LIMITS,
    cut,
    events_of,
    fed,
    head,
    new_reader,
    refusal_of,
    requests_of,
    singly,
)

TOKEN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
VALUE = "".join(map(chr, (*range(0x21, 0x7F), *range(0x80, 0x100))))
PATH = [
    *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=:@/",
    "%20",
    "%C3%A9",
    "%2F",
]


class Sent(NamedTuple):
    """A request as bytes, and what it means."""

    data: bytes
    method: str
    target: bytes
    headers: dict[bytes, bytes]
    body: bytes
    expects: bool


def chunked(
    body: bytes, sizes: list[int], extension: str, trailers: list[tuple[str, str]]
) -> bytes:
    pieces, start = [], 0
    for size in [*sizes, len(body)]:
        piece = body[start : start + size]
        if piece:
            pieces.append(b"%x%b\r\n%b\r\n" % (len(piece), extension.encode(), piece))
        start += size
    fields = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
    return b"".join(pieces) + b"0\r\n" + fields + b"\r\n"


names = st.text(TOKEN, min_size=1, max_size=8).map("X-{}".format)
values = st.text(VALUE + " ", max_size=20).map(str.strip)
fields = st.lists(st.tuples(names, values), max_size=4)
paths = st.lists(st.sampled_from(PATH), max_size=20).map("".join)
targets = st.builds("/{}{}".format, paths, st.just("") | paths.map("?q={}".format))


@st.composite
def sent_requests(draw: st.DrawFn) -> Sent:
    method = draw(st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"]))
    target, extra, body = draw(targets), draw(fields), draw(st.binary(max_size=300))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    coding = draw(st.sampled_from(["", "", "gzip", "deflate"])) if framing != "none" else ""
    wire = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, bytes)(body)
    expects = framing != "none" and bool(wire) and draw(st.booleans())
    lines = [("hOsT", "h"), *extra]
    if framing == "length":
        lines.append(("Content-Length", str(len(wire))))
    elif framing == "chunked":
        lines.append(
            ("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked", "CHUNKED"])))
        )
    lines += [("Content-Encoding", coding)] if coding else []
    lines += [("Expect", "100-continue")] if expects else []
    if framing == "chunked":
        wire = chunked(
            wire,
            draw(st.lists(st.integers(1, 50), max_size=4)),
            draw(st.sampled_from(["", ";a=b", ';q="x;y"'])),
            draw(fields),
        )
    text = (
        f"{method} {target} HTTP/1.1\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in lines)
        + "\r\n"
    )
    headers: dict[bytes, bytes] = {}
    for name, value in lines:
        key, raw = name.lower().encode(), value.encode("latin-1")
        headers[key] = headers[key] + b", " + raw if key in headers else raw
    return Sent(
        text.encode("latin-1") + (wire if framing != "none" else b""),
        method,
        target.encode(),
        headers,
        body if framing != "none" else b"",
        expects,
    )


def meaning(event: object) -> object:
    """Return an event without what depends on when it came."""
    if not isinstance(event, Request):
        return event
    head = event.head
    return head.method, head.target, head.headers, event.body, head.keep_alive, head.old


@given(
    st.lists(sent_requests(), min_size=1, max_size=4),
    st.lists(st.integers(min_value=0), max_size=12),
)
def test_every_split_of_pipelined_requests_gives_the_same_requests(
    sent: list[Sent], points: list[int]
) -> None:
    data = b"".join(request.data for request in sent)
    expected: list[object] = []
    for request in sent:
        expected += [Continue()] if request.expects else []
        expected.append(
            (request.method, request.target, request.headers, request.body, True, False)
        )
    assert [meaning(event) for event in events_of(cut(data, points))] == expected


@given(st.lists(sent_requests(), min_size=1, max_size=2))
def test_requests_that_come_byte_by_byte_are_the_requests_that_were_sent(sent: list[Sent]) -> None:
    requests = requests_of(*singly(b"".join(request.data for request in sent)))
    assert [(request.head.target, request.headers, request.body) for request in requests] == [
        (request.target, request.headers, request.body) for request in sent
    ]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_head_near_its_limit_is_read_however_it_is_cut(size: int) -> None:
    data = head(*(f"X-{index}: {'v' * 80}" for index in range(10)), "Content-Length: 2") + b"ab"
    assert len(data) < 1024, "within the limit of the header fields"
    requests = requests_of(*(data[start : start + size] for start in range(0, len(data), size)))
    assert [request.body for request in requests] == [b"ab"]


def test_a_body_that_comes_with_the_end_of_its_head_is_not_counted_as_head() -> None:
    data = head("Content-Length: 3000", "X-Last: 1") + b"b" * 3000
    at = data.index(b"X-Last")
    assert [request.body for request in requests_of(data[:at], data[at:])] == [b"b" * 3000]


@pytest.mark.parametrize("extra", [(), ("X-Last: 1",)])
def test_an_upgrade_offer_is_ignored_and_its_body_read_at_every_cut(extra: tuple[str, ...]) -> None:
    offer = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
        "Content-Length: 5",
        *extra,
    )
    data = head(*offer) + b"hello" + head(line="GET /next HTTP/1.1")
    for place in range(len(data)):
        requests = requests_of(data[:place], data[place:])
        assert [
            (request.head.target, request.body, request.head.keep_alive) for request in requests
        ] == [
            (b"/predict", b"hello", True),
            (b"/next", b"", True),
        ]


def test_an_upgrade_offer_with_a_chunked_coded_body_behind_another_request_is_read() -> None:
    wire = chunked(gzip.compress(b"hello"), [3, 4], "", [])
    offer = (
        "Connection: upgrade",
        "Upgrade: websocket",
        "Transfer-Encoding: chunked",
        "Content-Encoding: gzip",
    )
    data = head(line="GET /first HTTP/1.1") + head(*offer) + wire
    assert [(request.head.target, request.body) for request in requests_of(*singly(data))] == [
        (b"/first", b""),
        (b"/predict", b"hello"),
    ]


def test_an_upgrade_offer_keeps_what_else_its_connection_header_says() -> None:
    data = (
        head(
            "Connection: close, Upgrade",
            "Upgrade: h2c",
            "Content-Length: 1",
            "Expect: 100-continue",
        )
        + b"x"
    )
    first, request = events_of([data])
    assert isinstance(first, Continue)
    assert isinstance(request, Request)
    assert request.body == b"x"
    assert not request.head.keep_alive


def test_continue_is_due_as_soon_as_the_head_is_there() -> None:
    reader = new_reader()
    assert reader.feed(head("Content-Length: 2", "Expect: 100-continue")) == [Continue()]
    assert [meaning(event)[3] for event in reader.feed(b"ab")] == [b"ab"]  # type: ignore[index]


@pytest.mark.parametrize(
    "data",
    [
        head("Expect: 100-continue", line="GET / HTTP/1.1"),
        head("Expect: 100-continue", "Content-Length: 0"),
        head("Expect: 100-continue", "Content-Length: 2", line="POST / HTTP/1.0") + b"ab",
    ],
    ids=["no body", "empty body", "HTTP/1.0"],
)
def test_continue_is_not_sent_to_who_cannot_use_it(data: bytes) -> None:
    assert [type(event) for event in events_of([data])] == [Request]


@pytest.mark.parametrize(
    ("data", "keep_alive", "old"),
    [
        (head(line="GET / HTTP/1.1"), True, False),
        (head("Connection: close", line="GET / HTTP/1.1"), False, False),
        (head("Connection: Keep-Alive, CLOSE", line="GET / HTTP/1.1"), False, False),
        (head(line="GET / HTTP/1.0", host=""), False, True),
        (head("Connection: keep-alive", line="GET / HTTP/1.0", host=""), True, True),
    ],
)
def test_what_a_request_says_of_its_connection_is_kept(
    data: bytes, keep_alive: bool, old: bool
) -> None:
    (request,) = requests_of(data)
    assert (request.head.keep_alive, request.head.old) == (keep_alive, old)


@pytest.mark.parametrize(
    "behind", [b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n", b"\x00garbage", b"\r\n"]
)
def test_whatever_follows_a_request_that_closes_is_ignored_at_every_cut(behind: bytes) -> None:
    data = head("Connection: close", "Content-Length: 2") + b"ab"
    for place in range(len(data + behind)):
        whole = data + behind
        assert [request.body for request in requests_of(whole[:place], whole[place:])] == [b"ab"]


def test_empty_lines_before_and_between_requests_are_skipped() -> None:
    one = head("Content-Length: 2") + b"ab"
    assert [request.body for request in requests_of(b"\r\n", one + b"\r\n", b"\r\n" + one)] == [
        b"ab",
        b"ab",
    ]


@pytest.mark.parametrize("value", ["v ", " v", "v\t", "\tv", " \t v \t "])
def test_whitespace_around_a_value_is_no_part_of_it(value: str) -> None:
    (request,) = requests_of(head(f"X-A:{value}", "X-B: w"))
    assert request.headers[b"x-a"] == b"v"


def test_trailers_do_not_become_headers() -> None:
    data = head("Transfer-Encoding: chunked", "X-Kind: true") + chunked(
        b"ab", [], "", [("X-Kind", "false"), ("X-More", "1")]
    )
    (request,) = requests_of(data)
    assert request.headers == {b"host": b"h", b"transfer-encoding": b"chunked", b"x-kind": b"true"}


def test_a_request_began_with_its_first_byte() -> None:
    now = [10.0]
    reader = new_reader(seconds=lambda: now[0])
    data = head("Content-Length: 2") + b"ab"
    assert reader.feed(data[:4]) == []
    now[0] = 12.0
    (first,) = reader.feed(data[4:])
    (second,) = reader.feed(data)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert (first.began, second.began) == (10.0, 12.0)


OLD = "POST /predict HTTP/1.0"


@pytest.mark.parametrize(
    ("connection", "kept"),
    [
        ((), False),
        (("Connection: Upgrade",), False),
        (("Connection: keep-alive",), True),
        (("Connection: Keep-Alive, Upgrade",), True),
        (("Connection: Upgrade, close",), False),
        (("Connection: keep-alive, close",), False),
    ],
)
@pytest.mark.parametrize("upgrade", [(), ("Upgrade: h2c",)])
def test_http_1_0_keeps_a_connection_only_if_asked_to_whatever_upgrade_it_offers(
    connection: tuple[str, ...], kept: bool, upgrade: tuple[str, ...]
) -> None:
    data = head(*connection, *upgrade, "Content-Length: 5", line=OLD, host="") + b"hello"
    for pieces in ([data], singly(data)):
        (request,) = requests_of(*pieces)
        assert (request.body, request.head.old) == (b"hello", True)
        assert request.head.keep_alive is kept


def test_chunks_of_http_1_0_are_read_and_nothing_behind_them_is() -> None:
    data = head("Transfer-Encoding: chunked", "Connection: keep-alive", line=OLD, host="")
    hidden = head(line="GET /hidden HTTP/1.0", host="")
    for pieces in (
        [data + b"5\r\nhello\r\n0\r\n\r\n" + hidden],
        singly(data + b"0\r\n\r\n" + hidden),
    ):
        (request,) = requests_of(*pieces)
        assert request.body in (b"hello", b"")
        assert not request.head.keep_alive


def test_a_star_is_the_target_of_options_alone() -> None:
    (request,) = requests_of(head(line="OPTIONS * HTTP/1.1"))
    assert (request.head.target, request.head.path) == (b"*", "*")
    assert refusal_of(head(line="GET * HTTP/1.1")).http_status == 400
    assert refusal_of(head(line="OPTIONS *a HTTP/1.1")).http_status == 400


ROOMY = replace(LIMITS, body=1 << 20)


def test_of_many_requests_at_once_a_slice_is_read() -> None:
    request = head(line="GET / HTTP/1.1")
    reader = new_reader(ROOMY)
    many = request * (2 * SLICE_BYTES // len(request))
    assert 0 < len(reader.feed(many)) < len(many) // len(request)
    assert len(reader.rest) == len(many) - SLICE_BYTES


def test_a_body_of_known_length_is_read_whole_with_its_head() -> None:
    reader = new_reader(ROOMY)
    body = bytes(10 * SLICE_BYTES)
    data = head(f"Content-Length: {len(body)}") + body
    for _ in range(2):
        [event] = reader.feed(data)
        assert isinstance(event, Request)
        assert event.body == body
        assert not reader.rest


def test_chunks_are_read_in_slices_and_make_the_same_body() -> None:
    chunks = b"1\r\na\r\n" * SLICE_BYTES + b"0\r\n\r\n"
    data = head("Transfer-Encoding: chunked") + chunks
    reader = new_reader(ROOMY)
    assert reader.feed(data) == []
    assert len(reader.rest) == len(data) - SLICE_BYTES
    [request] = fed(new_reader(ROOMY), data)
    assert isinstance(request, Request)
    assert request.body == b"a" * SLICE_BYTES
