"""HTTP as a hostile client writes it: whole requests as bytes, sent while the answer is read."""

from __future__ import annotations

import gzip
import select
import socket
import time
import zlib
from collections.abc import Callable, Iterable, Mapping

from benchmarks.hostile_kinds.kind import Attack, Target

ATTACK_LIMIT_S = 120.0
"""Seconds after which an attack is given up."""

PIECE_BYTES = 1 << 18
BATCH = 64
"""Requests that a flood sends before it waits for their answers: as many as a connection may
pipeline by default.
"""

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda body: body,
    "gzip": lambda body: gzip.compress(body, 1),
    "deflate": lambda body: zlib.compress(body, 1),
}


def request(
    path: str,
    body: bytes = b"",
    media_type: str = "application/octet-stream",
    *,
    coding: str = "",
    fields: Mapping[str, str] | None = None,
    keep: bool = False,
) -> bytes:
    """Return a POST as bytes; without `keep` the connection ends behind the answer."""
    body = CODINGS[coding](body)
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: h",
        f"Content-Length: {len(body)}",
        *([f"Content-Type: {media_type}"] if media_type else []),
        *([f"Content-Encoding: {coding}"] if coding else []),
        *([] if keep else ["Connection: close"]),
        *(f"{name}: {value}" for name, value in (fields or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def sending(data: bytes) -> Attack:
    """Return an attack that sends `data` and reads the answer to its end."""
    return lambda target: exchange(target, [data])


def exchange(target: Target, pieces: Iterable[bytes], pause_s: float = 0.0) -> str:
    """Send `pieces` while reading, and return the status of the first answer.

    Args:
        target: who is sent to.
        pieces: what is sent; the last request should ask for the connection's end.
        pause_s: seconds between two reads of at most PIECE_BYTES: a slow reader.
    """
    try:
        with socket.create_connection((target.host, target.port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _exchange(connection, iter(pieces), pause_s)
    except (ConnectionError, TimeoutError) as err:
        return type(err).__name__


def _exchange(connection: socket.socket, pieces: Iterable[bytes], pause_s: float) -> str:
    connection.setblocking(False)
    end = time.monotonic() + ATTACK_LIMIT_S
    head, rest, source = b"", memoryview(b""), iter(pieces)
    sent_all = False
    while time.monotonic() < end:
        if not rest and not sent_all:
            piece = next(source, None)
            sent_all, rest = piece is None, memoryview(piece or b"")
        readable, writable, _ = select.select(
            [connection], [] if sent_all else [connection], [], 1.0
        )
        if readable:
            time.sleep(pause_s)
            got = connection.recv(PIECE_BYTES)
            if not got:
                break
            if len(head) < 12:
                head += got[:12]
        if writable and rest:
            try:
                rest = rest[connection.send(rest[:PIECE_BYTES]) :]
            except (BrokenPipeError, ConnectionResetError):
                sent_all, rest = True, memoryview(b"")  # the answer may be there all the same
    else:
        return "unanswered"
    return head[9:12].decode("latin-1") or "closed"


def flooding(make: Callable[[int], bytes], seconds: float = 1.0) -> Attack:
    """Return an attack that pipelines the requests `make(0)`, `make(1)`, … for `seconds`.

    They are sent BATCH at a time, and answers are read before the next are sent. The attack
    returns the status of the last answer.
    """
    numbers = iter(range(1 << 62))

    def attack(target: Target) -> str:
        end = time.monotonic() + seconds
        status = "unanswered"
        try:
            with socket.create_connection((target.host, target.port), timeout=30) as connection:
                while time.monotonic() < end:
                    batch = b"".join(make(next(numbers)) for _ in range(BATCH))
                    connection.sendall(batch)
                    status = _read_answers(connection, BATCH)
        except (ConnectionError, TimeoutError) as err:
            return f"{status}, then {type(err).__name__}"
        return status

    return attack


def _read_answers(connection: socket.socket, count: int) -> str:
    """Read until `count` answers have begun and nothing more is there at once."""
    mark, seen, tail, status = b"HTTP/1.1 ", 0, b"", b""
    while seen < count:
        got = connection.recv(PIECE_BYTES)
        if not got:
            raise ConnectionResetError
        found = (tail + got).split(mark)
        seen += len(found) - 1
        if len(found) > 1:
            status = found[-1][:3]
        tail = (tail + got)[-len(mark) + 1 :]
    return status.decode("latin-1")
