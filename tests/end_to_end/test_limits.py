"""Clients that send too much, come too many at a time, or leave, over real sockets."""

from __future__ import annotations

import gzip
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.processes import Process, receive_all, started, until, write_model
from tests.support.http_answers import Answer, parse_answers

SLOW = """
import time
from pathlib import Path

class Model:
    def predict(self, inputs):
        time.sleep(0.02)
        while Path({gate!r}).exists():
            time.sleep(0.005)
        return {{"y": inputs["x"] * 2}}
"""
"""A model that answers nothing while the file `gate` exists."""
ROW = np.ones(4, "<f4").tobytes()
LIMIT = 1 << 20
ANSWER_LIMIT_S = 10.0
CLIENTS = 1000
ROUNDS = 10
MAX_HELD_ROWS = 2 * 64
"""Rows of the two batches that a worker holds at most: those cannot be taken back."""
MIB = 1 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture
def gate(folder: Path) -> Iterator[Path]:
    """Return the file whose existence keeps the model from answering."""
    path = folder / "gate"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the clients are all in this process
    write_model(folder / "models", "slow", SLOW.format(gate=str(folder / "gate")))
    settings = (
        f"model_repository={folder / 'models'}",
        f"max_body_bytes={LIMIT}",
        "max_connections=1500",
    )
    with started(folder, *(part for setting in settings for part in ("--set", setting))) as process:
        yield process
        assert "Traceback" not in process.errors


def head(*fields: str) -> bytes:
    lines = [
        "POST /predict HTTP/1.1",
        "Host: h",
        "Content-Type: application/octet-stream",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


REQUEST = head("Content-Length: 16") + ROW


def endless() -> Iterator[bytes]:
    yield head("Transfer-Encoding: chunked")
    while True:
        yield b"10000\r\n" + bytes(1 << 16) + b"\r\n"


def declared() -> Iterator[bytes]:
    yield head(f"Content-Length: {70 * MIB}")
    for _ in range(70 * MIB >> 16):
        yield bytes(1 << 16)


def bomb() -> Iterator[bytes]:
    body = gzip.compress(bytes(70 * MIB))
    assert len(body) < LIMIT
    yield head(f"Content-Length: {len(body)}", "Content-Encoding: gzip", "Connection: close") + body


def chunked_bomb() -> Iterator[bytes]:
    body = gzip.compress(bytes(70 * MIB))
    yield head(
        "Transfer-Encoding: chunked", "Content-Encoding: gzip", "Connection: close"
    ) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


TOO_MUCH = [declared, endless, bomb, chunked_bomb]


def send_and_listen(connection: socket.socket, pieces: Iterator[bytes]) -> bytes:
    """Send `pieces` until an answer begins or no piece is left, and return the answer."""
    connection.setblocking(False)
    received = b""
    for piece in pieces:
        rest = piece
        while rest and not received:
            with suppress(BlockingIOError):
                rest = rest[connection.send(rest) :]
            with suppress(BlockingIOError):
                received += connection.recv(1 << 16)
        if received:
            break
    connection.settimeout(ANSWER_LIMIT_S)
    return received + receive_all(connection)


def small_answer(server: Process) -> Answer:
    """Return the answer to a small request on a new connection."""
    with server.connect() as connection:
        connection.sendall(head("Content-Length: 16", "Connection: close") + ROW)
        (answer,), rest = parse_answers(receive_all(connection), [], over=True)
    assert rest == b""
    return answer


@pytest.mark.parametrize("pieces", TOO_MUCH)
def test_a_body_over_the_limit_gets_413_while_it_is_sent_and_the_next_request_is_served(
    server: Process, pieces: Callable[[], Iterator[bytes]]
) -> None:
    before = server.resident()
    with server.connect() as connection:
        (answer,), rest = parse_answers(send_and_listen(connection, pieces()), [], over=True)
    assert (answer.status, answer.header("connection"), rest) == (413, "close", b"")
    assert small_answer(server).status == 200
    assert server.resident() - before < 20 * MIB


@pytest.mark.parametrize("pieces", [declared, endless])
def test_who_sends_too_much_and_never_listens_is_cut_off(
    server: Process, pieces: Callable[[], Iterator[bytes]]
) -> None:
    before = server.resident()
    began = time.monotonic()
    with server.connect() as connection:
        connection.settimeout(ANSWER_LIMIT_S)
        with suppress(ConnectionError):
            for piece in pieces():
                connection.sendall(piece)
                assert time.monotonic() - began < ANSWER_LIMIT_S, "it is never cut off"
    assert small_answer(server).status == 200
    assert server.resident() - before < 20 * MIB


def test_one_connection_too_many_gets_503_and_those_before_it_are_served(server: Process) -> None:
    until(lambda: server.metric("batcher_connections") <= 1)
    connections = [server.connect() for _ in range(1500)]
    try:
        with server.connect() as surplus:
            (answer,), _ = parse_answers(receive_all(surplus), [], over=True)
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        connections[0].sendall(REQUEST)
        assert connections[0].recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    finally:
        for connection in connections:
            connection.close()
    until(lambda: _reachable(server) and server.metric("batcher_connections") <= 1)


def _reachable(server: Process) -> bool:
    try:
        return bool(server.get("/livez"))
    except OSError:
        return False


def hang_up(server: Process) -> None:
    """Let a thousand clients send a request each and close at once, half of them by a reset."""
    for number in range(CLIENTS):
        connection = server.connect()
        connection.sendall(REQUEST)
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


def is_left(server: Process) -> bool:
    """Return whether nobody is connected but who asks, and no row waits."""
    return server.metric("batcher_connections") <= 1 and server.metric("batcher_queue_rows") == 0


def is_quiet(server: Process) -> bool:
    waiting = server.metric("batcher_queue_rows") + server.metric("batcher_in_flight_rows")
    return waiting == 0 and server.metric("batcher_connections") <= 1


def test_clients_that_hang_up_at_once_cost_neither_work_nor_memory(
    server: Process, gate: Path
) -> None:
    until(lambda: is_quiet(server))
    cancelled = server.metric("batcher_cancelled_rows_total")
    ran = server.metric("batcher_batch_size_sum")
    memory = []
    for _ in range(ROUNDS):
        gate.touch()
        hang_up(server)
        until(lambda: is_left(server))
        gate.unlink()
        until(lambda: is_quiet(server))
        memory.append(server.resident())
    assert memory[-1] - memory[1] < 10 * MIB, [size // MIB for size in memory]
    assert server.metric("batcher_cancelled_rows_total") - cancelled > 5 * CLIENTS
    assert server.metric("batcher_batch_size_sum") - ran <= ROUNDS * MAX_HELD_ROWS, (
        "rows that nobody waits for leave the queue, and never reach the model"
    )
    assert small_answer(server).status == 200
    assert "Traceback" not in server.errors
