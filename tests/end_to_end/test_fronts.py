"""A server of several processes: what each of them may lose, and what nobody notices."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tests.end_to_end.processes import Process, one_answer, started, until, write_model
from tests.end_to_end.test_listening import certify

DOUBLES = 'class Model:\n    def predict(self, inputs):\n        return {"y": inputs["x"] * 2}\n'
SLOW = "import time\n" + DOUBLES.replace(
    "        return", "        time.sleep(0.5 * inputs['x'].any())\n        return"
)
ROW = np.ones(4, "<f4").tobytes()
OCTETS = {"Content-Type": "application/octet-stream"}


def children(pid: int) -> list[int]:
    """Return the processes that the process `pid` has started, in that order."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def posted(server: Process, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    request = Request(server.address + path, body, {**OCTETS, **headers})
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as err:
        return err.code, err.read()


def ask(connection: socket.socket, model: str = "doubles") -> None:
    head = f"POST /models/{model}/predict HTTP/1.1\r\nHost: h\r\nContent-Length: {len(ROW)}\r\n"
    kind = "Content-Type: application/octet-stream\r\n\r\n"
    connection.sendall(f"{head}{kind}".encode() + ROW)


def listeners(port: int) -> int:
    """Return how many sockets of IPv4 listen on `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, source in (("doubles", DOUBLES), ("slow", SLOW)):
        write_model(tmp_path / "models", name, source)
    return tmp_path / "models"


@pytest.fixture
def server(tmp_path: Path, repository: Path) -> Iterator[Process]:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model_repository: {repository}\nfronts: 2\naccess_log: true\n"
        "quotas:\n  limited: {rows_per_s: 0.01, burst_rows: 1}\ndefaults: {warmup: false}\n"
    )
    with started(tmp_path, "-c", str(config)) as server:
        yield server


def test_every_route_answers_as_one_process_does(server: Process) -> None:
    expected = (np.ones(4, "<f4") * 2).tobytes()
    assert posted(server, "/models/doubles/predict", ROW) == (200, expected)
    assert posted(server, "/models/doubles/versions/1/predict", ROW) == (200, expected)
    tensors = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
    status, body = posted(server, "/v2/models/doubles/infer", json.dumps(tensors).encode())
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [2, 2, 2, 2])
    status, body = posted(server, "/v1/models/doubles:predict", b'{"instances": [[1, 1, 1, 1]]}')
    assert (status, json.loads(body)) == (200, {"predictions": [[2, 2, 2, 2]]})
    status, body = posted(server, "/models/none/predict", ROW)
    assert status == 404
    assert "expected one of 'doubles', 'slow'" in json.loads(body)["error"]
    assert posted(server, "/models/doubles/predict", ROW[:-1])[0] == 400
    assert posted(server, "/models/doubles/versions/7/predict", ROW)[0] == 404
    for path in ("/livez", "/readyz", "/v2/models/doubles/ready", "/docs", "/openapi.json", "/"):
        assert server.get(path)
    limited = {"X-Api-Key": "limited"}
    statuses = [posted(server, "/models/doubles/predict", ROW, **limited)[0] for _ in range(3)]
    assert (statuses[0], statuses[-1]) == (200, 429)
    late = posted(server, "/models/slow/predict", ROW, **{"X-Timeout-Ms": "50"})
    assert late[0] in (503, 504)
    # One set of numbers, and one access log, whichever front has answered.
    until(lambda: server.metric("batcher_requests_total") >= 17)
    assert 'code="429",model="doubles"' in server.get("/metrics")
    until(lambda: sum('"/models/{name}/predict"' in line for line in server.lines) >= 7)


def test_no_process_shows_the_key_of_a_client(server: Process) -> None:
    shown = [
        Path(f"/proc/{pid}/{name}").read_bytes()
        for pid in (server.pid, *children(server.pid))
        for name in ("cmdline", "environ")
    ]
    assert len(shown) == 2 * 4
    assert not any(b"limited" in text for text in shown)


def test_a_client_that_leaves_takes_its_rows_from_the_queue(server: Process) -> None:
    with server.connect() as busy, server.connect() as leaving:
        ask(busy, "slow")
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        ask(leaving, "slow")
        until(lambda: server.metric("batcher_queue_rows") == 1)
        leaving.close()
        until(lambda: server.metric("batcher_cancelled_rows_total") == 1)
        assert one_answer(busy).status == 200


def test_a_front_that_is_killed_takes_only_its_connections(server: Process) -> None:
    engine, *fronts = children(server.pid)
    assert len(fronts) == 2
    connections = [server.connect() for _ in range(20)]
    for connection in connections:
        ask(connection)
        assert one_answer(connection).status == 200
    os.kill(fronts[0], signal.SIGKILL)
    lost = 0
    for connection in connections:
        try:
            ask(connection)
            assert one_answer(connection).status == 200
        except (AssertionError, ConnectionError):
            lost += 1
        connection.close()
    assert 0 < lost < len(connections)
    until(lambda: fronts[0] not in children(server.pid) and len(children(server.pid)) == 3)
    assert engine in children(server.pid)
    assert all(posted(server, "/models/doubles/predict", ROW)[0] == 200 for _ in range(20))
    assert "front 0 has ended with SIGKILL; it is started again" in server.errors


def test_an_engine_that_is_killed_is_one_clear_error_for_each_request_and_comes_back(
    server: Process,
) -> None:
    engine, *fronts = children(server.pid)
    with server.connect() as waiting, server.connect() as idle:
        ask(waiting, "slow")
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        os.kill(engine, signal.SIGKILL)
        answer = one_answer(waiting)
        assert answer.status == 503
        assert "engine ended while it worked on this request" in json.loads(answer.body)["error"]
        assert answer.header("retry-after") is None

        def answers() -> bool:
            ask(idle)  # on the connection that has outlived the engine
            found = one_answer(idle)
            assert found.status in (200, 503)
            return found.status == 200

        until(answers)
    assert children(server.pid)[:2] == fronts
    assert "the engine has ended with SIGKILL; it is started again" in server.errors


def test_every_request_is_accounted_for_while_processes_are_killed(server: Process) -> None:
    stop = Event()

    def load(_: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        connection = server.connect()
        while not stop.is_set():
            try:
                ask(connection)
                outcome = str(one_answer(connection).status)
            except (AssertionError, ConnectionError):  # it was a connection of the front
                outcome = "closed"
                connection.close()
                connection = server.connect()
            counts[outcome] = counts.get(outcome, 0) + 1
        connection.close()
        return counts

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, number) for number in range(4)]
        until(lambda: server.metric("batcher_requests_total") > 100)
        os.kill(children(server.pid)[1], signal.SIGKILL)
        until(lambda: len(children(server.pid)) == 3)
        os.kill(children(server.pid)[0], signal.SIGKILL)
        until(lambda: posted(server, "/models/doubles/predict", ROW)[0] == 200)
        stop.set()
        counts = [each.result(30) for each in loads]  # none waits for ever
    assert all(each.get("200", 0) > 0 for each in counts)
    assert {outcome for each in counts for outcome in each} <= {"200", "503", "closed"}
    assert sum(each.get("closed", 0) for each in counts) <= 4


def test_a_reload_reaches_every_front(server: Process, tmp_path: Path, repository: Path) -> None:
    write_model(repository, "new", DOUBLES)
    config = tmp_path / "config.yaml"
    config.write_text(f"{config.read_text()}max_body_bytes: 64\n")
    server.signal(signal.SIGHUP)
    until(lambda: posted(server, "/models/new/predict", ROW)[0] == 200)
    for _ in range(10):  # some of them at each front
        assert posted(server, "/models/new/predict", ROW)[0] == 200
        assert posted(server, "/models/new/predict", ROW * 5)[0] == 413


def test_a_server_that_stops_answers_what_it_has_taken(server: Process) -> None:
    pids = children(server.pid)
    with server.connect() as waiting:
        ask(waiting, "slow")
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        server.signal(signal.SIGTERM)
        assert one_answer(waiting).status == 200
    assert server.wait(10) == 0
    assert not server.listens()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_engine_that_alone_is_told_to_stop_stops_the_server(server: Process) -> None:
    os.kill(children(server.pid)[0], signal.SIGTERM)
    assert server.wait(10) == 0
    assert not server.listens()


@pytest.mark.long
def test_a_front_that_cannot_start_leaves_its_connections_to_the_others(tmp_path: Path) -> None:
    certify(tmp_path, "server")
    certificate, gone = tmp_path / "server.pem", tmp_path / "gone.pem"
    write_model(tmp_path / "models", "doubles", DOUBLES)
    repository = f"model_repository={tmp_path / 'models'}"
    settings = (repository, f"tls_certificate={certificate}", "fronts=2")
    pairs = [part for pair in settings for part in ("--set", pair)]
    with started(tmp_path, *pairs, ready=False) as server:
        until(lambda: "is ready on" in "\n".join(server.lines), 60)
        found = re.search(r"https://[^:]+:(\d+)", "\n".join(server.lines))
        assert found
        where = "127.0.0.1", int(found[1])

        def greeted() -> bool:
            """Return whether each of many clients is shown a certificate."""
            return all(ssl.get_server_certificate(where, timeout=10) for _ in range(20))

        assert greeted()
        certificate.rename(gone)
        os.kill(children(server.pid)[1], signal.SIGKILL)
        until(lambda: "a front could not open its ports" in server.errors)
        assert listeners(where[1]) == 1
        assert greeted()
        gone.rename(certificate)
        until(lambda: listeners(where[1]) == 2)
        assert greeted()


def test_a_server_whose_first_process_is_killed_leaves_nothing_behind(server: Process) -> None:
    pids = children(server.pid)
    server.signal(signal.SIGKILL)
    until(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    try:
        return re.search(r"^State:\s+Z", Path(f"/proc/{pid}/status").read_text(), re.M) is None
    except FileNotFoundError:
        return False


def test_a_model_that_does_not_load_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "broken", "raise ValueError('no weights')\n")
    arguments = ("--set", f"model_repository={tmp_path / 'models'}", "--set", "fronts=2")
    with started(tmp_path, *arguments, ready=False) as server:
        assert server.wait(60) == 1
        assert "no weights" in server.errors
