"""What is wrong with a request's head that the parser lets through."""

from __future__ import annotations

import re
from collections.abc import Mapping

from batcher.errors import BatcherError, MalformedHttp, MethodNotAllowed, UnsupportedTransferCoding

_HOST = re.compile(rb"((\[[0-9A-Fa-f:.]+\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?)(:\d{0,5})?)?", re.ASCII)


def head_error(
    method: bytes, version: str, headers: Mapping[bytes, bytes], hosts: int
) -> BatcherError | None:
    """Return why a request is refused for its method, version, host or transfer coding.

    None if it is not.

    Args:
        method: `GET`, `POST`, …
        version: `1.1` or `1.0`; others are refused.
        headers: by lower-case name.
        hosts: how many `Host` fields there were.
    """
    if method == b"CONNECT":
        return MethodNotAllowed(
            "expected a method that the route knows; got CONNECT", ("GET", "POST")
        )
    if version not in ("1.0", "1.1"):
        return MalformedHttp(f"expected HTTP/1.1 or HTTP/1.0; got HTTP/{version}")
    if version == "1.1" and hosts != 1:
        return MalformedHttp(f"expected exactly one Host header; got {hosts}")
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        return MalformedHttp(
            "Host: expected a name or an address, with or without a port; got "
            f"{headers[b'host']!r:.80}"
        )
    transfer = headers.get(b"transfer-encoding")
    if transfer is not None and transfer.strip().lower() != b"chunked":
        return UnsupportedTransferCoding(
            f"Transfer-Encoding: expected chunked; got {transfer.decode('latin-1')!r:.80}"
        )
    return None


def head_without_upgrade(
    method: bytes, target: bytes, version: str, headers: dict[bytes, bytes], hosts: int
) -> bytes:
    """Return the head of such a request as it would be without its offer to upgrade."""
    tokens = [token.strip().lower() for token in headers.get(b"connection", b"").split(b",")]
    kept = {
        name: value
        for name, value in headers.items()
        if name not in (b"upgrade", b"connection", b"host")
    }
    kept[b"connection"] = b"close" if b"close" in tokens else b"keep-alive"
    fields = [b"%b: %b\r\n" % field for field in kept.items()]
    fields += [b"host: %b\r\n" % headers.get(b"host", b"")] * hosts
    return b"%b %b HTTP/%b\r\n" % (method, target, version.encode()) + b"".join(fields) + b"\r\n"
