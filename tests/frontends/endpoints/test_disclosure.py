"""What strangers learn of failures: no path and no exception, by whatever route they ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from batcher.errors import ConfigError, ModelLoadError, ModelNotReady, WorkerLost
from batcher.frontends.endpoints.disclosure import (
    MAX_LINE_CHARS,
    MAX_LINES,
    MAX_REFERENCE_CHARS,
    Disclosure,
)
from batcher.frontends.endpoints.routing import Route
from tests.frontends.endpoints.conftest import REFERENCE
from tests.support.http import ROW, MemoryServer, ask
from tests.support.http_answers import Answer
from tests.support.models import RecordingModel, model_spec

Stack = Callable[[MemoryServer, bytes], Answer]

SECRET = "cannot read /srv/models/other/1/weights.pt"
ROUTES = [(route.method, route.pattern, route) for route in MemoryServer().router.routes]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return the lines of the log that are written while the test runs."""
    written: list[str] = []

    def observe(event: LogEvent) -> None:
        written.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield written
    globalLogPublisher.removeObserver(observe)


def server_with_a_failure(**settings: bool) -> MemoryServer:
    """Return a server of two models, one of which could not be loaded."""
    server = MemoryServer(**settings)
    server.add(RecordingModel(model_spec(name="other"))).loaded.errback(ModelLoadError(SECRET))
    return server


def ask_of(route: Route, *headers: tuple[str, str]) -> bytes:
    """Return a request to `route` about the model that could not be loaded."""
    target = route.pattern.replace("{name}", "other").replace("{version}", "1")
    body = ROW if route.method == "POST" and "repository" not in target else b""
    return ask(target, body, *headers, method=route.method)


@pytest.mark.parametrize(
    "route", [route for _, _, route in ROUTES], ids=[f"{a} {b}" for a, b, _ in ROUTES]
)
def test_no_route_tells_why_a_model_could_not_be_loaded(stack: Stack, route: Route) -> None:
    answer = stack(server_with_a_failure(), ask_of(route))
    assert b"weights" not in answer.body
    assert b"/srv" not in answer.body


TELLING = [
    ask("/readyz"),
    ask("/v2/health/ready"),
    ask("/v2/models/other"),
    ask("/v2/models/other/ready"),
    ask("/v2/repository/index", method="POST"),
    ask("/v1/models/other"),
    ask("/"),
    ask("/models/other/predict", ROW),
    ask("/v1/models/other:predict", b'{"instances":[[1,2,3,4]]}', content_type="application/json"),
]


@pytest.mark.parametrize("request_", TELLING, ids=lambda each: each.split(b" ")[1].decode())
def test_the_log_says_what_the_client_does_not_read_beside_the_same_reference(
    stack: Stack, lines: list[str], request_: bytes
) -> None:
    server = server_with_a_failure()
    answer = stack(server, request_)
    assert f"request {REFERENCE}".encode() in answer.body
    assert [line for line in lines if line.startswith(f"request {REFERENCE}: ") and SECRET in line]
    lines.clear()
    own = request_.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine-7\r\n\r\n", 1)
    answer = stack(server, own)
    assert b"request mine-7" in answer.body
    assert answer.header("x-request-id") == "mine-7"
    assert [line for line in lines if line.startswith("request mine-7: ") and SECRET in line]


@pytest.mark.parametrize("request_", TELLING, ids=lambda each: each.split(b" ")[1].decode())
def test_clients_read_the_reason_where_the_operator_wants_it(stack: Stack, request_: bytes) -> None:
    assert SECRET.encode() in stack(server_with_a_failure(expose_errors=True), request_).body


def test_an_error_names_a_request_id_that_was_made_for_it(stack: Stack) -> None:
    answer = stack(server_with_a_failure(), ask("/models/other/predict", ROW))
    assert answer.header("x-request-id") == REFERENCE


def test_a_model_that_raises_leaves_a_line_for_each_reference(
    stack: Stack, lines: list[str]
) -> None:
    def raises(_: Mapping[str, object]) -> dict[str, object]:
        raise ValueError("secret weights")

    server = MemoryServer(RecordingModel(predict=raises))
    answer = stack(server, ask("/predict", ROW, ("X-Request-Id", "r1")))
    assert b"request r1" in answer.body
    assert b"secret" not in answer.body
    assert any(line.startswith("request r1: ") and "secret weights" in line for line in lines)


@pytest.mark.parametrize(
    "error",
    [ConfigError("config.yaml:3: wrong"), ModelLoadError(SECRET), WorkerLost("signal 11 of /srv")],
    ids=lambda error: type(error).__name__,
)
def test_what_only_the_operator_can_mend_is_told_to_the_operator(
    lines: list[str], error: Exception
) -> None:
    told = Disclosure(lambda: 0.0).error(error, None)
    assert str(error) not in told.text
    assert told.reference.decode() in told.text
    assert any(str(error) in line for line in lines)
    assert Disclosure(lambda: 0.0, errors=True).error(error, None).text == str(error)


def test_what_every_client_may_read_leaves_no_line(lines: list[str]) -> None:
    told = Disclosure(lambda: 0.0).error(ModelNotReady("it loads"), None)
    assert told == ("it loads", b"")
    assert lines == []


def test_a_clients_own_id_stands_in_the_log_in_bounds_and_without_control_characters(
    lines: list[str],
) -> None:
    told = Disclosure(lambda: 0.0).error(ModelLoadError("x" * 9000), b"\x85\x9bid" + b"a" * 900)
    (line,) = lines
    assert told.reference == b""
    assert line.startswith("request ??id" + "a" * (MAX_REFERENCE_CHARS - 4) + ": ")
    assert len(line) < MAX_REFERENCE_CHARS + MAX_LINE_CHARS + 20


def test_a_flood_of_failures_writes_a_bounded_number_of_lines_a_second(lines: list[str]) -> None:
    now = 5.0
    disclosure = Disclosure(lambda: now)
    told = [disclosure.error(ModelLoadError(SECRET), None).text for _ in range(MAX_LINES + 30)]
    assert len(lines) == MAX_LINES
    assert all("request" in text for text in told[:MAX_LINES])
    assert {"request" in text for text in told[MAX_LINES:]} == {False}, "no line, no reference"
    now += 1
    disclosure.error(ModelLoadError(SECRET), None)
    assert "30 lines like this were left out" in lines[-1]
