"""HTTP/1.1 as a client speaks it, without any I/O: a request to bytes, bytes to the response.

One connection carries one request at a time. httptools parses the responses, as it parses the
requests in the server. A response whose head tells no length ends with its connection, so the end
of the connection is told to the reader too.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from batcher.client.attempts import ClientOptions
from batcher.client.errors import AnswerLost
from batcher.client.request_building import HttpRequest
from batcher.client.response_reading import HttpResponse

_NO_BODY = (204, 304)


def request_bytes(request: HttpRequest, options: ClientOptions) -> bytes:
    """Return `request` as the bytes that a client with `options` sends."""
    path = options.address.prefix + request.path
    lines = [f"{request.method} {path} HTTP/1.1\r\n{options.common_lines}"]
    lines += [f"{name}: {value}\r\n" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"content-length: {len(request.body)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode() + request.body


@lru_cache(maxsize=256)  # servers send the same few names with every response
def _field_name(name: bytes) -> str:
    return name.decode("latin-1").lower()


class ResponseReader:
    """Reads the responses of one connection.

    Attributes:
        is_reusable: whether the connection may carry another request after the last response.
    """

    __slots__ = (
        "_body",
        "_found",
        "_headers",
        "_is_framed",
        "_is_whole",
        "_max_bytes",
        "_nbytes",
        "_parser",
        "is_reusable",
    )

    def __init__(self, max_bytes: float = inf) -> None:
        """Expect the response to the first request; none is longer than `max_bytes`."""
        self._max_bytes = max_bytes
        self._nbytes = 0  # of this response so far
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._is_framed: bool | None = None  # None until the head is whole
        self._is_whole = False
        self._found: HttpResponse | None = None  # until it is given to the caller
        self.is_reusable = True

    def expect(self) -> None:
        """Expect the response to one more request."""
        self._is_whole, self._found, self._nbytes = False, None, 0
        self.is_reusable = False

    def feed(self, data: bytes) -> HttpResponse | None:
        """Return the response that `data` completes; None if there is more to come.

        Raises:
            AnswerLost: the bytes are no HTTP/1.1, or too many.
        """
        self._nbytes += len(data)
        if self._nbytes > self._max_bytes:
            raise AnswerLost(
                f"expected an answer of at most {self._max_bytes} bytes; got a longer one"
            )
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as err:
            self.is_reusable = False
            # what follows a whole response does not spoil the response
            if not self._is_whole:
                raise AnswerLost(f"expected an answer in HTTP/1.1; got other bytes: {err}") from err
        return self._taken()

    def end(self) -> HttpResponse | None:
        """Return the response that the end of the connection completes; None without."""
        if not self._is_whole and self._is_framed is False:
            self.on_message_complete()
        self.is_reusable = False
        return self._taken()

    def on_message_begin(self) -> None:
        """Begin a response. A parser's callback, as those that follow."""
        self._headers, self._body, self._is_framed = {}, [], None
        self.is_reusable = False  # nobody asked for a second one

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field; the last of those with one name counts."""
        self._headers[_field_name(name)] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Find out how the body will end."""
        headers = self._headers
        self._is_framed = (
            "content-length" in headers
            or "chunked" in headers.get("transfer-encoding", "").lower()
            or self._parser.get_status_code() in _NO_BODY
        )

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Keep the response. Those below 200 only announce another one."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        if self._is_whole:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._is_whole, self._found = True, HttpResponse(status, self._headers, body)
        self.is_reusable = bool(self._is_framed) and self._parser.should_keep_alive()

    def _taken(self) -> HttpResponse | None:
        """Return the response and keep nothing of it: an idle connection holds no answer."""
        found, self._found = self._found, None
        if found is not None:
            self._body = []
        return found
