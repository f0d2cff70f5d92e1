"""Where a server is, from the one text that the caller gives."""

from __future__ import annotations

from base64 import b64encode
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_ZEROMQ = "zmq://"
MAX_PORT = 65_535


class ServerAddress(NamedTuple):
    """Where a server is.

    Attributes:
        is_secure: whether connections are encrypted.
        host: name or number of the host.
        port: TCP port.
        authority: host and port as the `Host` field has them.
        prefix: path before that of each route, without a slash at its end.
        credentials: `user:password` from the address, in base64; empty without.
        endpoint: where ZeroMQ connects; empty for HTTP.
    """

    is_secure: bool
    host: str
    port: int
    authority: str
    prefix: str
    credentials: str
    endpoint: str = ""


class CurveKeys(NamedTuple):
    """Keys for ZeroMQ's CURVE, each as 40 characters in Z85, as ZeroMQ's certificates have them.

    Attributes:
        server: the server's public key.
        public: the client's public key.
        secret: the client's secret key.
    """

    server: str
    public: str
    secret: str

    def __repr__(self) -> str:
        """Return a text without the secret."""
        return f"CurveKeys(server={self.server!r}, public={self.public!r}, secret=...)"


def checked_address(address: str) -> ServerAddress:
    """Return where `address` leads.

    Raises:
        ValueError: it is no address of a server.
    """
    if address.startswith(_ZEROMQ):
        return _zeromq_address(address)
    try:
        parts = urlsplit(address)
        host = _ascii_host(parts.hostname or "")
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
    except (LookupError, ValueError) as err:
        raise _refusal(address) from err
    # urlsplit drops line ends without a word
    is_plain = all(character > " " for character in address) and _is_visible(host + parts.path)
    if not host or not port or not is_plain or parts.query or parts.fragment:
        raise _refusal(address)
    secure, authority = parts.scheme == "https", _authority(host, port, parts.scheme)
    return ServerAddress(secure, host, port, authority, parts.path.rstrip("/"), _credentials(parts))


def _zeromq_address(address: str) -> ServerAddress:
    """Return where `zmq://host:port` leads, or `zmq:///path` of a socket of this machine."""
    place = address.removeprefix(_ZEROMQ)
    if place.startswith("/") and len(place) > 1 and " " not in place:
        return ServerAddress(False, "", 0, "", "", "", f"ipc://{place}")
    host, _, port = place.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) <= MAX_PORT
    if not host or not is_port or not _is_visible(host) or set(host) & set("/?#@"):
        raise ValueError(
            "address: expected one such as zmq://localhost:8082, or zmq:///run/batcher.zmq; got "
            f"{address!r}"
        )
    return ServerAddress(False, host.strip("[]"), int(port), "", "", "", f"tcp://{place}")


def _is_visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)


def _ascii_host(host: str) -> str:
    return host if ":" in host else host.encode("idna").decode()  # else a number of IPv6


def _credentials(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b64encode(user.encode()).decode()


def _authority(host: str, port: int, scheme: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == _PORTS[scheme] else f"{name}:{port}"


def _refusal(address: str) -> ValueError:
    return ValueError(f"address: expected one such as http://localhost:8080; got {address!r}")
