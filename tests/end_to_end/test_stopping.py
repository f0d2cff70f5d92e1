"""Stopping by a signal: every accepted request is answered, and nothing delays the end."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest

from tests.end_to_end.processes import Process, one_answer, receive_all, started, until, write_model
from tests.support.http_answers import Answer, parse_answers

SLOW = """
import time

class Model:
    def predict(self, inputs):
        time.sleep(0.3 * inputs["x"].any())
        return {"y": inputs["x"] * 2}
"""
HANGS = """
import time

class Model:
    def predict(self, inputs):
        if inputs["x"].any():
            time.sleep(600)
        return {"y": inputs["x"] * 2}
"""


def request(value: float, *fields: str) -> bytes:
    lines = [
        "POST /predict HTTP/1.1",
        "Host: h",
        "Content-Type: application/octet-stream",
        "Content-Length: 16",
        *fields,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + np.full(4, value, "<f4").tobytes()


def answers_of(connection: socket.socket) -> list[Answer]:
    answers, rest = parse_answers(receive_all(connection), [], over=True)
    assert rest == b""
    return answers


def is_ready(server: Process) -> bool:
    try:
        return "true" in server.get("/readyz")
    except HTTPError:
        return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    write_model(tmp_path / "models", "slow", SLOW)
    settings = (
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "defaults.max_batch_size=8",
    )
    with started(tmp_path, *settings) as process:
        yield process


def test_signals_while_it_stops_change_nothing_and_are_not_logged_as_faults(
    server: Process,
) -> None:
    with server.connect() as connection:
        connection.sendall(request(1) * 3)
        until(lambda: server.metric("batcher_in_flight_rows") > 0)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            server.signal(number)
        assert [answer.status for answer in answers_of(connection)] == [200] * 3
    assert server.wait(30) == 0
    assert "Traceback" not in server.errors


def test_everything_that_was_accepted_is_answered_and_the_exit_status_is_0(server: Process) -> None:
    connections = [server.connect() for _ in range(20)]
    pipelined, half_closed, idle = connections[0], connections[1], connections[2]
    for number, connection in enumerate(connections, 1):
        if connection is not idle:
            connection.sendall(request(number) * (3 if connection is pipelined else 1))
    half_closed.shutdown(socket.SHUT_WR)
    until(lambda: server.metric("batcher_in_flight_rows") > 0)
    until(
        lambda: server.metric("batcher_in_flight_rows") + server.metric("batcher_queue_rows") >= 10
    )
    server.signal(signal.SIGTERM)
    began = time.monotonic()
    for number, connection in enumerate(connections, 1):
        with connection:
            answers = answers_of(connection)
        expected = 0 if connection is idle else 3 if connection is pipelined else 1
        assert [answer.status for answer in answers] == [200] * expected
        assert all(np.frombuffer(answer.body, "<f4")[0] == 2 * number for answer in answers)
        assert expected == 0 or answers[-1].header("connection") == "close"
    assert server.wait(10) == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in server.errors


def test_new_connections_are_refused_as_soon_as_it_stops(server: Process) -> None:
    with server.connect() as connection:
        connection.sendall(request(1))
        until(lambda: server.metric("batcher_in_flight_rows") > 0)
        server.signal(signal.SIGINT)
        until(lambda: not server.listens(), seconds=2)
        assert [answer.status for answer in answers_of(connection)] == [200], (
            "while one is still answered"
        )
    assert server.wait(10) == 0


def test_a_request_on_a_kept_connection_is_answered_and_its_answer_is_the_last(
    server: Process,
) -> None:
    with server.connect() as busy, server.connect() as kept:
        kept.sendall(request(1))
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
        busy.sendall(request(1))
        until(lambda: server.metric("batcher_in_flight_rows") > 0)
        server.signal(signal.SIGTERM)
        until(lambda: not server.listens(), seconds=2)
        kept.sendall(request(2))
        answers = answers_of(kept)
        assert [(answer.status, answer.header("connection")) for answer in answers] == [
            (200, "close")
        ]
    assert server.wait(10) == 0


def test_before_it_stops_it_is_not_ready_and_takes_new_connections(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "slow", SLOW)
    arguments = (f"model_repository={tmp_path / 'models'}", "pre_stop_s=1.5")
    settings = [part for argument in arguments for part in ("--set", argument)]
    with started(tmp_path, *settings) as server:
        server.signal(signal.SIGTERM)
        until(lambda: not is_ready(server), seconds=1)
        with server.connect() as late:
            late.sendall(request(1, "Connection: close"))
            assert [answer.status for answer in answers_of(late)] == [200]
        assert "true" in server.get("/livez")
        assert server.wait(10) == 0
        assert "Traceback" not in server.errors


SERVE = ("serve.py", "--config")
TWIST = ("-m", "twisted", "--log-format", "text", "batcher", "--config")


@pytest.mark.parametrize("command", [SERVE, TWIST], ids=["serve.py", "twist"])
def test_a_model_that_hangs_delays_nothing_and_its_clients_are_told(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_model(tmp_path / "models", "hangs", HANGS)
    (tmp_path / "config.yaml").write_text("port: 0\ndrain_timeout_s: 1\n")
    with started(tmp_path, command=(*command, str(tmp_path / "config.yaml"))) as server:
        connections = [server.connect() for _ in range(3)]
        for connection in connections:
            connection.sendall(request(1))
        until(
            lambda: (
                server.metric("batcher_in_flight_rows") + server.metric("batcher_queue_rows") == 3
            )
        )
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        for connection in connections:
            with connection:
                assert [answer.status for answer in answers_of(connection)] == [503]
        assert server.wait(5) in (0, -signal.SIGTERM), (
            "twist ends itself by the signal that stopped it"
        )
        assert 0.9 < time.monotonic() - began < 3
        assert "Traceback" not in server.errors


def test_a_models_own_signal_handlers_do_not_end_its_child_before_the_drain(
    tmp_path: Path,
) -> None:
    write_model(
        tmp_path / "models",
        "handlers",
        "import os, signal, time\n"
        "class Model:\n"
        "    def load(self, device):\n"
        "        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "            signal.signal(number, lambda *_: os._exit(3))\n"
        "    def predict(self, inputs):\n"
        "        if inputs['x'].any():\n"
        "            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "                os.kill(os.getpid(), number)\n"
        "        return {'y': inputs['x']}\n",
    )
    config = tmp_path / "config.yaml"
    config.write_text("defaults: {warmup: false, worker: process}\n")
    with started(tmp_path, "-c", str(config)) as server, server.connect() as connection:
        body = b"\x00\x00\x80\x3f" * 4
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: 16\r\n\r\n" + body
        )
        assert one_answer(connection).status == 200
