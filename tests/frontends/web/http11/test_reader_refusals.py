"""What is no request that we serve: malformed, ambiguous, or in a coding that we do not read.

Refused at every cut alike.
"""

from __future__ import annotations

import pytest

from batcher.errors import (
    MalformedHttp,
    MethodNotAllowed,
    UnsupportedMediaType,
    UnsupportedTransferCoding,
)
from batcher.frontends.web.http11.reader import Refusal, Request
from tests.support.reading import events_of, head, refusal_of, requests_of, singly

LINE = b"POST /predict HTTP/1.1\r\nHost: h\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"

AMBIGUOUS = {
    "length and chunked": LINE
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": LINE
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": LINE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "one length twice": LINE + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": LINE + b"Content-Length: 5, 5\r\n\r\nhello",
    "a folded line": LINE + b"X-A: 1\r\n Content-Length: 5\r\n\r\nhello",
    "a folded chunked": LINE + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": LINE + b"Content-Length : 5\r\n\r\nhello",
    "a tab before the colon": LINE + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a space before the name": LINE + b" Content-Length: 5\r\n\r\nhello",
    "a bare CR in a value": LINE + b"X-A: 1\rContent-Length: 5\r\n\r\nhello",
    "a bare CR at a line's end": LINE + b"X-A: 1\rX-B: 2\r\n\r\n",
    "bare LF at every line's end": b"GET / HTTP/1.1\nHost: h\n\n",
    "a bare LF in the head": LINE + b"X-A: 1\nContent-Length: 5\r\n\r\nhello",
    "a NUL in a value": LINE + b"X-A: 1\x002\r\n\r\n",
    "a NUL in a name": LINE + b"X\x00A: 1\r\n\r\n",
    "no colon": LINE + b"Content-Length 5\r\n\r\nhello",
    "no name": LINE + b": 5\r\n\r\nhello",
    "a length with a plus": LINE + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": LINE + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": LINE + b"Content-Length: 0x5\r\n\r\nhello",
    "a length in two words": LINE + b"Content-Length: 1 5\r\n\r\nhello",
    "an empty length": LINE + b"Content-Length: \r\n\r\n",
    "a chunk size that is no number": LINE
    + b"Transfer-Encoding: chunked\r\n\r\ng\r\nhello\r\n0\r\n\r\n",
    "a chunk size with 0x": LINE + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "a negative chunk size": LINE + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
    "a chunk size that overflows": LINE
    + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a chunk that goes on": LINE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "a chunk with a bare LF": LINE + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "a chunk with a bare CR": LINE + b"Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n",
    "a length among the trailers": LINE
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
}


def before_refusal(data: bytes) -> int:
    """Return how many requests precede the refusal of `data`, the same at every cut."""
    found = set()
    for pieces in (
        [data],
        singly(data),
        *([data[:place], data[place:]] for place in range(1, len(data), 7)),
    ):
        events = events_of(pieces)
        assert isinstance(events[-1], Refusal), (pieces, events)
        assert events[-1].error.http_status == 400
        found.add(sum(isinstance(event, Request) for event in events))
    assert len(found) == 1, "the same at every cut"
    return found.pop()


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_bytes_that_could_be_read_in_two_ways_are_refused_and_nothing_hidden_behind_them_is_served(
    data: bytes,
) -> None:
    assert before_refusal(data + HIDDEN) == 0
    assert before_refusal(HIDDEN + data + HIDDEN) == 1


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1.1",
        "GET /",
        "GET / http/1.1",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/11",
        "GET /a b HTTP/1.1",
        "GET /a\x00b HTTP/1.1",
        " GET / HTTP/1.1",
        "get / HTTP/1.1",
        "NONSENSE / HTTP/1.1",
        "GET",
        "",
        "PRI * HTTP/2.0",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "SSH-2.0-OpenSSH_9.6",
    ],
)
def test_a_line_that_begins_no_request_of_ours_is_refused(line: str) -> None:
    for data in (head("Content-Length: 2", line=line) + b"ab", head(line=line) + HIDDEN):
        whole, one_by_one = events_of([data]), events_of(singly(data))
        for events in (whole, one_by_one):
            assert len(events) == 1, events
            assert isinstance(events[0], Refusal), events
            assert events[0].error.http_status in (400, 505)


