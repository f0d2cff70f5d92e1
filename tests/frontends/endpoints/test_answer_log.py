"""What remains of a request in metrics and log, and the timings that an answer can carry."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from twisted.logger import LogEvent

from batcher.frontends.endpoints.answer_log import REPORT_INTERVAL_S
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec

Stack = Callable[[MemoryServer, bytes], Answer]


def counted(server: MemoryServer) -> dict[tuple[str, str, int], int]:
    answers = server.server.metrics.answers
    return {
        (*labels, status): count
        for labels, found in answers.items()
        for status, count in found.statuses.items()
    }


def only_line(server: MemoryServer) -> dict[str, Any]:
    (line,) = server.lines
    assert b"\n" not in line
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_line_of_the_access_log_says_all_of_a_request(stack: Stack) -> None:
    server = MemoryServer()
    stack(server, ask("/models/m/predict?verbose=1", ROW, ("X-Request-Id", 'id "7"')))
    line = only_line(server)
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("ms") >= 0
    assert line.pop("peer").startswith("192.")
    assert line == {
        "status": 200,
        "route": "/models/{name}/predict",
        "model": "m",
        "method": "POST",
        "path": "/models/m/predict",
        "bytes_in": 16,
        "request_id": 'id "7"',
    }


def test_the_time_in_the_log_is_that_between_the_first_byte_and_the_answer() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    request = ask("/predict", ROW)
    client.send(request[:10])
    server.wait(0.5)
    client.send(request[10:])
    server.turn()
    server.wait(0.25)
    server.work()
    assert only_line(server)["ms"] == pytest.approx(750)
    latency = server.server.metrics.answers["m", "/predict"].latency
    assert (latency.count, latency.total) == (1, pytest.approx(0.75))


@pytest.mark.parametrize(
    ("request_bytes", "status", "route", "model"),
    [
        (ask("/predict", b"x"), 400, "/predict", "m"),
        (ask("/models/m/predict", b"x"), 400, "/models/{name}/predict", "m"),
        (ask("/v1/models/m:predict", b"x"), 400, "/v1/models/{name}:predict", "m"),
        (ask("/v2/models/m/infer", b"x"), 400, "/v2/models/{name}/infer", "m"),
        (ask("/v2/models/m/versions/9"), 404, "/v2/models/{name}/versions/{version}", "m"),
        (ask("/models/unknown/predict", ROW), 404, "/models/{name}/predict", ""),
        (ask("/nowhere?secret=1", b"", ("X-Request-Id", "7")), 404, "", ""),
        (ask("/predict"), 405, "", ""),
        (ask("/livez"), 200, "/livez", ""),
    ],
)
def test_every_request_leaves_one_line_and_one_count(
    stack: Stack, request_bytes: bytes, status: int, route: str, model: str
) -> None:
    server = MemoryServer()
    stack(server, request_bytes)
    line = only_line(server)
    assert (line["status"], line["route"], line["model"]) == (status, route, model)
    assert counted(server) == {(model, route, status): 1}


def test_a_path_without_a_route_is_named_in_the_log(stack: Stack) -> None:
    server = MemoryServer()
    stack(server, ask("/nowhere", b"", ("X-Request-Id", "7")))
    line = only_line(server)
    assert (line.get("method"), line.get("path"), line.get("request_id")) == (
        "GET",
        "/nowhere",
        "7",
    )


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_was_no_request_leaves_a_line_too(data: bytes) -> None:
    server = MemoryServer()
    server.connect("loop").send(data)
    server.turn()
    assert only_line(server)["status"] == 400
    assert counted(server) == {("", "", 400): 1}


@pytest.mark.parametrize(
    ("data", "method", "path"),
    [
        (b"nonsense\r\n\r\n", None, ""),
        (b"GET /some/where?a=1 HTTP/1.1\r\n\r\n", "GET", "/some/where"),
        (
            b"PUT /v2/x HTTP/1.1\r\nHost: h\r\nX-Request-Id: 7\r\nContent-Length: 99999999\r\n\r\n",
            "PUT",
            "/v2/x",
        ),
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", "HEAD", "/"),
        (b"POST /b HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "POST", "/b"),
    ],
)
def test_the_line_of_a_refused_request_has_its_client_and_what_was_read_of_it(
    data: bytes, method: str | None, path: str
) -> None:
    server = MemoryServer()
    server.connect("loop").send(data)
    server.turn()
    line = only_line(server)
    assert line["status"] >= 400
    assert line["peer"].startswith("192.")
    assert (line.get("method"), line["bytes_in"]) == (method, 0)
    assert line["path"] == path or line["path"].startswith("/aaaa")
    assert line.get("request_id") == ("7" if b"X-Request-Id" in data else None)


def test_a_client_beyond_the_bound_of_connections_is_in_the_log_with_its_address() -> None:
    server = MemoryServer(max_connections=1)
    server.connect("loop")
    server.connect("loop")
    line = only_line(server)
    assert (line["status"], line["path"]) == (503, "")
    assert line["peer"].startswith("192.")


class TestAWriterThatRaises:
    def full(self, line: bytes) -> None:
        """Stand for an embedding program's writer whose disk is full for some requests."""
        if b"bad" in line:
            raise OSError(28, "No space left on device")
        self.written.append(line)

    @pytest.fixture(autouse=True)
    def server(self) -> MemoryServer:
        self.written: list[bytes] = []
        server = MemoryServer()
        server.router.answer_log.write_line = self.full
        return server

    def test_costs_the_line_and_no_answer(
        self, server: MemoryServer, stack: Stack, logged_errors: list[LogEvent]
    ) -> None:
        assert stack(server, ask("/predict", ROW, ("X-Request-Id", "bad"))).status == 200
        assert stack(server, ask("/predict", b"x", ("X-Request-Id", "bad"))).status == 400
        assert stack(server, ask("/nowhere", b"", ("X-Request-Id", "bad"))).status == 404
        assert self.written == []
        assert server.server.metrics.dropped_lines == {"access_log": 3}
        assert [str(event["log_failure"].value) for event in logged_errors] == [
            "[Errno 28] No space left on device"
        ]
        logged_errors.clear()

    def test_costs_its_pipelined_neighbours_nothing(
        self, server: MemoryServer, logged_errors: list[LogEvent]
    ) -> None:
        client = server.connect("loop")
        for name in ("a", "bad", "c"):
            client.send(ask("/predict", ROW, ("X-Request-Id", name)))
        client.send(b"nonsense\r\n\r\n")
        server.turn()
        server.work()
        assert [answer.status for answer in client.answers] == [200, 200, 200, 400]
        assert len(self.written) == 3
        logged_errors.clear()

    def test_is_in_the_log_once_in_a_while_with_its_reason(
        self, server: MemoryServer, stack: Stack, logged_errors: list[LogEvent]
    ) -> None:
        bad = ask("/livez", b"", ("X-Request-Id", "bad"))
        for _ in range(5):
            stack(server, bad)
        assert len(logged_errors) == 1
        server.clock.advance(REPORT_INTERVAL_S)
        stack(server, bad)
        assert len(logged_errors) == 2
        logged_errors.clear()


