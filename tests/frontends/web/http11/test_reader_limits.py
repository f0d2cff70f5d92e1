"""What the reader refuses for its size or its slowness, and when.

While it still comes, not after it has come.
"""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from twisted.internet.task import Clock

from batcher.errors import (
    BatcherError,
    DecodingError,
    HeadersTooLarge,
    MalformedHttp,
    RequestTimeout,
    TooLarge,
    UriTooLong,
)
from batcher.frontends.web.http11.reader import Phase, Refusal, Request, RequestReader
from batcher.frontends.web.http11.refusals import MAX_HEADER_FIELDS
from tests.support.reading import (
    LIMITS,
    cut,
    events_of,
    head,
    new_reader,
    refusal_of,
    requests_of,
    singly,
)

START = b"POST /predict HTTP/1.1\r\nHost: h\r\n"


def flood(reader: RequestReader, begin: bytes, piece: bytes, pieces: int) -> BatcherError | None:
    """Feed `begin`, then `piece` again and again, until there is a refusal.

    Return that, or None if there was none.
    """
    for data in (begin, *[piece] * pieces):
        for event in reader.feed(data):
            assert isinstance(event, Refusal), event
            return event.error
    return None


def test_a_target_of_just_the_limit_is_read() -> None:
    target = "/" + "a" * (LIMITS.uri - 1)
    (request,) = requests_of(*singly(head(line=f"GET {target} HTTP/1.1")))
    assert request.head.target == target.encode()


def test_as_many_header_fields_as_the_limit_says_are_read_and_one_more_is_refused() -> None:
    fields = [f"{number}: " for number in range(MAX_HEADER_FIELDS)]
    line = "GET / HTTP/1.1"
    assert len(requests_of(head(*fields[1:], line=line))) == 1
    error = refusal_of(head(*fields, line=line))
    assert isinstance(error, HeadersTooLarge)
    assert "at most 128 header fields" in str(error)


@pytest.mark.parametrize(
    ("line", "host", "complaint"),
    [
        (f"GET /{'%41' * 513} HTTP/1.1", "Host: h", "at most 512 percent codes; got 513"),
        ("GET / HTTP/1.1", f"Host: {'a.' * 131}", "Host: expected at most 260 bytes; got 262"),
    ],
    ids=["codes", "host"],
)
def test_a_head_whose_reading_would_take_long_is_refused(
    line: str, host: str, complaint: str
) -> None:
    limits = replace(LIMITS, uri=8192, header=8192)
    (refusal,) = events_of([head(line=line, host=host)], limits)
    assert isinstance(refusal, Refusal)
    assert isinstance(refusal.error, MalformedHttp)
    assert complaint in str(refusal.error)


@pytest.mark.parametrize("step", [1, 10, 10_000])
def test_a_target_over_the_limit_is_refused_with_414(step: int) -> None:
    data = head(line=f"GET /{'a' * LIMITS.uri} HTTP/1.1")
    error = refusal_of(*(data[start : start + step] for start in range(0, len(data), step)))
    assert isinstance(error, UriTooLong)
    assert error.http_status == 414