def test_the_preface_of_http_2_is_refused_and_not_answered_as_a_request() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    for pieces in ([preface], singly(preface)):
        assert isinstance(refusal_of(*pieces), MalformedHttp)


@pytest.mark.parametrize(
    "hosts",
    [(), ("Host: h", "Host: h"), ("Host: a", "hOST: b"), ("Host: a", "X: 1", "Host:", "Host: b")],
)
@pytest.mark.parametrize(
    "offer", [(), ("Connection: Upgrade", "Upgrade: h2c")], ids=["plain", "with an upgrade offer"]
)
def test_http_1_1_without_exactly_one_host_is_refused_with_400(
    hosts: tuple[str, ...], offer: tuple[str, ...]
) -> None:
    data = head(*hosts, *offer, "Content-Length: 2", host="") + b"ab"
    for pieces in ([data], singly(data)):
        error = refusal_of(*pieces)
        assert isinstance(error, MalformedHttp)
        assert "Host" in str(error)
        assert f"got {sum(host.lower().startswith('host') for host in hosts)}" in str(error)


def test_an_empty_host_is_one_host() -> None:
    assert len(requests_of(head(host="Host:", line="GET / HTTP/1.1"))) == 1


def test_http_1_0_needs_no_host() -> None:
    assert len(requests_of(head(host="", line="GET / HTTP/1.0"))) == 1


@pytest.mark.parametrize(
    "offer", [(), ("Connection: Upgrade", "Upgrade: h2c")], ids=["plain", "with an upgrade offer"]
)
@pytest.mark.parametrize(
    "coding", ["gzip, chunked", "gzip", "identity", "xchunked", "deflate,chunked"]
)
def test_any_transfer_coding_but_chunked_is_refused_with_501(
    coding: str, offer: tuple[str, ...]
) -> None:
    data = head(f"Transfer-Encoding: {coding}", *offer) + b"0\r\n\r\n" + HIDDEN
    for pieces in ([data], singly(data)):
        assert isinstance(refusal_of(*pieces), UnsupportedTransferCoding)


@pytest.mark.parametrize(
    "fields",
    [
        ("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: chunked, chunked",),
        ("Transfer-Encoding:",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding:"),
    ],
)
def test_transfer_codings_that_do_not_end_with_one_chunked_are_refused(
    fields: tuple[str, ...],
) -> None:
    data = head(*fields) + b"0\r\n\r\n" + HIDDEN
    for pieces in ([data], singly(data)):
        assert refusal_of(*pieces).http_status in (400, 501)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "x"])
def test_an_unknown_content_coding_is_refused_with_415(coding: str) -> None:
    error = refusal_of(head("Content-Length: 2", f"Content-Encoding: {coding}") + b"ab")
    assert isinstance(error, UnsupportedMediaType)
    assert coding in str(error)


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_no_content_coding_is_fine_by_any_name(coding: str) -> None:
    (request,) = requests_of(head("Content-Length: 2", f"Content-Encoding: {coding}") + b"ab")
    assert request.body == b"ab"


@pytest.mark.parametrize("target", ["example.org:443", "*"])
def test_connect_is_refused_with_405_and_the_methods_that_are_known(target: str) -> None:
    for pieces in (
        [head(line=f"CONNECT {target} HTTP/1.1") + b"tunnelled"],
        singly(head(line=f"CONNECT {target} HTTP/1.1")),
    ):
        events = events_of(pieces)
        assert len(events) == 1
        assert isinstance(events[0], Refusal)
        assert events[0].error.http_status in (400, 405)
    error = refusal_of(head(line="CONNECT example.org:443 HTTP/1.1"))
    assert isinstance(error, MethodNotAllowed)
    assert error.allowed == ("GET", "HEAD", "POST")


def test_a_refusal_carries_the_headers_that_came() -> None:
    events = events_of([head("X-Request-Id: 7", "Content-Length: 5", "Content-Length: 6")])
    assert isinstance(events[0], Refusal)
    assert events[0].headers[b"x-request-id"] == b"7"
