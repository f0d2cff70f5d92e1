"""A server with fronts that has all else: other ways in, a registry, a balancer's questions, jobs.

What stands beside HTTP belongs to the engine, so there is one of each, however many fronts.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from batcher.client import Client, ClientFailure
from tests.codecs.test_form_upload import form_of, part
from tests.end_to_end.processes import Process, one_answer, started, until, write_model
from tests.end_to_end.test_discovery import directory as directory
from tests.end_to_end.test_discovery import listed
from tests.end_to_end.test_fronts import DOUBLES, ROW, SLOW, ask, children, posted

grpc = pytest.importorskip("grpc", reason="extra grpc")
zmq = pytest.importorskip("zmq", reason="extra zeromq")
from tests.end_to_end.test_zeromq import (  # noqa: E402
    check_forms,
    connected,
    receive,
    send,
)
from tests.end_to_end.test_zeromq import context as context  # noqa: E402

BURST = 10
CONFIG = """
model_repository: models
fronts: 2
access_log: true
pre_stop_s: 1
grpc_port: 0
zeromq: tcp://127.0.0.1:0
agent_check_port: {agent}
registry: {registry}
registry_ttl_s: 60
quotas: {{limited: {{rows_per_s: 0.01, burst_rows: {burst}}}}}
jobs: {{inputs: [in], outputs: [out], uploads: {{}}}}
defaults: {{warmup: false, cache: {{max_bytes: 1MiB, ttl_s: 10m}}}}
"""
EVERY_FRONT = 16
"""Connections, some of which each of two fronts surely gets: else the test fails, once in 32,768
times.
"""


class Server:
    """A running server, and where it is found besides by HTTP."""

    def __init__(self, process: Process, folder: Path, agent: int) -> None:
        self.process, self.folder = process, folder
        found = re.search(r"tcp://\S+", "\n".join(process.lines))
        assert found, process.lines
        self.zeromq = found[0]
        self.zeromq_address = self.zeromq.replace("tcp://", "zmq://")
        self._agent = agent

    def weight(self) -> str:
        """Return what a balancer hears; empty if nobody listens."""
        try:
            with socket.create_connection(("127.0.0.1", self._agent), timeout=30) as asking:
                return asking.recv(16).decode().strip()
        except ConnectionRefusedError:
            return ""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(folder: Path, registry: str) -> Iterator[Server]:
    for name, source in (("doubles", DOUBLES), ("slow", SLOW)):
        write_model(folder / "models", name, source)
    for name in ("in", "out"):
        (folder / name).mkdir()
    agent = free_port()
    text = CONFIG.format(agent=agent, registry=registry, burst=BURST)
    (folder / "config.yaml").write_text(text)
    with started(folder, "-c", str(folder / "config.yaml")) as process:
        yield Server(process, folder, agent)
        assert "Traceback" not in process.errors


@pytest.fixture
def server(tmp_path: Path, directory: str) -> Iterator[Server]:
    with serving(tmp_path, directory) as server:
        yield server


def asked(server: Process, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(server.address + path, data=data), timeout=30) as answer:
        return json.loads(answer.read())


def test_zeromq_is_served_by_the_engine_beside_the_fronts(
    server: Server, context: Any, directory: str
) -> None:
    process = server.process
    check_forms(server.zeromq_address)
    with Client(server.zeromq_address, retries=0, api_key="limited") as client:
        row = {"x": np.ones((BURST, 4), "f4")}
        assert client.infer("doubles", row).outputs["y"].tolist() == [[2] * 4] * BURST
        with pytest.raises(ClientFailure, match="429"):
            client.infer("doubles", row)
    # The bucket is one for all ways in.
    assert posted(process, "/models/doubles/predict", ROW, **{"X-Api-Key": "limited"})[0] == 429
    route = "zeromq:/v2/models/{name}/infer"
    until(lambda: any(route in line for line in process.lines))
    assert f'route="{route}"' in process.get("/metrics")
    # A client that leaves takes its request along; a front that dies takes nothing of a client's.
    leaving, staying = connected(context, server.zeromq), connected(context, server.zeromq)
    cancelled = process.metric("batcher_cancelled_rows_total")
    send(leaving, 1, 8, model_name="slow")
    send(staying, 1, 7, model_name="slow")
    until(lambda: process.metric("batcher_in_flight_rows") >= 1)
    leaving.close(0)
    until(lambda: process.metric("batcher_cancelled_rows_total") == cancelled + 1)
    front = children(process.pid)[1]
    os.kill(front, signal.SIGKILL)
    assert receive(staying)[1]["status"] == 200
    until(lambda: front not in children(process.pid) and len(children(process.pid)) == 3)
    send(staying, 2, 9)
    assert receive(staying)[1]["status"] == 200


def test_a_server_that_leaves_says_so_to_all_and_answers_all(
    server: Server, context: Any, directory: str
) -> None:
    process = server.process
    until(lambda: listed(directory) != set())
    assert listed(directory) == {process.address}, "once, not once a front"
    assert server.weight() == "100%"
    with ExitStack() as stack:
        kept = [stack.enter_context(process.connect()) for _ in range(EVERY_FRONT)]
        dealer = connected(context, server.zeromq)
        send(dealer, 1, 1)
        receive(dealer)
        process.signal(signal.SIGTERM)
        until(lambda: server.weight() == "0%")
        with pytest.raises(HTTPError, match="503"):
            process.get("/readyz")
        # Whoever has not heard of it yet is served, on old connections and new ones.
        assert posted(process, "/models/doubles/predict", ROW)[0] == 200
        until(lambda: listed(directory) == set())
        for client in kept:
            ask(client, "slow")
        send(dealer, 2, 2, model_name="slow")
        assert {one_answer(client).status for client in kept} == {200}
        found = [receive(dealer), receive(dealer)]
        assert {(number, header.get("status")) for number, header, _ in found} == {
            (0, None),  # the notice
            (2, 200),
        }
        dealer.close(0)
    assert process.wait(20) == 0
    assert server.weight() == ""
    assert not process.listens()


def reach_grpc(server: Process) -> None:
    """Wait until the server of gRPC answers at the address of the server's start."""
    with grpc.insecure_channel(server.grpc_address) as channel:
        grpc.channel_ready_future(channel).result(30)