def test_a_target_that_never_ends_is_refused_with_414_when_it_passes_the_limit() -> None:
    error = flood(new_reader(), b"GET /", b"a" * 16, LIMITS.uri // 16 + 1)
    assert isinstance(error, UriTooLong)


def test_header_fields_over_the_limit_are_refused_with_431() -> None:
    data = head(*(f"X-{index}: {'v' * 100}" for index in range(11)), "Content-Length: 0")
    for pieces in ([data], singly(data), cut(data, [500])):
        error = refusal_of(*pieces)
        assert isinstance(error, HeadersTooLarge)
        assert error.http_status == 431


@pytest.mark.parametrize(
    "begin", [START + b"X-Endless: ", START, START + b"X-Folded: "], ids=["value", "name", "spaces"]
)
def test_one_unfinished_endless_header_is_refused_with_431(begin: bytes) -> None:
    piece = b" " * 64 if begin.endswith(b"Folded: ") else b"x" * 64
    error = flood(new_reader(), begin, piece, (LIMITS.header + LIMITS.uri) // 64 + 1)
    assert isinstance(error, HeadersTooLarge)


def test_many_small_header_fields_are_refused_with_431() -> None:
    error = flood(new_reader(), START, b"a:\r\n", LIMITS.header // 5 + 1)
    assert isinstance(error, HeadersTooLarge)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"1;x=", b"y"),
        (b"1\r\na\r\n0\r\nX-Trailer: ", b"y"),
        (b"1\r\na\r\n0\r\n", b"X-T: 1\r\n"),
        (b"0" * 9, b"0"),
    ],
    ids=["one chunk extension", "one trailer field", "many trailer fields", "one chunk size"],
)
def test_what_never_ends_around_a_chunked_body_is_refused_or_costs_no_memory(
    begin: bytes, piece: bytes
) -> None:
    reader = new_reader()
    flood(reader, head("Transfer-Encoding: chunked") + begin, piece * 4096, 1)
    tracemalloc.start()
    flood(reader, b"", piece * 4096, 400)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000, (
        f"{grown} bytes are kept of the {400 * 4096 * len(piece)} that were sent"
    )


def test_limits_begin_anew_with_each_request_of_a_connection() -> None:
    one = (
        head(*(f"X-{index}: {'v' * 100}" for index in range(8)), "Content-Length: 3000")
        + b"b" * 3000
    )
    assert len(requests_of(*[one] * 5)) == 5
    assert len(requests_of(*cut(one * 5, range(0, 20_000, 777)))) == 5


def test_a_body_of_just_the_limit_is_read() -> None:
    for framing in ("Content-Length: 4096", "Transfer-Encoding: chunked"):
        body = b"b" * 4096
        wire = body if "Length" in framing else b"1000\r\n" + body + b"\r\n0\r\n\r\n"
        assert [request.body for request in requests_of(head(framing) + wire)] == [body]


def test_a_declared_length_over_the_limit_is_refused_with_413_before_any_of_the_body_comes() -> (
    None
):
    error = refusal_of(head("Content-Length: 4097", "Expect: 100-continue"))
    assert isinstance(error, TooLarge)
    assert error.http_status == 413


def test_a_length_beyond_every_integer_is_refused() -> None:
    assert refusal_of(head(f"Content-Length: {10**30}")).http_status in (400, 413)


def test_an_endless_chunked_body_is_refused_with_413_as_soon_as_it_passes_the_limit() -> None:
    piece = b"40\r\n" + b"b" * 64 + b"\r\n"
    reader = new_reader()
    assert isinstance(flood(reader, head("Transfer-Encoding: chunked"), piece, 65), TooLarge)
    assert reader.feed(piece) == []


def test_one_chunk_that_declares_more_than_the_limit_is_refused_with_413() -> None:
    reader = new_reader()
    assert isinstance(
        flood(reader, head("Transfer-Encoding: chunked") + b"ffffffff\r\n", b"b" * 512, 9), TooLarge
    )


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("framing", ["Content-Length", "Transfer-Encoding"])
def test_a_small_body_that_stands_for_a_huge_one_is_refused_with_413_while_it_comes(
    coding: str, framing: str
) -> None:
    bomb = (gzip.compress if coding == "gzip" else zlib.compress)(b"\0" * 500_000)
    assert len(bomb) < 1024
    field = f"{framing}: {len(bomb) if framing == 'Content-Length' else 'chunked'}"
    wire = bomb if framing == "Content-Length" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb)
    data = head(field, f"Content-Encoding: {coding}") + wire
    for pieces in ([data], [data[:-5]], singly(data)):
        assert isinstance(refusal_of(*pieces), TooLarge)


