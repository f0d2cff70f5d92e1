"""What the parser lets through in a request's head, and the server refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from batcher.core.error_text import brief
from batcher.errors import BatcherError, MalformedHttp, MethodNotAllowed, UnsupportedTransferCoding

_HOST = re.compile(rb"((\[[0-9A-Fa-f:.]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?)(:\d{0,5})?)?", re.ASCII)

MAX_HOST_BYTES = 260
"""Longest `Host` that is read: a name of 253 bytes, a colon and a port."""


def head_error(
    method: bytes, version: str, headers: Mapping[bytes, bytes], hosts: int
) -> BatcherError | None:
    """Return why a request is refused for its method, version, host or transfer coding, or None.

    `headers` are by lower-case name; `hosts` says how many `Host` fields there were.
    """
    if method == b"CONNECT":
        return MethodNotAllowed(
            "expected a method that the route knows; got CONNECT", ("GET", "HEAD", "POST")
        )
    if version not in ("1.0", "1.1"):
        return MalformedHttp(f"expected HTTP/1.1 or HTTP/1.0; got HTTP/{version}")
    if version == "1.1" and hosts != 1:
        return MalformedHttp(f"expected exactly one Host header; got {hosts}")
    if error := _host_error(headers.get(b"host", b"")):
        return error
    transfer = headers.get(b"transfer-encoding", b"chunked")
    if transfer.strip().lower() != b"chunked":
        got = brief(transfer.decode("latin-1"))
        return UnsupportedTransferCoding(f"Transfer-Encoding: expected chunked; got {got}")
    return None


def _host_error(host: bytes) -> MalformedHttp | None:
    if len(host) > MAX_HOST_BYTES:
        return MalformedHttp(f"Host: expected at most {MAX_HOST_BYTES} bytes; got {len(host)}")
    if not _HOST.fullmatch(host):
        expected = "a name or an address, with or without a port"
        return MalformedHttp(f"Host: expected {expected}; got {brief(host)}")
    return None


def must_close(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a connection of HTTP/1.0 ends with this request, whatever the parser says.

    HTTP/1.0 knows no chunks, so a server in between may take another place for their end. And
    `close` counts before `keep-alive`.
    """
    return b"transfer-encoding" in headers or b"close" in headers.get(b"connection", b"").lower()


def head_without_upgrade(
    method: bytes, target: bytes, version: str, headers: dict[bytes, bytes], hosts: int
) -> bytes:
    """Return the head of a request as bytes, without its offer to upgrade the protocol."""
    tokens = [token.strip().lower() for token in headers.get(b"connection", b"").split(b",")]
    kept = {
        name: value
        for name, value in headers.items()
        if name not in (b"upgrade", b"connection", b"host")
    }
    # Only HTTP/1.1 keeps a connection that nobody says anything of.
    keeps = b"keep-alive" in tokens or version == "1.1"
    kept[b"connection"] = b"keep-alive" if keeps and b"close" not in tokens else b"close"
    fields = [b"%b: %b\r\n" % field for field in kept.items()]
    fields += [b"host: %b\r\n" % headers.get(b"host", b"")] * hosts
    return b"%b %b HTTP/%b\r\n" % (method, target, version.encode()) + b"".join(fields) + b"\r\n"
