"""The port in front of gRPC's library: openings, peers, TLS, slow readers, and its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import numpy as np
import pytest

from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from tests.end_to_end import http2
from tests.end_to_end.grpc_calls import SERVICE, infer_on, row, stream_on
from tests.end_to_end.processes import Process, started, until, write_model
from tests.end_to_end.test_forks import sockets_of
from tests.end_to_end.test_listening import certify

WIDE = """
import numpy as np
class Model:
    def predict(self, inputs):
        return {"y": np.repeat(inputs["x"], 1 << 18, axis=1)}
"""


SLOW = """
import time
class Model:
    def predict(self, inputs):
        time.sleep(float(inputs["x"].max()))
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("grpc")
    write_model(folder / "models", "wide", WIDE)
    write_model(folder / "models", "m", SLOW)
    definition = folder / "models" / "wide" / "1" / "model.yaml"
    wide = definition.read_text().replace(
        "y, dtype: FP32, shape: [4]", "y, dtype: FP32, shape: [-1]"
    )
    definition.write_text(wide)
    settings = (
        f"model_repository={folder / 'models'}",
        "access_log=true",
        "header_timeout_s=1",
        "write_timeout_s=1",
    )
    arguments = (part for setting in settings for part in ("--set", setting))
    with started(folder, "--grpc-port", "0", *arguments) as process:
        yield process
        assert "Traceback" not in process.errors


def connected(server: Process) -> socket.socket:
    host, port = server.grpc_address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def is_live(server: Process) -> bool:
    with grpc.insecure_channel(server.grpc_address) as channel:
        live = channel.unary_unary(f"{SERVICE}/ServerLive", None, pb.ServerLiveResponse.FromString)
        return bool(live(b"", timeout=60).live)


def read_to_the_end(connection: socket.socket) -> bytes:
    """Return what comes until the server closes, which it does."""
    found = b""
    with suppress(ConnectionError):
        while came := connection.recv(1 << 16):
            found += came
    return found


def test_a_client_that_never_acknowledges_the_settings_is_cut_off(server: Process) -> None:
    with connected(server) as attacker:
        attacker.sendall(http2.PREFACE + http2.call(1, SERVICE, "ModelStreamInfer", flags=0))
        with suppress(ConnectionError):
            for _ in range(100):
                attacker.sendall(http2.more_fields(1, 1000))
        read_to_the_end(attacker)
    with connected(server) as silent:
        silent.sendall(http2.PREFACE)
        read_to_the_end(silent)
    assert is_live(server)


def test_what_is_not_http_2_is_closed(server: Process) -> None:
    with connected(server) as lost:
        lost.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"HTTP/1.1 200" not in read_to_the_end(lost)


def test_calls_that_come_before_the_servers_settings_are_answered_after_them(
    server: Process,
) -> None:
    with connected(server) as hasty:
        hasty.sendall(http2.PREFACE + http2.call(1, SERVICE, "ServerLive") + http2.message(1, b""))
        assert hasty.recv(1 << 16), "the server's settings come first"
        hasty.sendall(http2.ACKNOWLEDGEMENT)
        answer = b""
        while b"grpc-status" not in answer:
            came = hasty.recv(1 << 16)
            assert came, answer
            answer += came
    assert b"\x08\x01" in answer, "live"


def test_the_access_log_names_the_client_and_not_the_port_in_between(server: Process) -> None:
    with connected(server) as one:
        http2.begin(one)
        one.sendall(http2.call(1, SERVICE, "ServerLive") + http2.message(1, b""))
        assert one.recv(1 << 16)
        peer = "{}:{}".format(*one.getsockname())

        def peers() -> list[str]:
            return [json.loads(line).get("peer", "") for line in server.lines if line[:1] == "{"]

        until(lambda: peer in peers())


def test_the_line_of_a_client_that_left_names_the_client(server: Process) -> None:
    request = row(0.5).SerializeToString()
    with connected(server) as leaving:
        http2.begin(leaving)
        leaving.sendall(http2.call(1, SERVICE, "ModelInfer") + http2.message(1, request))
        peer = "{}:{}".format(*leaving.getsockname())
        until(lambda: server.metric("batcher_in_flight_rows") == 1)

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in server.lines if line[:1] == "{"]

    until(lambda: any(line["peer"] == peer and line["status"] == 499 for line in lines()))


def wide_request() -> pb.ModelInferRequest:
    """Return a request that is answered with 1 MiB for each of its 4 values."""
    return pb.ModelInferRequest(
        model_name="wide",
        inputs=[{"name": "x", "datatype": "FP32", "shape": (1, 4)}],
        raw_input_contents=[np.ones((1, 4), "<f4").tobytes()],
    )


def test_large_answers_to_a_slow_reader_come_whole(server: Process) -> None:
    unlimited = [("grpc.max_receive_message_length", -1)]
    sent: Queue[Any] = Queue()
    with grpc.insecure_channel(server.grpc_address, unlimited) as channel:
        answers = stream_on(channel)(iter(sent.get, None))
        for _ in range(4):
            sent.put(wide_request())
        for _ in range(4):
            answer = next(answers)
            assert answer.error_message == ""
            content = np.frombuffer(answer.infer_response.raw_output_contents[0], "<f4")
            assert content.shape == (1 << 20,)
            assert (content == 1).all()
        sent.put(None)


def test_clients_that_leave_before_they_are_taken_leave_nothing_behind(server: Process) -> None:
    before = len(sockets_of(server.pid))
    for _ in range(200):
        with connected(server) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert is_live(server)
    # The fixture looks for tracebacks.
    until(lambda: len(sockets_of(server.pid)) <= before)


