"""ZeroMQ as clients speak it: our own forms, plain sockets of pyzmq, keys, bursts, and the end."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from twisted.internet import reactor
from twisted.internet.threads import blockingCallFromThread

from batcher.client import (
    AsyncClient,
    Client,
    CurveKeys,
    DeadlineExceeded,
    InferenceFailed,
    NotConnected,
    TwistedClient,
)
from tests.end_to_end.processes import Process, run, started, until, write_model

zmq = pytest.importorskip("zmq", reason="extra zeromq")
auth = pytest.importorskip("zmq.auth", reason="extra zeromq")

HEAD = {"model_name": "doubles", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]}
DOUBLES = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
SLOW = "import time\n" + DOUBLES.replace(
    "        return", "        time.sleep(0.3)\n        return"
)
LARGE = """
import numpy as np

class Model:
    def predict(self, inputs):
        rows = len(inputs["x"])
        return {"y": np.repeat(inputs["x"][:, :1], 1 << 18, axis=1)}
"""
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "doubles", DOUBLES)
    write_model(folder, "slow", SLOW)
    write_model(folder, "large", LARGE)
    path = folder / "large" / "1" / "model.yaml"
    small = "name: y, dtype: FP32, shape: [4]"
    path.write_text(path.read_text().replace(small, small.replace("[4]", "[262144]")))
    return folder


@contextmanager
def serving(folder: Path, repository: Path, *pairs: str, ready: bool = True) -> Iterator[Process]:
    settings = (f"model_repository={repository}", "zeromq=tcp://127.0.0.1:0", *pairs)
    arguments = [word for pair in settings for word in ("--set", pair)]
    with started(folder, *arguments, ready=ready) as process:
        yield process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Process]:
    pairs = ("max_body_bytes=1MiB", "max_buffer_bytes=16MiB", "access_log=true")
    with serving(tmp_path_factory.mktemp("zeromq"), repository, *pairs) as process:
        yield process
        assert "Traceback" not in process.errors


def endpoint(process: Process) -> str:
    found = re.search(r"(tcp|ipc)://\S+", "\n".join(process.lines))
    assert found, process.lines
    return found[0]


def address(process: Process) -> str:
    return endpoint(process).replace("tcp://", "zmq://").replace("ipc://", "zmq://")


@pytest.fixture
def context() -> Iterator[Any]:
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 1 << 14)
    yield context
    context.destroy(linger=0)


def connected(context: Any, where: str | Process) -> Any:
    dealer = context.socket(zmq.DEALER)
    dealer.set(zmq.LINGER, 0)
    dealer.set(zmq.RCVTIMEO, WAIT_MS)
    dealer.connect(where if isinstance(where, str) else endpoint(where))
    return dealer


def send(dealer: Any, number: int, value: float, **more: Any) -> None:
    header = msgpack.packb({**HEAD, **more})
    row = np.full(4, value, "<f4")
    dealer.send_multipart([number.to_bytes(8, "big") + header, row.tobytes()])


def receive(dealer: Any) -> tuple[int, dict[str, Any], list[bytes]]:
    first, *parts = dealer.recv_multipart()
    return int.from_bytes(first[:8], "big"), msgpack.unpackb(first[8:]), parts


ROW = {"x": np.ones((1, 4), "f4")}


def check_forms(where: str, **options: Any) -> None:
    """Have each form of the client ask the server at `where`."""
    with Client(where, **options) as client:
        assert client.is_ready()
        assert client.metadata("doubles")["name"] == "doubles"
        assert client.infer("doubles", ROW).outputs["y"].tolist() == [[2] * 4]
        with pytest.raises(InferenceFailed, match="404"):
            client.infer("nobody", ROW)
        # The server drops the row, and the client gives up, whichever is first.
        with pytest.raises((DeadlineExceeded, InferenceFailed), match=r"deadline|within 0\.1 s"):
            client.infer("slow", ROW, timeout=0.1)
        assert client.infer("doubles", ROW).outputs["y"].tolist() == [[2] * 4]

    async def ask() -> list[float]:
        async with AsyncClient(where, **options) as client:
            rows = [{"x": np.full((1, 4), value, "f4")} for value in range(200)]
            results = await asyncio.gather(*(client.infer("doubles", row) for row in rows))
            return [float(result.outputs["y"][0, 0]) for result in results]

    assert asyncio.run(ask()) == [2 * value for value in range(200)]


def test_each_form_of_the_client_asks(server: Process, reactor_thread: None) -> None:
    check_forms(address(server))
    client = TwistedClient(reactor, address(server))
    result = blockingCallFromThread(reactor, client.infer, "doubles", ROW)
    assert result.outputs["y"].tolist() == [[2] * 4]
    blockingCallFromThread(reactor, client.close)


def test_nobody_there_is_not_connected(tmp_path: Path) -> None:
    with Client(f"zmq://{tmp_path}/nobody", retries=0) as client, pytest.raises(NotConnected):
        client.infer("doubles", ROW)


def test_bursts_are_answered_each_with_its_own_row(server: Process, context: Any) -> None:
    draw = random.Random(0)
    dealer = connected(context, server)
    number = 0
    for _ in range(40):
        burst = draw.randrange(1, 500)
        for _ in range(burst):
            number += 1
            send(dealer, number, number % 1000)
        for _ in range(burst):
            found, header, (part,) = receive(dealer)
            assert header["status"] == 200
            assert np.frombuffer(part, "<f4")[0] == 2 * (found % 1000)
    assert server.metric("batcher_zeromq_dropped_answers_total") == 0


def test_a_client_that_leaves_takes_its_requests_along(server: Process, context: Any) -> None:
    before = server.metric("batcher_cancelled_rows_total")
    dealer = connected(context, server)
    for number in range(1, 4):
        send(dealer, number, 1, model_name="slow")
    until(lambda: server.metric("batcher_in_flight_rows") > 0)
    dealer.close(0)
    until(lambda: server.metric("batcher_cancelled_rows_total") - before == 3)


def test_a_client_that_does_not_read_harms_nobody(server: Process, context: Any) -> None:
    slow = context.socket(zmq.DEALER)
    slow.set(zmq.RCVHWM, 1)
    slow.set(zmq.LINGER, 0)
    slow.connect(endpoint(server))
    for number in range(1, 101):
        send(slow, number, 1, model_name="large")  # an answer has a MiB
    before = server.metric("batcher_zeromq_dropped_answers_total")
    until(lambda: server.metric("batcher_zeromq_waiting_bytes") > 1 << 20)
    dealer = connected(context, server)
    for number in range(1, 200):
        send(dealer, number, number)
        assert receive(dealer)[1]["status"] == 200
    until(lambda: server.metric("batcher_zeromq_dropped_answers_total") > before)
    assert server.metric("batcher_zeromq_waiting_bytes") <= 16 << 20
    slow.set(zmq.RCVTIMEO, WAIT_MS)
    answers = [receive(slow) for _ in range(100)]
    assert {number for number, _, _ in answers} == set(range(1, 101))
    kinds = {header.get("code", "") for _, header, _ in answers}
    assert kinds == {"", "buffers_full"}
    until(lambda: server.metric("batcher_zeromq_waiting_bytes") == 0)


def test_any_bytes_do_not_harm_the_server(server: Process, context: Any) -> None:
    draw = random.Random(1)
    good = msgpack.packb(HEAD)
    for _ in range(30):
        with socket.create_connection(
            ("127.0.0.1", int(endpoint(server).rpartition(":")[2]))
        ) as plain:
            plain.sendall(draw.randbytes(draw.randrange(200)))
    dealer = connected(context, server)
    for number in range(1, 1000):
        header = bytearray(number.to_bytes(8, "big") + good)
        for _ in range(draw.randrange(4)):
            header[draw.randrange(8, len(header))] = draw.randrange(256)
        parts = [draw.randbytes(draw.choice([0, 15, 16])) for _ in range(draw.randrange(3))]
        dealer.send_multipart([bytes(header), *parts])
        found, answer, _ = receive(dealer)
        assert found == number
        assert answer["status"] in (200, 400, 404, 501)
    dealer.send_multipart([b"12345678" + good, bytes(2 << 20)])  # the library closes
    send(connected(context, server), 7, 7)
    named = context.socket(zmq.DEALER)
    named.set(zmq.ROUTING_ID, b"me")
    named.set(zmq.RCVTIMEO, WAIT_MS)
    named.connect(endpoint(server))
    send(named, 1, 1)
    assert receive(named)[1]["status"] == 400
    check = connected(context, server)
    send(check, 1, 3)
    assert receive(check)[1]["status"] == 200


def test_keys_decide_who_comes_in(tmp_path: Path, repository: Path) -> None:
    clients = tmp_path / "clients"
    clients.mkdir()
    auth.create_certificates(tmp_path, "server")
    auth.create_certificates(clients, "alice")
    auth.create_certificates(tmp_path, "mallory")
    server_key, _ = auth.load_certificate(tmp_path / "server.key")

    def keys(path: Path) -> CurveKeys:
        public, secret = auth.load_certificate(path)
        return CurveKeys(server_key.decode(), public.decode(), secret.decode())

    pairs = (f"zeromq_key={tmp_path / 'server.key_secret'}", f"zeromq_clients={clients}")
    with serving(tmp_path, repository, *pairs) as process:
        where = address(process)
        check_forms(where, curve=keys(clients / "alice.key_secret"))
        for curve in (keys(tmp_path / "mallory.key_secret"), None):
            client = Client(where, retries=0, timeout=5, curve=curve)
            with client, pytest.raises(NotConnected):
                client.infer("doubles", ROW)
        assert "Traceback" not in process.errors


def test_the_end_loses_no_request_and_tells_clients(
    tmp_path: Path, repository: Path, context: Any
) -> None:
    with serving(tmp_path, repository) as process, ExitStack() as stack:
        idle, dealer = connected(context, process), connected(context, process)
        client = stack.enter_context(Client(address(process)))
        assert client.infer("doubles", ROW).outputs["y"].tolist() == [[2] * 4]
        for each in (idle, dealer):
            send(each, 1, 1)
            receive(each)
        for number in range(2, 12):
            send(dealer, number, number, model_name="slow")
        until(lambda: process.metric("batcher_in_flight_rows") > 0)
        process.signal(signal.SIGTERM)
        assert receive(idle)[:2] == (0, {"closing": True})
        found = [receive(dealer) for _ in range(11)]
        assert {number for number, _, _ in found} == {0, *range(2, 12)}
        assert all(header.get("status", 200) == 200 for _, header, _ in found)
        for each in (idle, dealer):
            each.close(0)
        assert process.wait(20) == 0
        assert "Traceback" not in process.errors


def test_another_reactor_serves_on_a_socket_of_this_machine(
    tmp_path: Path, repository: Path, context: Any
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"port: 0\nzeromq: ipc://a.zmq\nmodel_repository: {repository}\n")
    command = ("-m", "twisted", "--reactor", "epoll", "batcher", "--config", str(config))
    with started(tmp_path, command=command, ready=False) as process:
        until(lambda: (tmp_path / "a.zmq").exists(), 60)
        with Client(f"zmq://{tmp_path}/a.zmq", timeout=60) as client:
            client.wait_ready()
            assert client.infer("doubles", ROW).outputs["y"].tolist() == [[2] * 4]
        dealer = connected(context, f"ipc://{tmp_path}/a.zmq")
        for number in range(1, 1000):
            send(dealer, number, number)
        assert {receive(dealer)[0] for _ in range(999)} == set(range(1, 1000))
        assert (tmp_path / "a.zmq").stat().st_mode & 0o777 == 0o660
        ended = run("serve", "--port", "0", "--set", f"zeromq=ipc://{tmp_path}/a.zmq")
        assert (ended.returncode, "cannot listen on" in ended.stderr) == (1, True)
        process.signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM, "twist ends itself by the signal that it got"


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (["zeromq_key=nowhere"], "zeromq_key: expected a secret certificate of ZeroMQ"),
        (["zeromq_clients=nowhere"], "zeromq_clients: expected zeromq_key beside it"),
    ],
)
def test_what_cannot_be_used_ends_the_start_with_the_reason(pairs: list[str], reason: str) -> None:
    settings = ["zeromq=tcp://127.0.0.1:0", *pairs]
    ended = run("serve", "--port", "0", *[word for pair in settings for word in ("--set", pair)])
    assert ended.returncode == 1
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_two_thousand_clients_have_their_answers(server: Process, context: Any) -> None:
    dealers = [connected(context, server) for _ in range(2000)]
    for turn in (1, 2):
        for value, dealer in enumerate(dealers):
            send(dealer, turn, value)
        for value, dealer in enumerate(dealers):
            number, _, (part,) = receive(dealer)
            assert (number, np.frombuffer(part, "<f4")[0]) == (turn, 2 * value)
    assert server.metric("batcher_zeromq_peers") >= 2000
    for dealer in dealers:
        dealer.close(0)
    until(lambda: server.metric("batcher_zeromq_peers") < 20)
