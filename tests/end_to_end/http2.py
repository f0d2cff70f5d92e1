"""Frames of HTTP/2, for clients that no library would be."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DATA, HEADERS, RESET, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_HEADERS = 4
END_STREAM = 1
CANCEL = 8
ACKNOWLEDGED = 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b"")


def _setting(name: int, value: int) -> bytes:
    return _frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


MAX_WINDOW = (1 << 31) - 1
WIDE_WINDOWS = _setting(4, MAX_WINDOW) + _frame(8, 0, 0, struct.pack(">I", MAX_WINDOW - 65_535))
"""Frames by which a client lets the server send as much as the connection takes."""

ACKNOWLEDGEMENT = _frame(SETTINGS, ACKNOWLEDGED, 0, b"")
NO_MORE_CALLS = _frame(GOAWAY, 0, 0, struct.pack(">II", (1 << 31) - 1, 0))


def begin(connection: socket.socket) -> None:
    """Open HTTP/2 on `connection` as every client does: with the server's settings acknowledged."""
    connection.sendall(PREFACE)
    assert connection.recv(1 << 16), "the server's settings come first"
    connection.sendall(ACKNOWLEDGEMENT)


def call(stream: int, service: str, method: str, flags: int = END_HEADERS) -> bytes:
    """Return the frame that opens `stream`, an odd number, with a gRPC call."""
    fields = {
        ":path": f"{service}/{method}",
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # 0x83 and 0x86 stand for `:method: POST` and `:scheme: http`.
    head = b"\x83\x86" + b"".join(map(_field, fields, fields.values()))
    return _frame(HEADERS, flags, stream, head)


def more_fields(stream: int, count: int, flags: int = 0) -> bytes:
    """Return the frame that goes on with a head by `count` fields named `a`, without a value."""
    return _frame(CONTINUATION, flags, stream, _field("a", "") * count)


def _field(name: str, value: str) -> bytes:
    """Return a field that neither side need remember; both texts have at most 126 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def message(stream: int, content: bytes) -> bytes:
    """Return the frame with a gRPC message that is the last one of `stream`."""
    return _frame(DATA, END_STREAM, stream, b"\0" + struct.pack(">I", len(content)) + content)


def reset(stream: int) -> bytes:
    """Return the frame that cancels `stream`."""
    return _frame(RESET, 0, stream, struct.pack(">I", CANCEL))


@contextmanager
def reading(connection: socket.socket) -> Iterator[None]:
    """Read and drop what comes on `connection`, which is shut down at the end."""

    def read() -> None:
        with suppress(OSError):
            while connection.recv(1 << 16):
                pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        reader.join()
