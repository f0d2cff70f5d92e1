"""gRPC: mutated messages by the library's own channel, and mutated frames of HTTP/2."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Sequence

import grpc

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from benchmarks.fuzzing.mutator import mutated
from benchmarks.hostile_kinds.grpc_calls import (
    ACKNOWLEDGEMENT,
    CALL_HEADERS,
    PREFACE,
    SERVICE,
    frame,
)
from benchmarks.hostile_kinds.kind import Target

CALLS = 24
"""Mutated calls of one session, all under way at once."""

CALL_LIMIT_S = 20.0
BACK_WITHIN_S = 2.0

WRONG = frozenset((grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS))
"""Statuses that say that the server failed, and not its client."""


def _infer(model: str, datatype: str, shape: Sequence[int], **contents: object) -> bytes:
    message = pb.ModelInferRequest(model_name=model, id="7")
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    for name, value in contents.items():
        if name == "raw":
            message.raw_input_contents.append(value)
        else:
            getattr(message.inputs[0].contents, name).extend(value)
    message.parameters["timeout"].int64_param = 9_000_000
    message.outputs.add(name="y").parameters["binary_data"].bool_param = True
    return bytes(message.SerializeToString())


_TEXTS = b"\1\0\0\0a\2\0\0\0bc"
INFER = (
    _infer("floats", "FP32", [2, 2], fp32_contents=[1, 2, 3, 4]),
    _infer("floats", "FP32", [2, 2], raw=bytes(16)),
    _infer("texts", "BYTES", [1, 2], bytes_contents=[b"a", b"bc"]),
    _infer("texts", "BYTES", [1, 2], raw=_TEXTS),
    _infer("floats", "INT64", [1, 2], int64_contents=[1, -2]),
)
SAMPLES = (
    *(("ModelInfer", message) for message in INFER * 4),
    ("ServerLive", b""),
    ("ServerMetadata", b""),
    ("ModelReady", pb.ModelReadyRequest(name="floats").SerializeToString()),
    ("ModelMetadata", pb.ModelMetadataRequest(name="floats").SerializeToString()),
    ("ModelConfig", pb.ModelConfigRequest(name="floats", version="1").SerializeToString()),
    ("ModelStatistics", pb.ModelStatisticsRequest(name="floats").SerializeToString()),
    ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True).SerializeToString()),
    ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="a").SerializeToString()),
)
MESSAGES = [message for _, message in SAMPLES if message]


class GrpcClient:
    """One client with a channel of its own."""

    def __init__(self, target: Target) -> None:
        """Open a channel that shares no connection with others."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 20)]
        self._channel = grpc.insecure_channel(target.grpc, options=options)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def run(self, name: str) -> tuple[int, str]:
        """Run the session that follows from `name`; return calls handled and what is wrong."""
        chance = random.Random(name)
        if chance.random() < 0.1:
            return self._stream(chance)
        row = chance.randbytes(256)
        probe = self._channel.unary_unary(SERVICE + "ModelInfer")
        futures = []
        for _ in range(CALLS):
            method, message = chance.choice(SAMPLES)
            call = self._channel.unary_unary(SERVICE + method)
            message = mutated(chance, message, MESSAGES)
            futures.append((message, call.future(message, timeout=CALL_LIMIT_S)))
        own = probe.future(_infer("probe", "FP32", [1, 64], raw=row), timeout=CALL_LIMIT_S)
        wrong = [_judged(message, future) for message, future in futures]
        if own.exception() is not None:
            wrong.append(f"a right call was answered {own.code()}: {own.details()}")
        elif pb.ModelInferResponse.FromString(own.result()).raw_output_contents[0] != row:
            wrong.append("a right call got another's result")
        return CALLS, next(filter(None, wrong), "")

    def _stream(self, chance: random.Random) -> tuple[int, str]:
        sent = [mutated(chance, chance.choice(INFER), MESSAGES) for _ in range(8)]
        call = self._channel.stream_stream(SERVICE + "ModelStreamInfer")
        answers = call(iter(sent), timeout=CALL_LIMIT_S)
        try:
            for number, _ in enumerate(answers):
                if number == 4 and chance.random() < 0.2:
                    answers.cancel()
                    break
        except grpc.RpcError as err:
            if err.code() in WRONG:
                return len(sent), f"{err.code()} {err.details()!r:.300} for a stream of {sent!r}"
        return len(sent), ""


def _judged(message: bytes, future: grpc.Future) -> str:
    if future.exception() is None or future.code() not in WRONG:
        return ""
    return f"{future.code()} {future.details()!r:.300} for {message!r}"


def _calls(chance: random.Random) -> bytes:
    """Return a few calls, each a stream of one message, as frames."""
    out = []
    for number in range(chance.randint(1, 6)):
        stream, message = 2 * number + 1, chance.choice(INFER)
        headers = CALL_HEADERS.replace(b"ModelStreamInfer", b"ModelInfer")
        # the length of the path stands before the path
        path = len(SERVICE + "ModelInfer")
        headers = headers.replace(
            bytes([path + 6]) + SERVICE.encode(), bytes([path]) + SERVICE.encode()
        )
        out.append(frame(1, 4, stream, headers))
        out.append(frame(0, 1, stream, b"\0" + struct.pack(">I", len(message)) + message))
    return b"".join(out)


def _connected(target: Target) -> socket.socket:
    """Return a connection; a server of the library that ended by itself is replaced soon."""
    end = time.monotonic() + BACK_WITHIN_S
    while True:
        try:
            return socket.create_connection((target.host, target.grpc_port), timeout=20)
        except (ConnectionRefusedError, ConnectionResetError):  # the port is opened anew
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def run_frames(target: Target, name: str) -> tuple[int, str]:
    """Send mutated frames on a connection of their own, and hear what comes at once."""
    chance = random.Random(name)
    with _connected(target) as connection:
        try:
            begin = PREFACE
            if chance.random() < 0.8:  # as honest clients do, so that the calls get far
                connection.sendall(PREFACE)
                connection.recv(1 << 16)
                begin = ACKNOWLEDGEMENT
            calls = begin + _calls(chance)
            connection.sendall(mutated(chance, calls, [PREFACE + _calls(chance)]))
            connection.settimeout(0.05)
            while connection.recv(1 << 16):
                pass
        except OSError:
            pass
    return 1, ""


LOCAL = threading.local()
"""Each thread's GrpcClient."""


def run_grpc(target: Target, name: str) -> tuple[int, str]:
    """Run the session that follows from `name`, by this thread's client."""
    if not hasattr(LOCAL, "client"):
        LOCAL.client = GrpcClient(target)
    client: GrpcClient = LOCAL.client
    return client.run(name)