def test_a_client_that_reads_nothing_is_cut_off(server: Process) -> None:
    before = len(sockets_of(server.pid))
    request = wide_request().SerializeToString()
    with connected(server) as silent:
        http2.begin(silent)
        silent.sendall(http2.WIDE_WINDOWS)
        for number in range(1, 16, 2):
            silent.sendall(http2.call(number, SERVICE, "ModelInfer"))
            silent.sendall(http2.message(number, request))
        until(lambda: len(sockets_of(server.pid)) > before)
        until(lambda: len(sockets_of(server.pid)) <= before)


def test_a_new_certificate_is_shown_after_a_reload(tmp_path: Path) -> None:
    certify(tmp_path, "server")
    arguments = ("--grpc-port", "0", "--set", f"tls_certificate={tmp_path / 'server.pem'}")
    with started(tmp_path, *arguments, ready=False) as process:
        until(lambda: "grpcs://" in "\n".join(process.lines), 60)
        found = re.search(r"grpcs://\S+:(\d+)", "\n".join(process.lines))
        assert found
        where = "127.0.0.1", int(found[1])
        assert (
            ssl.get_server_certificate(where, timeout=10) == (tmp_path / "server.crt").read_text()
        )
        certify(tmp_path, "server")
        process.signal(signal.SIGHUP)
        until(
            lambda: (
                ssl.get_server_certificate(where, timeout=10)
                == (tmp_path / "server.crt").read_text()
            )
        )


def test_nothing_is_left_of_the_inner_socket(tmp_path: Path) -> None:
    # Not in `tmp_path`, whose length may leave no room: a socket's path has at most 107 bytes. The
    # prefix has to be written otherwise in an address.
    with (
        TemporaryDirectory(prefix="50%41 ä?#") as place,
        started(tmp_path, "--grpc-port", "0", environment={"TMPDIR": place}) as process,
    ):
        (made,) = Path(place).glob("batcher-grpc-*")
        assert made.stat().st_mode & 0o777 == 0o700
        assert is_live(process)
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not made.exists()


def test_a_call_that_crosses_the_word_of_the_end_is_answered(tmp_path: Path) -> None:
    with started(tmp_path, "--grpc-port", "0") as process, connected(process) as kept:
        http2.begin(kept)
        process.signal(signal.SIGTERM)
        came = b""
        while http2.NO_MORE_CALLS not in came:
            came += kept.recv(1 << 16)
        kept.sendall(http2.call(1, SERVICE, "ServerLive") + http2.message(1, b""))
        answer = read_to_the_end(kept)
        assert b"\x08\x01" in answer, "live"
        assert b"grpc-status" in answer
        assert process.wait(20) == 0


def test_clients_that_call_without_a_pause_lose_nothing_when_one_of_two_servers_ends(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "models", "m", SLOW)
    arguments = ("--grpc-port", "0", "--set", f"model_repository={tmp_path / 'models'}")
    answered = [0] * 12
    over = threading.Event()
    failures: list[grpc.RpcError] = []

    def call_without_a_pause(number: int, addresses: str) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(addresses, own) as channel:
            infer = infer_on(channel)
            while not over.is_set():
                try:
                    infer(row(0.0), timeout=60)
                    answered[number] += 1
                except grpc.RpcError as err:
                    failures.append(err)
                    return

    def until_each_has_more() -> None:
        before = list(answered)
        until(lambda: failures or all(map(lambda now, then: now > then + 5, answered, before)), 60)

    with started(tmp_path, *arguments) as first, started(tmp_path, *arguments) as second:
        addresses = f"ipv4:{first.grpc_address},{second.grpc_address}"
        clients = [
            threading.Thread(target=call_without_a_pause, args=(number, addresses))
            for number in range(len(answered))
        ]
        for client in clients:
            client.start()
        try:
            until_each_has_more()
            assert first.metric("batcher_batch_size_count") > 0
            assert second.metric("batcher_batch_size_count") == 0, "all call the first server"
            first.signal(signal.SIGTERM)
            assert first.wait(30) == 0
            until_each_has_more()
        finally:
            over.set()
            for client in clients:
                client.join()
        assert not failures


def test_an_idle_client_of_tls_that_says_nothing_delays_no_end(tmp_path: Path) -> None:
    certify(tmp_path, "server")
    arguments = ("--grpc-port", "0", "--set", f"tls_certificate={tmp_path / 'server.pem'}")
    context = ssl.create_default_context(cafile=tmp_path / "server.crt")
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with started(tmp_path, *arguments, ready=False) as process:
        until(lambda: "grpcs://" in "\n".join(process.lines), 60)
        found = re.search(r"grpcs://\S+:(\d+)", "\n".join(process.lines))
        assert found
        plain = socket.create_connection(("127.0.0.1", int(found[1])), timeout=60)
        with context.wrap_socket(plain) as silent:
            http2.begin(silent)
            process.signal(signal.SIGTERM)
            assert process.wait(15) == 0, "the library waits for 20 s"


def test_a_silent_client_whose_call_hangs_delays_the_end_no_longer_than_the_drain_timeout(
    tmp_path: Path,
) -> None:
    write_model(tmp_path / "models", "m", SLOW)
    settings = (f"model_repository={tmp_path / 'models'}", "drain_timeout_s=1")
    arguments = (part for setting in settings for part in ("--set", setting))
    with (
        started(tmp_path, "--grpc-port", "0", *arguments) as process,
        connected(process) as silent,
    ):
        http2.begin(silent)
        request = row(60.0).SerializeToString()
        silent.sendall(http2.call(1, SERVICE, "ModelInfer") + http2.message(1, request))
        until(lambda: process.metric("batcher_in_flight_rows") == 1)
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 0, "the library waits for 20 s"
