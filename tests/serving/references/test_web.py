"""Files of web servers: which address is connected to, and what is taken for a file."""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address
from typing import Any
from unittest.mock import Mock

import pytest

from batcher.core.network_addresses import Address
from batcher.core.references import InputSources
from batcher.errors import BatcherError, InputMissing, InputSourceFailed, InvalidInput, TooLarge
from batcher.serving.references.source import Fetch, Fetched, GivenUp
from batcher.serving.references.web import WebSource

PUBLIC, OTHER, INSIDE, METADATA = "93.184.215.14", "93.184.215.15", "10.0.0.5", "169.254.169.254"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: "v1"\r\n\r\nabc'
AT = "http://photos.example/in/1"


class Connection:
    """A socket that answers from memory, a few bytes at a time; `None` is a silence.

    Attributes:
        sent: what was written to it.
    """

    def __init__(self, *pieces: bytes | None) -> None:
        self.sent = b""
        self.closed = False
        self._pieces = list(pieces)

    def settimeout(self, seconds: float) -> None:
        assert 0 < seconds <= 5

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def recv_into(self, buffer: Any) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.pop(0)
        if piece is None:
            raise TimeoutError
        part, rest = piece[: len(buffer)], piece[len(buffer) :]
        if rest:
            self._pieces.insert(0, rest)
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self.closed = True


class Web:
    """A network in memory.

    Attributes:
        names: the addresses of each host, one list for each time that it is resolved.
        answers: of each address, one connection for each time that it is connected to.
        events: what was resolved and connected to.
        now: the time.
    """

    def __init__(self, *answers: bytes | None, addresses: tuple[str, ...] = (PUBLIC,)) -> None:
        self.names: dict[str, list[tuple[str, ...]]] = {"photos.example": [addresses]}
        self.connections = [Connection(*answers)]
        self.events: list[str] = []
        self.now = 100.0
        sources = InputSources(
            ["http://photos.example/in/", "http://other.example/", "s3://photos/in/"],
            ["http://inside.example/", "http://10.0.0.5/"],
        )
        self.source = WebSource(sources, self._resolve, self._connect)
        self.fetch = Fetch(1000, 110.0, lambda: self.now)

    def _resolve(self, host: str, port: int) -> list[Address]:
        self.events.append(f"resolve {host}")
        if host not in self.names:
            raise socket.gaierror("no such name")
        addresses = self.names[host]
        return [ip_address(each) for each in (addresses.pop(0) if addresses[1:] else addresses[0])]

    def _connect(self, address: Address, port: int, timeout: float) -> Any:
        self.events.append(f"connect {address}:{port}")
        connection = self.connections[0]
        return self.connections.pop(0) if self.connections[1:] else connection

    def read(self, address: str = AT, tag: str = "") -> Fetched | None:
        return self.source.read(address, tag, self.fetch)

    def refused(self, kind: type[BatcherError], address: str = AT) -> str:
        with pytest.raises(kind) as refused:
            self.read(address)
        text = refused.value.public or str(refused.value)
        assert not any(each in text for each in (OTHER, INSIDE, METADATA, PUBLIC))
        return text


