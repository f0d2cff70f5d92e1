"""Bytes of a connection to whole requests, without I/O.

Httptools (llhttp) and everything that it leaves open.

The parser is strict about framing, and refuses length together with chunked, duplicate lengths,
folded lines, a bare CR or LF. Left to us, each of which has a test: an unfinished header grows
inside the parser without a word, so bytes are counted before it calls; a missing Host and transfer
codings other than chunked are let through; an offer to upgrade (h2c, as curl and some clients make
it) swallows the body, so the head is fed again without the offer; whatever follows a request that
closes the connection is an error to the parser, and ignored here.

Clients send the same head again and again. A piece that begins, byte for byte, with the head of the
last whole request and is as long as that request was is the same request with another body, and is
not parsed again: the parser is between two messages and would say the same.
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

from batcher.codecs.content_coding import BodyDecoder, Identity, body_decoder, too_large
from batcher.errors import BatcherError, HeadersTooLarge, MalformedHttp, RequestTimeout, UriTooLong
from batcher.frontends.web.http11.head_check import head_error, head_without_upgrade
from batcher.frontends.web.http11.heads import SharedHeads
from batcher.frontends.web.http11.messages import Continue, Event, Refusal, Request, RequestHead
from batcher.frontends.web.http11.target import split_target
from batcher.frontends.web.limits import Limits

_LONG_WAY = frozenset({b"transfer-encoding", b"content-encoding", b"expect", b"upgrade"})
"""Headers of requests that are parsed each time: their bodies are not as long as their bytes, or
they want more.
"""

_SMALL = 8192
"""Up to this many bytes a copy is cheaper than a view."""


class Phase(Enum):
    """Where the reader is."""

    IDLE = 1
    HEAD = 2
    BODY = 3
    CLOSED = 4


_IDLE, _HEAD, _BODY, _CLOSED = Phase  # members of an enumeration take ten times as long to find


class RequestReader:
    """Reads the requests of one connection."""

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        stopping: Callable[[], bool],
        heads: SharedHeads,
    ) -> None:
        """Read within `limits`; `seconds` is the clock, `stopping` tells whether the server is being stopped."""
        self._heads = heads
        self._limits = limits
        self._seconds = seconds
        self._stopping = stopping
        self._parser = HttpRequestParser(self)
        self._events: list[Event] = []
        self.phase = _IDLE
        self.began = 0.0
        self.since = 0.0  # when the present phase began, less the time in which we did not read
        self.body_bytes = 0
        self._late = False
        self._target = b""
        self._path = self._query = ""
        self._headers: dict[bytes, bytes] = {}
        self._hosts = self._head_bytes = self._silent_bytes = 0
        self._body: bytes | bytearray = b""
        self._decoder: BodyDecoder | None = None
        self._upgrading = False
        self._repeated_bytes = b""
        self._repeated_start = 0
        self._repeated_length = -1
        self._repeated_head: RequestHead

    def renew(self, limits: Limits) -> None:
        """Read within `limits` from now on, and forget the head that repeats."""
        self._limits = limits
        self._repeated_length = -1

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes, in order.

        Nothing follows a Refusal or a request that closes.
        """
        if self.phase is not _IDLE:
            return self._parse(data)
        if len(data) == self._repeated_length and data.startswith(self._repeated_bytes):
            start = self._repeated_start
            body = data[start:] if len(data) < _SMALL else memoryview(data)[start:]
            return [Request(self._repeated_head, body, self._seconds(), self._stopping())]
        events = self._parse(data)
        if len(events) == 1:
            self._remember(data, events[0])
        return events

    def _parse(self, data: bytes) -> list[Event]:
        self._events = []
        if self.phase is _HEAD or self.phase is _BODY:
            self._silent_bytes += len(data)
        try:
            self._feed_parser(data)
        except HttpParserInvalidMethodError:
            self._target = b"".join(data[: self._limits.uri].split(b" ", 2)[1:2])
            self._refuse(
                MalformedHttp(
                    "expected an HTTP request; got an unknown method or something else than HTTP"
                )
            )
        except HttpParserError as err:
            self._refuse(
                MalformedHttp(
                    f"expected a well-formed HTTP/1.1 request; got one that is not: {err}"
                )
            )
        if self._silent_bytes > self._limits.header + self._limits.uri and self.phase in (
            _HEAD,
            _BODY,
        ):
            self._refuse(self._header_error())
        events, self._events = self._events, []
        return events

    @property
    def held(self) -> int:
        """Bytes of memory that the part of a body that has come takes."""
        return getsizeof(self._body) if self._body else 0

    def timed_out(self, now: float) -> RequestTimeout | None:
        """Return why to refuse a request that comes too slowly; None otherwise."""
        limits = self._limits
        if self.phase is _HEAD and now - self.since > limits.header_timeout:
            return RequestTimeout(
                f"expected the whole head within {limits.header_timeout:g} s; got a part of it"
            )
        if (
            self.phase is _BODY
            and now - self.since > limits.body_timeout + self.body_bytes / limits.body_rate
        ):
            return RequestTimeout(
                f"expected a body within {limits.body_timeout:g} s or at {limits.body_rate} "
                "bytes/s; "
                f"got {self.body_bytes} bytes in {now - self.since:.0f} s",
            )
        return None

    def refuse(self, error: BatcherError) -> Refusal:
        """Read no further, for `error`, in the middle of a request; return its refusal."""
        self._events = []
        self._refuse(error)
        refusal = self._events.pop()
        assert isinstance(refusal, Refusal)
        return refusal

    def close(self) -> None:
        """Let go of a body that did not come to its end.

        Reader and parser hold each other until somebody looks for cycles.
        """
        self._body = b""
        self._decoder = None

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Start a request."""
        if self.phase is _CLOSED:
            return
        self.phase = _HEAD
        self.began = self.since = self._seconds()
        self._late = self._stopping()
        self._target = b""
        self._headers = {}
        self._hosts = 0
        self._head_bytes = 0
        self._silent_bytes = (
            0  # counts from the next piece on: where in this one the head began is not known
        )
        self._body = b""
        self.body_bytes = 0
        self._decoder = None

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
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
        if self._head_bytes > self._limits.header:
            self._refuse(self._header_error())
            return
        key, value = name.lower(), value.strip(b" \t")
        self._hosts += key == b"host"
        previous = self._headers.get(key)
        self._headers[key] = value if previous is None else b"%b, %b" % (previous, value)

    def on_headers_complete(self) -> None:
        """Check the head as a whole."""
        if self.phase is not _HEAD:
            return
        if self._parser.should_upgrade() and self._parser.get_method() != b"CONNECT":
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
        if self._decoder is not None:
            try:
                piece = self._decoder.feed(piece)
            except BatcherError as err:
                self._refuse(err)
                return
        if self._body:
            self._body = self._body if isinstance(self._body, bytearray) else bytearray(self._body)
            self._body += piece
        else:
            self._body = piece

    def on_message_complete(self) -> None:
        """Finish the request."""
        if self.phase is not _BODY:
            return
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except BatcherError as err:
                self._refuse(err)
                return
        keep_alive = self._parser.should_keep_alive()
        self.phase = _IDLE if keep_alive else _CLOSED
        body = memoryview(self._body) if isinstance(self._body, bytearray) else self._body
        self._body = b""
        method, old = (
            self._parser.get_method().decode("latin-1"),
            self._parser.get_http_version() == "1.0",
        )
        head = RequestHead(
            method, self._target, self._path, self._query, self._headers, keep_alive, old
        )
        self._events.append(Request(head, body, self.began, self._late))

    def _remember(self, data: bytes, event: Event) -> None:
        """Keep the head of a request that came alone and whole, nothing around it, with a body as long as it says."""
        if (
            isinstance(event, Request)
            and event.head.keep_alive
            and self.phase is _IDLE
            and data[0] not in b"\r\n"
            and not _LONG_WAY.intersection(event.head.headers)
            and data.find(b"\r\n\r\n") + 4 + len(event.body) == len(data)
        ):
            self._repeated_start = len(data) - len(event.body)
            self._repeated_bytes, self._repeated_head = self._heads.shared(
                data[: self._repeated_start], event.head
            )
            self._repeated_length = len(data)

    def _feed_parser(self, data: bytes) -> None:
        while not self._is_closed():
            try:
                self._parser.feed_data(data)
                return
            except HttpParserUpgrade as offer:
                if not self._upgrading:
                    return
                self._upgrading = False
                version = self._parser.get_http_version()
                head = head_without_upgrade(
                    self._parser.get_method(), self._target, version, self._headers, self._hosts
                )
                data = head + data[offer.args[0] :]
                self._parser = HttpRequestParser(self)
            except HttpParserError:
                if self._is_closed():
                    return  # bytes behind a request that closes, or behind a refusal
                raise

    def _is_closed(self) -> bool:
        return self.phase is _CLOSED

    def _head_error(self) -> BatcherError | None:
        headers, version = self._headers, self._parser.get_http_version()
        error = head_error(self._parser.get_method(), version, headers, self._hosts)
        if error is not None:
            return error
        try:
            self._path, self._query = split_target(self._target)
        except MalformedHttp as err:
            return err
        transfer = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body:
            return too_large(self._limits.body)
        coding = headers.get(b"content-encoding")
        try:
            if coding is not None:
                self._decoder = body_decoder(coding.decode("latin-1"), self._limits.body)
            elif transfer is not None:
                self._decoder = Identity(self._limits.body)
        except BatcherError as err:
            return err
        if (
            headers.get(b"expect", b"").lower() == b"100-continue"
            and version == "1.1"
            and (transfer is not None or (length is not None and int(length) > 0))
        ):
            self._events.append(Continue())
        return None

    def _header_error(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"expected header fields of at most {self._limits.header} bytes together; got more"
        )

    def _refuse(self, error: BatcherError) -> None:
        if self.phase is not _CLOSED:
            began = self.began if self.phase is not _IDLE else self._seconds()
            self.phase = _CLOSED
            self._body = b""
            self._events.append(Refusal(error, self._headers, began, self._target))
