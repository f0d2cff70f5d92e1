"""What nginx and HAProxy do besides balancing: guards, checks, prefixes, kept connections."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest

from tests.end_to_end.processes import Process, receive_all, until, write_model
from tests.end_to_end.test_listening import certify
from tests.integration.balancers import (
    Balancer,
    checked_states,
    found_program,
    free_port,
    haproxy,
    nginx,
)
from tests.integration.servers import DOUBLES, serving
from tests.support.http_answers import Answer, parse_answers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, int]]:
    port = free_port()
    with serving(tmp_path_factory.mktemp("server"), port) as process:
        yield process, port


def asked(
    balancer: Balancer,
    target: str,
    method: str = "GET",
    media: str = "text/plain",
    body: bytes = b"",
) -> Answer:
    """Return the answer to one request for `target`, which is sent as it stands."""
    with balancer.connect() as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode("latin-1") + body)
        (answer,), _ = parse_answers(receive_all(connection), [], over=True)
        return answer


INDEX = "/v2/repository/index"
DISGUISES = (
    "//v2/repository/index",
    "/v2//repository/index",
    "/v2/repository//index",
    "/v2%2Frepository%2Findex",
    "/v2/repository%2findex",
    "/%2Fv2/repository/index",
    "/v2/./repository/index",
    "/x/../v2/repository/index",
    "/v2/repository/index/",
    "/v2/%72epository/index",
    "/V2/repository/index",
    "/v2/repository;a=b/index",
)
"""Targets that a guard on `/v2/repository` does not see as such, in the one proxy or the other."""


@pytest.mark.parametrize("target", DISGUISES)
def test_a_guard_of_haproxy_on_a_path_cannot_be_passed_by_writing_the_path_otherwise(
    tmp_path: Path, server: tuple[Process, int], target: str
) -> None:
    with haproxy(tmp_path, [server[1]]) as balancer:
        assert asked(balancer, INDEX, "POST").status == 403
        assert asked(balancer, target, "POST").status in (400, 403, 404)


@pytest.mark.parametrize("target", DISGUISES)
def test_a_guard_of_nginx_on_a_location_cannot_be_passed_by_writing_the_path_otherwise(
    tmp_path: Path, server: tuple[Process, int], target: str
) -> None:
    with nginx(tmp_path, [server[1]]) as balancer:
        assert asked(balancer, INDEX, "POST").status == 403
        assert asked(balancer, target, "POST").status in (400, 403, 404)


@pytest.mark.parametrize("check", ["", "GET /readyz", "HEAD /livez", "GET /v2/health/ready"])
def test_haproxy_takes_the_server_for_up_by_any_usual_check_of_http_1_0(
    tmp_path: Path, server: tuple[Process, int], check: str
) -> None:
    with haproxy(tmp_path, [server[1]], check) as balancer:
        until(lambda: set(checked_states(balancer).values()) == {("UP", "L7OK")})


def test_every_link_works_behind_a_path_prefix(tmp_path: Path, server: tuple[Process, int]) -> None:
    locations = "location /ml/ { proxy_pass http://batcher/; }"
    with nginx(tmp_path, [server[1]], locations) as balancer:
        for page in ("/ml/", "/ml/docs"):
            text = asked(balancer, page).body.decode()
            links = re.findall(r"""(?:href|src)=["']?([^"' >#]+)""", text)
            assert links
            for link in links:
                target = urljoin(page, link)
                assert target.startswith("/ml/"), f"{page} has the link {link}"
                assert asked(balancer, target).status == 200, f"{page} has the link {link}"
        document = json.loads(asked(balancer, "/ml/openapi.json").body)
        for entry in document["servers"]:
            place = urljoin("/ml/openapi.json", entry["url"])
            assert asked(balancer, f"{place.rstrip('/')}/livez").status == 200


@pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)
def test_a_balancer_keeps_its_connections_to_the_server(
    tmp_path: Path, server: tuple[Process, int], balance: object
) -> None:
    process, port = server
    make = nginx if balance is nginx else haproxy
    with make(tmp_path, [port]) as balancer, balancer.connect() as connection:
        for _ in range(50):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert process.metric("batcher_connections") <= 3


SLOW = """
import time


class Model:
    def predict(self, inputs):
        time.sleep(0.05)
        return {"y": inputs["x"]}
"""


@pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)
def test_behind_a_balancer_full_servers_refuse_with_503_and_retry_after_and_nothing_else(
    tmp_path: Path, balance: Callable[[Path, Sequence[int]], AbstractContextManager[Balancer]]
) -> None:
    write_model(tmp_path / "models", "doubles", SLOW)
    full = ("defaults.max_queue_rows=4", "defaults.max_batch_size=2")
    ports = (free_port(), free_port())
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(serving(tmp_path, port, *full))
        balancer = stack.enter_context(balance(tmp_path, ports))

        def ask(_: int) -> Answer:
            body = b"\0" * 16
            return asked(balancer, "/predict", "POST", "application/octet-stream", body)

        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(ask, range(300)))
    assert {answer.status for answer in answers} == {200, 503}
    refused = [answer for answer in answers if answer.status == 503]
    assert all(answer.header("retry-after") for answer in refused)