def test_a_bomb_takes_no_more_memory_than_the_limit_allows() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    data = head(f"Content-Length: {len(bomb)}", "Content-Encoding: gzip") + bomb
    reader = new_reader(replace(LIMITS, body=100_000))
    tracemalloc.start()
    events = reader.feed(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(event) for event in events] == [Refusal]
    assert peak < 1_000_000


def test_a_body_in_tiny_chunks_costs_little_more_memory_than_its_bytes() -> None:
    limits = replace(LIMITS, body=1 << 20)
    reader = new_reader(limits)
    reader.feed(head("Transfer-Encoding: chunked"))
    tracemalloc.start()
    for _ in range(40):
        reader.feed(b"2\r\nab\r\n" * 500)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 10 * 40_000, f"{grown} bytes for a body of 40,000"


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip at all",
        gzip.compress(b"abc", mtime=0)[:-4],
        gzip.compress(b"abc", mtime=0) + b"more",
        b"",
    ],
)
def test_a_body_that_is_not_in_its_coding_is_refused_with_400(body: bytes) -> None:
    error = refusal_of(
        *singly(head(f"Content-Length: {len(body)}", "Content-Encoding: gzip") + body)
    )
    assert isinstance(error, DecodingError)


class TestSlowClients:
    def reader(self) -> tuple[RequestReader, Clock]:
        clock = Clock()
        return new_reader(seconds=clock.seconds), clock

    def test_a_head_has_its_time_and_no_more_however_steadily_it_comes(self) -> None:
        reader, clock = self.reader()
        for byte in singly(START[:15]):
            assert reader.feed(byte) == []
            clock.advance(1)
        assert reader.timed_out(clock.seconds()) is None
        clock.advance(0.1)
        error = reader.timed_out(clock.seconds())
        assert isinstance(error, RequestTimeout)
        refusal = reader.refuse(error)
        assert (refusal.error, refusal.error.http_status) == (error, 408)
        assert reader.timed_out(clock.seconds() + 100) is None, "once"
        assert reader.feed(head()) == []

    def test_a_connection_without_a_request_is_never_a_slow_request(self) -> None:
        reader, clock = self.reader()
        assert reader.timed_out(1000) is None
        reader.feed(head("Content-Length: 0"))
        clock.advance(1000)
        assert reader.phase is Phase.IDLE
        assert reader.timed_out(clock.seconds()) is None

    def test_a_body_at_the_least_rate_is_read_however_long_it_takes(self) -> None:
        reader, clock = self.reader()
        reader.feed(head("Content-Length: 4000"))
        for _ in range(33):
            clock.advance(1)
            reader.feed(b"b" * 120)
            assert reader.timed_out(clock.seconds()) is None
        assert [type(event) for event in reader.feed(b"b" * 40)] == [Request]

    def test_a_body_below_the_least_rate_is_refused_with_408(self) -> None:
        reader, clock = self.reader()
        reader.feed(head("Content-Length: 4000", "X-Request-Id: 7"))
        reader.feed(b"b" * 2000)
        clock.advance(31.9)
        assert reader.timed_out(clock.seconds()) is None, "30 s, and 2 for the bytes that came"
        clock.advance(0.2)
        error = reader.timed_out(clock.seconds())
        assert error is not None
        assert error.http_status == 408
        refusal = reader.refuse(error)
        assert refusal.headers[b"x-request-id"] == b"7"

    def test_the_time_of_a_second_request_begins_with_its_own_first_byte(self) -> None:
        reader, clock = self.reader()
        reader.feed(head())
        clock.advance(100)
        reader.feed(START)
        assert reader.timed_out(clock.seconds() + 14) is None
        assert reader.timed_out(clock.seconds() + 16) is not None


def test_nothing_follows_a_refusal() -> None:
    data = head("Content-Length: 5000") + head(line="GET / HTTP/1.1") * 3
    assert len(events_of([data])) == 1
    assert len(events_of(singly(data))) == 1