def test_an_engine_that_comes_back_has_all_its_ways_in_and_is_still_listed_once(
    server: Server, context: Any, directory: str
) -> None:
    """The system has chosen the ports of gRPC and ZeroMQ: they are the same ones."""
    process = server.process
    reach_grpc(process)
    with Client(server.zeromq_address, retries=0) as client:
        row = {"x": np.ones((1, 4), "f4")}
        assert client.infer("doubles", row).outputs["y"].tolist() == [[2] * 4]
        os.kill(children(process.pid)[0], signal.SIGKILL)

        def is_back() -> bool:
            try:
                return client.infer("doubles", row).outputs["y"].tolist() == [[2] * 4]
            except ClientFailure:
                return False

        until(is_back, 60)
    reach_grpc(process)
    # The settings in the file are still those in force.
    process.signal(signal.SIGHUP)
    until(lambda: process.metric('batcher_reloads_total{outcome="applied"}') == 1)
    until(lambda: server.weight() == "100%")
    until(lambda: "listed in" in process.errors.partition("it is started again")[2])
    assert listed(directory) == {process.address}


def test_quotas_and_kept_answers_are_one_for_all_fronts(server: Server) -> None:
    process = server.process
    statuses = [
        posted(process, "/models/doubles/predict", ROW, **{"X-Api-Key": "limited"})[0]
        for _ in range(EVERY_FRONT)
    ]
    assert sorted(statuses) == [200] * BURST + [429] * (EVERY_FRONT - BURST)
    assert process.metric("batcher_batch_size_sum") == 1
    kept = r'^batcher_cache_requests_total{model="doubles",outcome="(\w+)".* (\S+)$'
    outcomes = {name: float(n) for name, n in re.findall(kept, process.get("/metrics"), re.M)}
    assert (outcomes["miss"], outcomes["hit"]) == (1, BURST - 1)


def test_there_is_one_page_of_metrics_for_all_processes(server: Server) -> None:
    process = server.process
    with ExitStack() as stack:
        kept = [stack.enter_context(process.connect()) for _ in range(EVERY_FRONT)]
        for client in kept:
            ask(client)
            assert one_answer(client).status == 200

        def counted() -> bool:
            answers = r'^batcher_requests_total{.*model="doubles".*} (\S+)$'
            found = re.findall(answers, process.get("/metrics"), re.M)
            return sum(map(float, found)) == EVERY_FRONT

        until(counted)
        until(lambda: process.metric("batcher_connections") == EVERY_FRONT + 1)
        names = re.findall(r"^# TYPE (\S+)", process.get("/metrics"), re.M)
        assert len(names) == len(set(names))


def test_jobs_and_files_are_reached_by_every_front(server: Server) -> None:
    process, folder = server.process, server.folder
    rows = "".join(f"[{row}, 1, 2, 3]\n" for row in range(50))
    (folder / "in/rows.jsonl").write_text(rows)
    places = {"input": str(folder / "in/rows.jsonl"), "output": str(folder / "out/rows.jsonl")}
    id = asked(process, "/jobs", {"model": "doubles", **places})["id"]
    until(lambda: asked(process, f"/jobs/{id}")["state"] == "done", 60)
    found = [json.loads(line)["y"] for line in (folder / "out/rows.jsonl").read_text().splitlines()]
    assert found == [[2.0 * row, 2.0, 4.0, 6.0] for row in range(50)]
    body = {"inputs": {"x": [[1, 1, 1, 1]]}}
    line = {"custom_id": "a", "method": "POST", "url": "/models/doubles/predict", "body": body}
    file = part("file", json.dumps(line).encode() + b"\n", "a.jsonl")
    form = form_of(part("purpose", b"batch"), file)
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    with urlopen(Request(f"{process.address}/v1/files", form, headers), timeout=30) as answer:
        file_id = json.loads(answer.read())["id"]
    wish = {"endpoint": "/models/doubles/predict", "input_file_id": file_id}
    batch = asked(process, "/v1/batches", {**wish, "completion_window": "24h"})["id"]
    until(lambda: asked(process, f"/v1/batches/{batch}")["status"] == "completed", 60)
    output = asked(process, f"/v1/batches/{batch}")["output_file_id"]
    with ThreadPoolExecutor(EVERY_FRONT) as pool:
        pages = pool.map(process.get, [f"/v1/files/{output}/content"] * EVERY_FRONT)
        (content,) = set(pages)
    assert json.loads(content)["response"]["body"]["outputs"]["y"] == [[2] * 4]
