"""Inputs that lie on a web server whose name a client has chosen, within the operator's prefixes.

The name is resolved once. Each address is checked, and the connection goes to an address that was
checked, not to the name: a name whose next answer is another address leads nowhere. A name of which
one address is not allowed is refused as a whole. A redirection is a new address in all respects.

    resolve --> check all --> connect to one of them --> GET --> 200, the file
       ^                                                    '--> 301 ... 308, below a prefix --.
       '---------------------------------------------------------------------------------------'

Nothing of the server's own is sent along: no password, no cookie. No proxy is used: a proxy would
resolve the name again. Between waits of `TURN_S` the thread looks whether somebody waits for the
file still, so a silent server holds no thread longer than the deadline.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urljoin

from batcher.core.copied_bytes import joined_bytes
from batcher.core.error_text import brief
from batcher.core.network_addresses import Address, is_never_asked, is_public
from batcher.core.references import WEB_PORTS, InputSources, Reference
from batcher.errors import InputMissing, InvalidInput
from batcher.serving.references.source import Fetch, Fetched, failed

CONNECT_S: Final = 5.0
"""Seconds that a connection, and the agreement on TLS, may take for each address."""

TURN_S: Final = 0.25
"""Seconds between looks whether somebody waits for the file still."""

MAX_REDIRECTIONS: Final = 3

MAX_HOST_ADDRESSES: Final = 16
"""Addresses of one name: a large service has 8."""

_READ_BYTES: Final = 1 << 16
_MOVED: Final = (301, 302, 303, 307, 308)
_GONE: Final = (404, 410)

Resolve = Callable[[str, int], Sequence[Address]]
Connect = Callable[[Address, int, float], socket.socket]


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of `host`. Raises OSError. A thread of the pool for inputs."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An address of IPv6 may have a scope behind it, which only link-local ones have.
    return [ip_address(str(each[4][0]).partition("%")[0]) for each in found]


def connect(address: Address, port: int, timeout: float) -> socket.socket:
    """Return a connection to exactly that address. Raises OSError."""
    return socket.create_connection((str(address), port), timeout)


class WebSource:
    """Reads files of web servers. A thread of the pool for inputs."""

    def __init__(
        self, sources: InputSources, resolve: Resolve = resolve, connect: Connect = connect
    ) -> None:
        """Read below the prefixes of `sources` alone."""
        self._sources = sources
        self._resolve = resolve
        self._connect = connect

    def read(self, name: str, tag: str, fetch: Fetch) -> Fetched | None:
        """Return the file at the address `name`, see `Source`."""
        reference, is_private = self._sources.find(name)
        for hop in range(MAX_REDIRECTIONS + 1):
            # A tag belongs to one address: where another one leads to may change.
            answer = self._ask(reference, is_private, "" if hop else tag, fetch)
            if not isinstance(answer, str):
                return Fetched(answer.content, "") if hop and answer is not None else answer
            reference, is_private = self._moved(reference, answer)
        raise failed(reference.address, f"at most {MAX_REDIRECTIONS} redirections; got more")

    def _moved(self, reference: Reference, to: str) -> tuple[Reference, bool]:
        """Return the address `to`, where `reference` leads, and whether it may be a private one.

        Raises InputSourceFailed: no prefix of a web server is above it.
        """
        try:
            here = urljoin(f"{reference.scheme}://{_host_of(reference)}/", reference.path)
            found = self._sources.find(urljoin(here, to))
            if found[0].scheme in WEB_PORTS:
                return found
        except (ValueError, InvalidInput):
            pass
        expected = "a file; got a redirection to outside of input_sources"
        raise failed(reference.address, expected, brief(to, 200))

    def _ask(
        self, reference: Reference, is_private: bool, tag: str, fetch: Fetch
    ) -> Fetched | str | None:
        """Return the file, the address where it is now, or None if its tag is `tag` still."""
        try:
            with closing(self._connected(reference, is_private, fetch)) as connected:
                return _answer(connected, reference, tag, fetch)
        except (HTTPException, OSError, ValueError) as err:
            kind = next((text for each, text in _KINDS if isinstance(err, each)), "no HTTP/1.1")
            expected = f"an answer of its web server; got {kind}"
            # What the system says may hold an address of the network, which no client is told.
            raise failed(reference.address, expected, repr(err)) from None

    def _connected(self, reference: Reference, is_private: bool, fetch: Fetch) -> socket.socket:
        """Return a connection to an address that was checked. Raises OSError."""
        host = reference.host.strip("[]")
        try:
            addresses = self._resolve(host, reference.port)[:MAX_HOST_ADDRESSES]
        except (OSError, UnicodeError):  # the name is unknown, or none at all
            addresses = ()
        if not addresses:
            raise failed(reference.address, "a host that has an address; got one that has none")
        _check_addresses(addresses, reference, is_private)
        connected = self._first(addresses, reference.port, fetch)
        if reference.scheme == "http":
            return connected
        try:
            connected.settimeout(min(fetch.left(), CONNECT_S))
            return self._tls.wrap_socket(connected, server_hostname=host)
        except BaseException:
            connected.close()
            raise

    def _first(self, addresses: Sequence[Address], port: int, fetch: Fetch) -> socket.socket:
        """Return a connection to the first address that takes one. Raises OSError."""
        error = OSError("no address")
        for address in addresses:
            try:
                return self._connect(address, port, min(fetch.left(), CONNECT_S))
            except OSError as err:
                error = err
        raise error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()


_KINDS: Final = (
    (ssl.SSLCertVerificationError, "a certificate that is not valid for it"),
    (TimeoutError, "none in time"),
    (OSError, "no connection, or a broken one"),
)
"""What clients are told of an error; the first that fits."""


def _check_addresses(addresses: Sequence[Address], reference: Reference, is_private: bool) -> None:
    """Raise InvalidInput if one of `addresses` must not be asked."""
    if any(map(is_never_asked, addresses)) or not (is_private or all(map(is_public, addresses))):
        raise InvalidInput(
            f"{brief(reference.address, 200)}: expected a host with public addresses alone; got "
            "one with others, which only private_input_sources may have"
        )


class _Reading(io.RawIOBase):
    """Reads from a socket, and looks again and again whether somebody waits for it."""

    def __init__(self, connected: socket.socket, fetch: Fetch) -> None:
        super().__init__()
        self._connected = connected
        self._fetch = fetch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._connected.settimeout(min(self._fetch.left(), TURN_S))
            try:
                return self._connected.recv_into(buffer)
            except TimeoutError:
                continue


class _Connected:
    """What `http.client` needs of a socket."""

    def __init__(self, connected: socket.socket, fetch: Fetch) -> None:
        self._connected = connected
        self._fetch = fetch

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(min(self._fetch.left(), CONNECT_S))
        self._connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reading(self._connected, self._fetch), _READ_BYTES)

    def close(self) -> None:
        """Do nothing: whoever has made the connection closes it."""


def _answer(
    connected: socket.socket, reference: Reference, tag: str, fetch: Fetch
) -> Fetched | str | None:
    """Ask for the file, see `WebSource._ask`. Raises HTTPException, OSError, ValueError."""
    exchange = HTTPConnection(reference.host)
    exchange.sock = _Connected(connected, fetch)
    exchange.putrequest("GET", reference.path, skip_host=True, skip_accept_encoding=True)
    headers = {"Host": _host_of(reference), "Accept-Encoding": "identity", "Connection": "close"}
    for name, value in (headers | ({"If-None-Match": tag} if tag else {})).items():
        exchange.putheader(name, value)
    exchange.endheaders()
    response = exchange.getresponse()
    if response.status == 304 and tag:
        return None
    if response.status in _MOVED:
        return response.getheader("Location", "")
    if response.status in _GONE:
        raise InputMissing(f"{brief(reference.address, 200)}: expected a file; there is none")
    if response.status != 200:
        raise failed(reference.address, f"the status 200; got {response.status}")
    if response.getheader("Content-Encoding", "identity").lower() != "identity":
        raise failed(reference.address, "a file without a content coding; got one")
    return Fetched(_body(response, reference, fetch), _tag(response))


def _body(response: HTTPResponse, reference: Reference, fetch: Fetch) -> bytes:
    """Return the body. Raises TooLarge, HTTPException, OSError."""
    length, pieces, count = response.length, list[bytes](), 0
    fetch.check_size(length or 0, reference.address)
    # Not `read1`: a server that sends two bytes in a chunk would have each kept as an object.
    while piece := response.read(min(_READ_BYTES, fetch.max_bytes - count + 1)):
        pieces.append(piece)
        count += len(piece)
        fetch.check_size(count, reference.address)
    if length is not None and count != length:
        raise ConnectionError(f"{count} of {length} bytes")
    return joined_bytes(pieces)


def _tag(response: HTTPResponse) -> str:
    """Return the ETag, which is sent back later; empty if it cannot be."""
    tag = response.getheader("ETag", "")
    return tag if len(tag) <= 256 and tag.isascii() and tag.isprintable() else ""


def _host_of(reference: Reference) -> str:
    """Return host and port as the header `Host` has them."""
    usual = WEB_PORTS[reference.scheme] == reference.port
    return reference.host if usual else f"{reference.host}:{reference.port}"
