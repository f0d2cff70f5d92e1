"""Bytes of a connection to whole requests, without I/O, by httptools (llhttp).

The parser is strict about framing: it refuses a length together with chunked, duplicate lengths,
folded lines, and a bare CR or LF. Four things the parser leaves open, and the reader sees to:

| the parser | the reader |
|---|---|
| lets an unfinished header grow without a call | counts bytes before they go to the parser |
| accepts a missing Host, and codings besides chunked | checks the head (`head_check.py`) |
| loses the body of a request that offers to upgrade | feeds the head again without the offer |
| fails on bytes behind a request that closes | ignores these bytes |

Clients send the same head again and again. A piece of data may begin, byte for byte, with the head
of the last whole request, and be as long as that request was. Then the piece is the same request
with another body and is not parsed again: the parser stands between two messages and would find the
same head.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from sys import getsizeof

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from batcher.codecs.body_sink import BodySink, FindSink
from batcher.codecs.content_coding import Body, BodyDecoder, Identity, body_decoder, too_large
from batcher.errors import BatcherError, MalformedHttp, RequestTimeout, UriTooLong
from batcher.frontends.web.http11.head_check import head_error, head_without_upgrade, must_close
from batcher.frontends.web.http11.heads import SharedHeads
from batcher.frontends.web.http11.messages import Continue, Event, Refusal, Request, RequestHead
from batcher.frontends.web.http11.refusals import (
    MAX_HEADER_FIELDS,
    MAX_NAME_BYTES,
    headers_too_large,
    late_body,
    late_head,
    wrong_fields,
)
from batcher.frontends.web.http11.target import split_target
from batcher.frontends.web.limits import Limits

_PARSED_ALWAYS = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"idempotency-key"}
)
"""Headers whose requests are parsed each time: the body has another length than its bytes, the
client expects something before it, or the head comes but once and would take the place of others.
"""

SLICE_BYTES = 8192
"""Most bytes that are read at once, unless they are a body that is only kept. In the worst case,
chunks of one byte, that takes two milliseconds.
"""

_COPIED_BYTES = 8192
"""Up to this many bytes, a copy is cheaper than a view."""


class Phase(Enum):
    """Where the reader is."""

    IDLE = 1
    HEAD = 2
    BODY = 3
    CLOSED = 4


_IDLE, _HEAD, _BODY, _CLOSED = Phase  # members of an enumeration take ten times as long to find


class RequestReader:
    """Reads the requests of one connection. Reactor thread.

    Attributes:
        phase: where the reader is.
        began: when the present request began, in seconds.
        since: when the present phase began, less the time in which nothing was read, in seconds.
        body_bytes: bytes of the present body that have arrived, as they were sent.
        sink: what takes the present body; None where it is kept.
        rest: bytes that were not read yet; they are to be fed next, before all others.
    """

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        heads: SharedHeads,
        sink_of: FindSink | None = None,
    ) -> None:
        """Read within `limits`, by the clock `seconds`; bodies go where `sink_of` says."""
        self._sink_of = sink_of
        self._heads = heads
        self._limits = limits
        self._seconds = seconds
        self._parser = HttpRequestParser(self)
        self._events: list[Event] = []
        self.phase = _IDLE
        self.began = 0.0
        self.since = 0.0
        self.rest = b""
        self._upgrading = False
        self._path = self._query = ""
        self._repeated_bytes = b""
        self._repeated_start = 0
        self._repeated_length = -1
        self._repeated_head: RequestHead
        self._begin_request()

    def _begin_request(self) -> None:
        """Forget the request before."""
        self._target = self._method = b""
        self._headers: dict[bytes, bytes] = {}
        self._hosts = self._head_bytes = self._fields = 0
        # Counts from the next piece on: where in this piece the head began is not known.
        self._silent_bytes = 0
        self._body = b""
        self.body_bytes = 0
        self._body_left = 0  # bytes of a body that is only kept, as it was sent
        self._decoder: BodyDecoder | None = None
        self.sink: BodySink | None = None

    def renew(self, limits: Limits) -> None:
        """Read within `limits` from now on, and forget the head that repeats."""
        self._limits = limits
        self._repeated_length = -1

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes, in order; what is too much at once is `rest`.

        Nothing follows a Refusal or a request that closes.
        """
        if self.phase is not _IDLE:
            return self._parse(data)
        if len(data) == self._repeated_length and data.startswith(self._repeated_bytes):
            start = self._repeated_start
            body = data[start:] if len(data) < _COPIED_BYTES else memoryview(data)[start:]
            return [Request(self._repeated_head, body, self._seconds())]
        events = self._parse(data)
        if len(events) == 1:
            self._remember(data, events[0])
        return events

    def _parse(self, data: bytes) -> list[Event]:
        self._events = []
        if len(data) <= max(SLICE_BYTES, self._body_left):
            self._parse_slice(data)
        else:
            self._parse_slice(data[:SLICE_BYTES])
            rest = data[SLICE_BYTES:]
            if len(rest) <= self._body_left:
                self._parse_slice(rest)
            else:
                self.rest = rest
        events, self._events = self._events, []
        return events

    def _parse_slice(self, data: bytes) -> None:
        if self.phase is _HEAD or self.phase is _BODY:
            self._silent_bytes += len(data)
        try:
            self._feed_parser(data)
        except HttpParserInvalidMethodError:
            self._target = b"".join(data[: self._limits.uri].split(b" ", 2)[1:2])
            expected = "an HTTP request; got an unknown method or something else than HTTP"
            self._refuse(MalformedHttp(f"expected {expected}"))
        except HttpParserError as err:
            self._method = self._parser.get_method()
            expected = "a well-formed HTTP/1.1 request; got one that is not"
            self._refuse(MalformedHttp(f"expected {expected}: {err}"))
        too_many = self._silent_bytes > self._limits.header + self._limits.uri
        if too_many and self.phase in (_HEAD, _BODY):
            self._refuse(headers_too_large(self._limits))

    @property
    def held(self) -> int:
        """Bytes of memory that the present part of a body takes, read or not."""
        if not self._body and not self.rest and self._decoder is None:
            return 0  # before the phase is compared, which costs more
        if self.phase is not _BODY:
            return 0
        if self._decoder is not None:
            return self._decoder.held + len(self.rest)
        return (getsizeof(self._body) if self._body else 0) + len(self.rest)

    def timed_out(self, now: float) -> RequestTimeout | None:
        """Return why to refuse a request that arrives too slowly; None if it does not."""
        limits = self._limits
        if self.phase is _HEAD and now - self.since > limits.header_timeout:
            return late_head(limits)
        if (
            self.phase is _BODY
            and now - self.since > limits.body_timeout + self.body_bytes / limits.body_rate
        ):
            return late_body(limits, self.body_bytes, now - self.since)
        return None

    def refuse(self, error: BatcherError) -> Refusal:
        """Read no further, for `error`, in the middle of a request; return its refusal."""
        self._events = []
        self.rest = b""
        self._refuse(error)
        refusal = self._events.pop()
        assert isinstance(refusal, Refusal)
        return refusal

    def close(self) -> None:
        """Let go of an unfinished body, and of the connection: nothing more is read.

        Reader and parser hold each other, and both would stay until Python looks for cycles.
        """
        self.rest = b""
        self._sink_of = None
        _drop_body(self)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self.phase is _CLOSED:
            return
        self.phase = _HEAD
        self.began = self.since = self._seconds()
        self._begin_request()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        # Before its target a request's method is not known for sure.
        self._method = self._parser.get_method()
        self._target += url
        if len(self._target) > self._limits.uri:
            self._refuse(
                UriTooLong(
                    f"expected a target of at most {self._limits.uri} bytes; got a longer one"
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field."""
        if self.phase is not _HEAD:
            return  # a trailer, or behind a refusal
        self._head_bytes += len(name) + len(value) + 4
        self._fields += 1
        if self._fields > MAX_HEADER_FIELDS or len(name) > MAX_NAME_BYTES:
            self._refuse(wrong_fields(self._fields, len(name)))
            return
        if self._head_bytes > self._limits.header:
            self._refuse(headers_too_large(self._limits))
            return
        key, value = name.lower(), value.strip(b" \t")
        self._hosts += key == b"host"
        previous = self._headers.get(key)
        self._headers[key] = value if previous is None else b"%b, %b" % (previous, value)

    def on_headers_complete(self) -> None:
        """Check the head as a whole."""
        if self.phase is not _HEAD:
            return
        if self._parser.should_upgrade() and self._method != b"CONNECT":
            self._upgrading = True
            return
        self.phase = _BODY
        self.since = self._seconds()
        error = self._head_error()
        if error is not None:
            self._refuse(error)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if self.phase is not _BODY:
            return
        self._silent_bytes = 0
        self.body_bytes += len(piece)
        self._body_left -= len(piece)
        if self._body:  # it is not one piece, as the usual body is
            piece, self._body = self._body + piece, b""
            self._decoder = Identity(self.body_bytes + self._body_left, is_exact=True)
        if self._decoder is None:
            self._body = piece
            return
        try:
            self._decoder.feed(piece)
        except BatcherError as err:
            self._refuse(err)

    def on_message_complete(self) -> None:
        """Finish the request."""
        if self.phase is not _BODY:
            return
        body, self._body = self._body, b""
        decoder, self._decoder, self.sink = self._decoder, None, None
        try:
            whole: Body = body if decoder is None else decoder.finish()
        except BatcherError as err:
            self._refuse(err)
            return
        method = self._method.decode("latin-1")
        old = self._parser.get_http_version() == "1.0"
        keep_alive = self._parser.should_keep_alive() and not (old and must_close(self._headers))
        self.phase = _IDLE if keep_alive else _CLOSED
        head = RequestHead(
            method, self._target, self._path, self._query, self._headers, keep_alive, old
        )
        self._events.append(Request(head, whole, self.began))

    def _remember(self, data: bytes, event: Event) -> None:
        """Keep the head of `event` if `data` is that whole request and nothing else."""
        if (
            isinstance(event, Request)
            and event.head.keep_alive
            and self.phase is _IDLE
            and not isinstance(event.body, BodySink)
            and data[0] not in b"\r\n"
            and not _PARSED_ALWAYS.intersection(event.head.headers)
            and data.find(b"\r\n\r\n") + 4 + len(event.body) == len(data)
        ):
            self._repeated_start = len(data) - len(event.body)
            self._repeated_bytes, self._repeated_head = self._heads.shared(
                data[: self._repeated_start], event.head
            )
            self._repeated_length = len(data)

    def _feed_parser(self, data: bytes) -> None:
        while not _is_closed(self):
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                if not self._upgrading:
                    return
                self._upgrading = False
                version = self._parser.get_http_version()
                head = head_without_upgrade(
                    self._method, self._target, version, self._headers, self._hosts
                )
                data = head + data[offer.args[0] :]
                self._parser = HttpRequestParser(self)
            except HttpParserError:
                if _is_closed(self):
                    return  # bytes behind a request that closes, or behind a refusal
                raise

    def _head_error(self) -> BatcherError | None:
        headers, version = self._headers, self._parser.get_http_version()
        error = head_error(self._method, version, headers, self._hosts)
        if error is not None:
            return error
        chunked = b"transfer-encoding" in headers
        length = int(headers.get(b"content-length", b"0"))
        try:
            self._path, self._query = split_target(self._target, self._method)
            if self._sink_of is not None and self._method == b"POST":
                self.sink = self._sink_of(self._path, headers)
            _expect_body(self, length, chunked)
        except BatcherError as err:
            return err
        waits = headers.get(b"expect", b"").lower() == b"100-continue"
        if waits and version == "1.1" and (chunked or length > 0):
            self._events.append(Continue())
        return None

    def _refuse(self, error: BatcherError) -> None:
        if self.phase is not _CLOSED:
            began = self.began if self.phase is not _IDLE else self._seconds()
            self.phase = _CLOSED
            _drop_body(self)
            method = self._method.decode("latin-1")
            self._events.append(Refusal(error, self._headers, began, self._target, method))


def _is_closed(reader: RequestReader) -> bool:
    return reader.phase is _CLOSED


def _expect_body(reader: RequestReader, length: int, chunked: bool) -> None:
    """Decide where the body goes, which the head says is so long. Raises BatcherError."""
    sink, limit = reader.sink, reader._limits.body
    if length > (limit if sink is None else sink.limit):
        raise too_large(limit if sink is None else sink.limit)
    coding = reader._headers.get(b"content-encoding")
    reader._body_left = 0 if chunked or coding is not None else length
    if sink is not None:
        reader._decoder = sink
    elif coding is not None:
        reader._decoder = body_decoder(coding.decode("latin-1"), limit)
    elif chunked:
        reader._decoder = Identity(limit)


def _drop_body(reader: RequestReader) -> None:
    reader._body = b""
    reader._decoder = None
    if reader.sink is not None:
        reader.sink.close()
        reader.sink = None