ONCE = """
import time


class Model:
    def predict(self, inputs):
        if inputs["x"].any():  # no warm-up
            with open(RUNS, "a") as runs:
                runs.write("run\\n")
            time.sleep(60)
        return {"y": inputs["x"]}
"""


@pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)
def test_a_request_that_a_killed_server_had_under_way_runs_on_no_other(
    tmp_path: Path, balance: Callable[[Path, Sequence[int]], AbstractContextManager[Balancer]]
) -> None:
    runs = tmp_path / "runs.txt"
    source = ONCE.replace("RUNS", repr(str(runs)))
    ports = (free_port(), free_port())
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(tmp_path, port, source=source)) for port in ports]
        balancer = stack.enter_context(balance(tmp_path, ports))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        body, media = b"\1" * 16, "application/octet-stream"
        answer = pool.submit(asked, balancer, "/predict", "POST", media, body)
        until(runs.exists)
        busy = next(one for one in servers if one.metric("batcher_in_flight_rows"))
        busy.signal(signal.SIGKILL)
        assert answer.result(30).status == 502
    assert runs.read_text().split() == ["run"]


ENDS_ITS_PROCESS = """
import os


class Model:
    def predict(self, inputs):
        if inputs["x"].any():  # no warm-up
            with open(RUNS, "a") as runs:
                runs.write("run\\n")
            os._exit(1)
        return {"y": inputs["x"]}
"""


@pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)
def test_a_request_that_has_ended_its_process_runs_on_no_other_server(
    tmp_path: Path, balance: Callable[[Path, Sequence[int]], AbstractContextManager[Balancer]]
) -> None:
    runs, ports = tmp_path / "runs.txt", (free_port(), free_port())
    source = ENDS_ITS_PROCESS.replace("RUNS", repr(str(runs)))
    with ExitStack() as stack:
        for port in ports:
            of_process = serving(tmp_path, port, "defaults.worker=process", source=source)
            stack.enter_context(of_process)
        balancer = stack.enter_context(balance(tmp_path, ports))
        answer = asked(balancer, "/predict", "POST", "application/octet-stream", b"\1" * 16)
    assert (answer.status, answer.header("retry-after")) == (503, None)
    assert "error" in json.loads(answer.body)
    assert runs.read_text().split() == ["run"]


BIG_ROWS = 3
BIG_ROW = 1 << 22
"""Numbers of a row: 16 MiB. Three of them are a body of 48 MiB, and an answer as large."""


@pytest.fixture(scope="module")
def big_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a server whose rows are large."""
    folder, port = tmp_path_factory.mktemp("big"), free_port()
    write_model(folder / "models", "doubles", DOUBLES)
    described = folder / "models" / "doubles" / "1" / "model.yaml"
    described.write_text(described.read_text().replace("shape: [4]", f"shape: [{BIG_ROW}]"))
    with serving(folder, port, "defaults.max_batch_size=2", "defaults.warmup=false"):
        yield port


TLS = {
    "nginx": {
        "# listen 443 ssl http2": "listen 127.0.0.1:{port} ssl http2",
        "ssl_certificate batcher.pem": "ssl_certificate {pem}",
        "ssl_certificate_key batcher.pem": "ssl_certificate_key {pem}",
    },
    "haproxy": {
        "# bind :443": "bind 127.0.0.1:{port}",
        "/etc/haproxy/batcher.pem": "{pem}",
    },
}
"""What a test changes in the line about HTTP/2, by the name of the balancer."""


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("balance", [nginx, haproxy], ids=lambda one: one.__name__)
def test_large_bodies_pass_both_ways_by_http_1_and_http_2(
    tmp_path: Path, big_server: int, balance: object, version: str
) -> None:
    make, name = (nginx, "nginx") if balance is nginx else (haproxy, "haproxy")
    certify(tmp_path, "own")
    port, pem = free_port(), tmp_path / "own.pem"
    changes = {old: new.format(port=port, pem=pem) for old, new in TLS[name].items()}
    rows = np.arange(BIG_ROWS * BIG_ROW, dtype="<f4")
    (tmp_path / "body").write_bytes(rows.tobytes())
    with make(tmp_path, [big_server], changes=changes):
        command = [found_program("curl", "curl"), "--silent", "--insecure", f"--http{version}"]
        command += ["--data-binary", f"@{tmp_path / 'body'}", "--output", str(tmp_path / "answer")]
        command += ["--header", "Content-Type: application/octet-stream", "--max-time", "60"]
        command += ["--write-out", "%{http_code} %{http_version}"]
        command += [f"https://127.0.0.1:{port}/predict"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"200 {version}"
    assert np.array_equal(np.fromfile(tmp_path / "answer", "<f4"), 2 * rows)
