"""Floods of requests whose heads or framing are at their worst."""

from __future__ import annotations

import gzip
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.hostile_kinds.kind import LIMIT, Attack, Kind, Target
from benchmarks.hostile_kinds.texts import FLOATS, pattern
from benchmarks.hostile_kinds.wire import CODINGS, exchange, flooding, request, sending

LONG = 30 << 10
"""Bytes of a long header: a head may have 32 KiB by default."""

ROW = bytes(256)
CHUNKED = request(FLOATS, fields={"Transfer-Encoding": "chunked"}).replace(
    b"Content-Length: 0\r\n", b""
)
"""The head of a request whose body comes in chunks."""

PROBE = "/models/probe/predict"


def field_flood(name: str, value: Callable[[int], str]) -> Callable[[], Attack]:
    """Return what prepares a flood whose requests have the field `name: value(number)`."""

    def make(number: int) -> bytes:
        fields = {name: value(number)}
        media_type = "" if name == "Content-Type" else "application/octet-stream"
        return request("/models/floats/predict", bytes(4), media_type, fields=fields, keep=True)

    return partial(flooding, make)


def parameters(number: int) -> str:
    """Return thousands of parameters of a media type, no two floods' the same."""
    return ";".join([f"a{place:04d}={number:05d}" for place in range(LONG // 12)])


def get_flood(path: Callable[[int], str]) -> Callable[[], Attack]:
    """Return what prepares a flood of GETs of `path(number)`."""
    return partial(
        flooding, lambda number: f"GET {path(number)} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    )


def rest(target: Target) -> str:
    """Do nothing for a moment: what the probes measure is the machine's own."""
    time.sleep(0.1)
    return "nothing"


def tiny_chunks(extension: bytes = b"") -> Attack:
    """Return an attack that sends 64 MiB of chunks that hold one byte each."""
    chunks = (b"1%b\r\n\0\r\n" % extension) * (LIMIT // (6 + len(extension)))
    return sending(CHUNKED + chunks + b"0\r\n\r\n")


def empty_streams(coding: str) -> Attack:
    """Return an attack whose coded body decodes to nothing for 64 MiB."""
    if coding == "gzip":
        body = pattern(gzip.compress(b""))
    else:
        body = zlib.compress(b"")[:2] + pattern(b"\0\0\0\xff\xff")[: LIMIT // 5 * 5 - 10]
    head = request(FLOATS, fields={"Content-Encoding": coding})
    length = f"Content-Length: {len(body)}".encode()
    return sending(head.replace(b"Content-Length: 0", length) + body)


def bomb(coding: str, times: int) -> Attack:
    """Return an attack whose coded body stands for `times` the largest body."""
    body = CODINGS[coding](bytes(LIMIT * times))
    head = request(FLOATS, fields={"Content-Encoding": coding})
    return sending(head.replace(b"Content-Length: 0", b"Content-Length: %d" % len(body)) + body)


def opening(count: int, data: bytes) -> Attack:
    """Return an attack that opens `count` connections, sends `data` on each and closes them."""

    def attack(target: Target) -> str:
        connections = []
        try:
            for _ in range(count):
                connections.append(socket.create_connection((target.host, target.port), 10))
                connections[-1].sendall(data)
        except OSError as err:
            return type(err).__name__
        finally:
            time.sleep(0.2)
            for connection in connections:
                connection.close()
        return "closed"

    return attack


def pieces_of(head: bytes, piece: bytes, count: int) -> Attack:
    """Return an attack that sends `head` and `piece` again and again, made as it is sent."""

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(count):
            yield piece

    return lambda target: exchange(target, pieces())


def _kind(name: str, prepare: Callable[[], Attack], clients: int = 1) -> Kind:
    return Kind(f"head_{name}", prepare, clients)


HEAD_KINDS = (
    Kind("nothing", lambda: rest),
    _kind("Accept", field_flood("Accept", lambda number: f"*/*;a={'x' * LONG}{number}"), 4),
    _kind(
        "Accept parameters", field_flood("Accept", lambda number: f"*/*;{parameters(number)}"), 4
    ),
    _kind(
        "Accept types",
        field_flood(
            "Accept", lambda number: f"*/*,{number}," + ",".join(map(str, range(LONG // 6)))
        ),
        4,
    ),
    _kind(
        "Content-Type",
        field_flood("Content-Type", lambda number: f"text/csv;{parameters(number)}"),
        4,
    ),
    _kind("unknown type", field_flood("Content-Type", lambda n: f"a/b{n};{parameters(n)}"), 4),
    _kind(
        "Accept-Encoding",
        field_flood("Accept-Encoding", lambda number: f"x{number}," + "gzip;q=0," * (LONG // 9)),
        4,
    ),
    _kind("X-Timeout-Ms", field_flood("X-Timeout-Ms", lambda number: "9" * LONG + "x"), 1),
    _kind("X-Timeout-Ms zeros", field_flood("X-Timeout-Ms", lambda number: "0" * LONG + "1"), 1),
    _kind("X-Priority", field_flood("X-Priority", lambda number: "9" * LONG + "x"), 1),
    _kind("X-Request-Id", field_flood("X-Request-Id", lambda number: "a" * LONG + str(number)), 4),
    _kind("X-Api-Key", field_flood("X-Api-Key", lambda number: "a" * LONG + str(number)), 4),
    _kind("empty fields", field_flood("A", lambda number: "\r\nA: " * (LONG // 5)), 4),
    _kind("paths", get_flood(lambda number: "/" + "%61" * 2600 + str(number)), 4),
    _kind("slashes", get_flood(lambda number: "/" * 8000 + str(number)), 4),
    _kind("queries", get_flood(lambda number: f"/livez?{number}&" + "a=b&" * 2000), 4),
    _kind("versions", get_flood(lambda n: f"/v2/models/probe/versions/{'0' * 8000}{n}"), 4),
    _kind("/livez", get_flood(lambda number: "/livez"), 8),
    _kind("/metrics", get_flood(lambda number: "/metrics"), 8),
    _kind("/docs", get_flood(lambda number: "/docs"), 8),
    _kind("/openapi.json", get_flood(lambda number: "/openapi.json"), 8),
    _kind("/v2/models/stats", get_flood(lambda number: "/v2/models/stats"), 8),
    _kind(
        "/v2/repository/index",
        partial(flooding, lambda number: request("/v2/repository/index", keep=True)),
        8,
    ),
    _kind("/readyz?deep=1", get_flood(lambda number: "/readyz?deep=1"), 8),
    _kind("predict", partial(flooding, lambda n: request(PROBE, ROW, keep=True)), 8),
)

FRAMING_KINDS = (
    Kind("chunks_tiny", tiny_chunks),
    Kind("chunks_extension", partial(tiny_chunks, b";" + b"a" * 1000)),
    Kind(
        "chunks_extension of 64 MiB",
        lambda: pieces_of(CHUNKED + b"1;", b"a" * 65536, 1024),
    ),
    Kind("line ends before a request", lambda: pieces_of(b"", b"\r\n" * 32768, 1024)),
    Kind("gzip_empty streams", partial(empty_streams, "gzip")),
    Kind("deflate_empty blocks", partial(empty_streams, "deflate")),
    Kind("gzip_bomb", partial(bomb, "gzip", 20)),
    Kind("deflate_bomb", partial(bomb, "deflate", 20)),
    Kind("connections", partial(opening, 500, b"")),
    Kind("connections with half a head", partial(opening, 500, b"POST /predict HTTP/1.1\r\nHo")),
    Kind(
        "connections with half a body", partial(opening, 100, request(FLOATS, bytes(1 << 20))[:-5])
    ),
)