def moved(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_file_is_read_from_the_address_that_was_checked() -> None:
    web = Web(OK)
    assert web.read() == Fetched(b"abc", '"v1"')
    assert web.events == ["resolve photos.example", f"connect {PUBLIC}:80"]
    sent = web.connections[0].sent.decode()
    assert sent.startswith("GET /in/1 HTTP/1.1\r\nHost: photos.example\r\n")
    assert "Authorization" not in sent
    assert web.connections[0].closed


def test_a_name_that_changes_its_address_leads_nowhere() -> None:
    web = Web(OK)
    web.names["photos.example"] = [(PUBLIC,), (INSIDE,), (PUBLIC,)]
    web.read()
    assert web.events == ["resolve photos.example", f"connect {PUBLIC}:80"]
    web.refused(InvalidInput)
    assert web.events[2:] == ["resolve photos.example"]  # and no connection


@pytest.mark.parametrize(
    "addresses", [(INSIDE,), ("127.0.0.1",), ("::1",), (PUBLIC, INSIDE), (METADATA,)], ids=str
)
def test_a_public_prefix_never_leads_inside(addresses: tuple[str, ...]) -> None:
    web = Web(OK, addresses=addresses)
    assert "which only private_input_sources may have" in web.refused(InvalidInput)
    assert not any(event.startswith("connect") for event in web.events)


def test_a_private_prefix_may_lead_inside_but_never_to_metadata() -> None:
    web = Web(OK)
    web.names["inside.example"] = [(INSIDE,), (METADATA,), ("0.0.0.0",)]
    assert web.read("http://inside.example/1") is not None
    for _ in range(2):
        web.refused(InvalidInput, "http://inside.example/1")
    assert web.events.count(f"connect {INSIDE}:80") == 1


def test_a_redirection_is_followed_below_the_prefixes_and_checked_anew() -> None:
    web = Web()
    web.names["other.example"] = [(OTHER,)]
    web.connections = [
        Connection(moved("2")),
        Connection(moved("//other.example/3")),
        Connection(OK),
    ]
    assert web.read() is not None
    connected = [event for event in web.events if event.startswith("connect")]
    assert connected == [f"connect {PUBLIC}:80", f"connect {PUBLIC}:80", f"connect {OTHER}:80"]


@pytest.mark.parametrize(
    "to",
    [
        "http://169.254.169.254/latest",
        "http://photos.example/private/1",
        "../private",
        "https://photos.example/in/1",
        "file:///etc/passwd",
        "s3://photos/in/1",
        "http://photos.example:22/in/1",
        "http://u:p@photos.example/in/1",
        "2?x=1",
        "http://[",
    ],
)
def test_a_redirection_to_elsewhere_is_a_failure(to: str) -> None:
    web = Web(moved(to))
    assert "a redirection to outside of input_sources" in web.refused(InputSourceFailed)
    assert len(web.events) == 2


def test_a_redirection_to_a_private_address_is_refused_as_any_other() -> None:
    web = Web(moved("http://other.example/1"))
    web.names["other.example"] = [("127.0.0.1",)]
    web.refused(InvalidInput)


def test_redirections_end() -> None:
    web = Web()
    web.connections = [Connection(moved("1")) for _ in range(5)]
    assert "at most 3 redirections" in web.refused(InputSourceFailed)


def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    web = Web(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    assert web.read(tag='"v1"') is None
    assert b'If-None-Match: "v1"\r\n' in web.connections[0].sent


def test_the_tag_of_one_address_is_not_taken_for_that_of_another() -> None:
    web = Web()
    first, second = web.connections = [Connection(moved("2")), Connection(OK)]
    assert web.read(tag='"v1"') == Fetched(b"abc", "")
    assert b"If-None-Match" in first.sent
    assert b"If-None-Match" not in second.sent


def test_a_file_in_tiny_chunks_takes_no_more_memory_than_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    join = Mock(side_effect=b"".join)
    monkeypatch.setattr("batcher.serving.references.web.joined_bytes", join)
    chunks = b"2\r\nab\r\n" * 100 + b"0\r\n\r\n"
    web = Web(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert web.read() == Fetched(b"ab" * 100, "")
    join.assert_called_once_with([b"ab" * 100])


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", InputMissing, "there is none"),
        (b"HTTP/1.1 410 No\r\nContent-Length: 0\r\n\r\n", InputMissing, "there is none"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", InputSourceFailed, "got 403"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", InputSourceFailed, "got 500"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", InputSourceFailed, "got 304"),
        (b"SSH-2.0-OpenSSH\r\n", InputSourceFailed, "got no HTTP/1.1"),
        (b"", InputSourceFailed, "got no connection, or a broken one"),
        (OK[:-1], InputSourceFailed, "a broken one"),
        (OK.replace(b"ETag: ", b"Content-Encoding: gzip\r\nX: "), InputSourceFailed, "coding"),
        (OK.replace(b": 3", b": 1001"), TooLarge, "at most 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1001), TooLarge, "at most 1000 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + bytes(1024),
            TooLarge,
            "at most 1000 bytes",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
            InputSourceFailed,
            "expected an answer",
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200, InputSourceFailed, "no HTTP/1.1"),
    ],
)
def test_what_is_no_file_is_an_error_that_says_so(
    answer: bytes, kind: type[BatcherError], says: str
) -> None:
    web = Web(answer)
    text = web.refused(kind)
    assert says in text
    assert text.startswith(repr("http://photos.example:80/in/1"))
    assert web.connections[0].closed


def test_a_name_that_nobody_has_is_an_error_too() -> None:
    web = Web()
    assert "got one that has none" in web.refused(InputSourceFailed, "http://other.example/1")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError("10.0.0.5 refused"), "no connection"),
        (TimeoutError("10.0.0.5"), "none in time"),
        (ssl.SSLCertVerificationError("10.0.0.5"), "a certificate that is not valid"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_the_network_is_told_without_addresses(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    web = Web()
    monkeypatch.setattr(web.source, "_connect", fail)
    assert says in web.refused(InputSourceFailed)


@pytest.mark.parametrize("ends", ["deadline", "client"])
def test_a_silent_server_is_left_when_nobody_waits(ends: str) -> None:
    silences: list[bytes | None] = [None] * 40
    web = Web(OK[:10], *silences, OK[10:])
    taken = web.connections[0].recv_into

    def recv_into(buffer: Any) -> int:
        web.now += 0.25 if ends == "deadline" else 0.0
        web.fetch.is_given_up = ends == "client" and len(web.connections[0]._pieces) < 30
        return taken(buffer)

    web.connections[0].recv_into = recv_into  # type: ignore[method-assign]
    with pytest.raises(GivenUp):
        web.read()
    assert web.connections[0].closed


def test_a_server_that_pauses_is_waited_for() -> None:
    web = Web(*[part for byte in OK for part in (bytes([byte]), None)])
    assert web.read() == Fetched(b"abc", '"v1"')
