"""Header fields that every answer has: of endpoints, of Klein, of refusals, over both stacks."""

from __future__ import annotations

import pytest

from tests.support.http import ROW, STACKS, MemoryServer, ask, over_connection
from tests.support.http_answers import Answer

EXPECTED = {
    "server": "batcher",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}


def check(answer: Answer) -> None:
    assert {name: answer.header(name) for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("stack", STACKS)
def test_every_route_answers_with_them(stack: str) -> None:
    server = MemoryServer()
    for route in server.router.routes:
        target = route.pattern.replace("{name}", "m").replace("{version}", "1")
        check(STACKS[stack](server, ask(target, b"", method=route.method)))


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (ask("/predict", ROW), 200),
        (ask("/predict", b"x"), 400),
        (ask("/nowhere"), 404),
        (ask("/predict", method="GET"), 405),
        (ask("/livez", method="HEAD"), 200),
    ],
    ids=lambda each: "" if isinstance(each, bytes) else str(each),
)
def test_errors_have_them_too(stack: str, request_: bytes, status: int) -> None:
    answer = STACKS[stack](MemoryServer(), request_)
    assert answer.status == status
    check(answer)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"no http\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (ask("/livez", b"", ("Transfer-Encoding", "gzip, chunked"), method="PUT"), 501),
        (ask("/" + "a" * 9000), 414),
        (ask("/livez", b"", ("X-Long", "a" * 90_000)), 431),
        (ask("/predict", b"", ("Content-Length", str(1 << 40)), method="PUT"), 413),
    ],
    ids=lambda each: "" if isinstance(each, bytes) else str(each),
)
def test_refusals_have_them_too(request_: bytes, status: int) -> None:
    server = MemoryServer()
    client = server.connect("loop")
    client.send(request_)
    server.turn()
    (answer,) = client.answers
    assert answer.status == status
    check(answer)


def test_a_connection_too_many_gets_them_too() -> None:
    server = MemoryServer(max_connections=1)
    server.connect("loop")
    late = server.connect("loop")
    (answer,) = late.answers
    assert answer.status == 503
    check(answer)


def test_a_repeated_answer_is_made_once_with_them() -> None:
    server = MemoryServer()
    first, second = (over_connection(server, ask("/predict", ROW)) for _ in range(2))
    assert first == second
    check(first)