def test_a_client_that_left_is_in_the_log_and_in_no_answer() -> None:
    server = MemoryServer()
    client = server.connect("loop")
    client.send(ask("/predict", ROW))
    server.turn()
    client.reset()
    server.work()
    assert only_line(server)["status"] == 499
    assert client.received == b""


def test_a_request_counts_for_the_route_that_was_asked_for_and_not_for_what_was_in_its_path(
    stack: Stack,
) -> None:
    server = MemoryServer()
    for index in range(50):
        stack(server, ask(f"/models/made-up-{index}/predict", ROW))
        stack(server, ask(f"/made-up-{index}"))
    assert len(counted(server)) == 2, "clients cannot make labels"


class TestServerTiming:
    def test_it_tells_queue_compute_and_batch_size_when_it_is_asked_to(self, stack: Stack) -> None:
        answer = stack(MemoryServer(), ask("/predict", ROW * 3, ("X-Timing", "1")))
        timing = answer.header("server-timing") or ""
        assert re.fullmatch(r'queue;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}, batch;desc="3"', timing)

    @pytest.mark.parametrize("headers", [(), (("X-Timing", "0"),), (("X-Timing", ""),)])
    def test_it_is_silent_when_it_is_not(
        self, stack: Stack, headers: tuple[tuple[str, str], ...]
    ) -> None:
        assert stack(MemoryServer(), ask("/predict", ROW, *headers)).header("server-timing") is None

    def test_it_always_tells_where_the_operator_wants_it(self, stack: Stack) -> None:
        assert stack(MemoryServer(server_timing=True), ask("/predict", ROW)).header("server-timing")

    def test_waiting_and_computing_are_told_apart(self) -> None:
        server = MemoryServer(defaults={"pipeline_depth": 1})
        first, second = server.connect("loop"), server.connect("loop")
        first.send(ask("/predict", ROW))
        assert server.hand_over() == 1
        second.send(ask("/predict", ROW * 2, ("X-Timing", "1")))
        server.wait(0.5)
        server.work()
        timing = second.answers[0].header("server-timing")
        assert timing == 'queue;dur=500.000, compute;dur=0.000, batch;desc="2"'


class TestParameters:
    def test_priority_1_is_served_before_3(self) -> None:
        server = MemoryServer(
            defaults={"pipeline_depth": 1, "max_batch_size": 1, "level_weights": [1000, 10, 1]}
        )
        client = server.connect("loop")
        client.send(ask("/predict", ROW))
        assert server.hand_over() == 1
        for level in (3, 2, 1):
            client.send(
                ask("/predict", ROW * 1, ("X-Priority", str(level)), ("X-Request-Id", str(level)))
            )
        server.work()
        assert [answer.status for answer in client.answers] == [200] * 4
        order = [json.loads(line).get("request_id") for line in server.lines]
        assert order.index("1") < order.index("3")

    def test_a_request_that_names_no_time_has_the_models(self) -> None:
        server = MemoryServer(models={"m": {"timeout_ms": 1000}})
        client = server.connect("loop")
        client.send(ask("/predict", ROW))
        server.turn()
        server.wait(0.9)
        assert client.answers == []
        server.wait(0.2)
        assert [answer.status for answer in client.answers] == [504]

    def test_each_model_counts_for_itself(self, stack: Stack) -> None:
        server = MemoryServer(RecordingModel(), RecordingModel(model_spec(name="other")))
        stack(server, ask("/models/other/predict", ROW))
        assert [model.sizes() for model in server.models] == [[], [1]]
        assert counted(server) == {("other", "/models/{name}/predict", 200): 1}
