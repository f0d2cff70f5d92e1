"""`OPTIONS`: the methods of a path, and what a browser asks for a page of another origin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.frontends.endpoints.conftest import Both
from tests.support.http import ROW, MemoryServer, ask, over_connection
from tests.support.http_answers import Answer

ORIGIN = "https://app.example"
FROM = ("Origin", ORIGIN)
FROM_ELSEWHERE = ("Origin", "https://evil.example")
PREFLIGHT = (
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "content-type, x-own"),
)
ALLOWED, CREDENTIALS = "access-control-allow-origin", "access-control-allow-credentials"

Stack = Callable[[MemoryServer, bytes], Answer]


def options(target: str, *headers: tuple[str, str]) -> bytes:
    return ask(target, b"", *headers, method="OPTIONS")


def cors_fields(answer: Answer) -> list[str]:
    return [name for name, _ in answer.fields if name.startswith("access-control-")]


class TestMethods:
    def test_every_route_says_its_methods(self, both: Both) -> None:
        server = MemoryServer(sagemaker=True)
        for route in server.router.routes:
            path = route.pattern.replace("{name}", "m").replace("{version}", "1")
            answer = both(server, options(path.replace("{region}", "r")))
            assert (answer.status, answer.body) == (204, b"")
            allowed = (answer.header("allow") or "").split(", ")
            assert {route.method, "OPTIONS"} <= set(allowed)
            assert ("HEAD" in allowed) == ("GET" in allowed)

    @pytest.mark.parametrize("target", ["/v1/models/m:predict", "/v1/models/m%3Apredict"])
    def test_a_path_with_an_ending_has_not_the_methods_of_a_name_with_that_ending(
        self, both: Both, target: str
    ) -> None:
        for request in (options(target), ask(target, b"", method="PUT")):
            assert both(MemoryServer(), request).header("allow") == "POST, OPTIONS"

    def test_an_answer_without_a_body_names_neither_length_nor_type(self, stack: Stack) -> None:
        answer = stack(MemoryServer(), options("/predict"))
        assert answer.header("content-length") is None
        assert answer.header("content-type") is None
        assert answer.header("transfer-encoding") is None

    def test_a_star_asks_about_the_whole_server(self) -> None:
        answer = over_connection(MemoryServer(), options("*", ("X-Request-Id", "7")))
        assert (answer.status, answer.header("allow")) == (204, "DELETE, GET, HEAD, POST, OPTIONS")
        assert answer.header("x-request-id") == "7"

    def test_a_star_is_no_path_for_another_method(self) -> None:
        server = MemoryServer()
        client = server.connect("loop")
        client.send(ask("*"))
        server.turn()
        assert [answer.status for answer in client.answers] == [400]

    def test_a_balancers_check_over_http_1_0_needs_no_host(self) -> None:
        server = MemoryServer()
        client = server.connect("loop")
        client.send(b"OPTIONS / HTTP/1.0\r\n\r\n")
        server.turn()
        assert [answer.status for answer in client.answers] == [204]
        assert client.closed

    def test_a_path_without_a_route_gets_404(self, both: Both) -> None:
        assert both(MemoryServer(), options("/nowhere")).status == 404

    def test_it_echoes_the_request_id_and_is_counted(self, both: Both) -> None:
        server = MemoryServer()
        answer = both(server, options("/predict", ("X-Request-Id", "7")))
        assert answer.header("x-request-id") == "7"
        assert len(server.lines) == 2


class TestPages:
    @pytest.fixture
    def server(self) -> MemoryServer:
        return MemoryServer(cors_origins=[ORIGIN], max_body_bytes=100)

    def test_by_default_no_answer_has_a_field_for_browsers(self, both: Both) -> None:
        server = MemoryServer()
        for request in (options("/predict", FROM, *PREFLIGHT), ask("/predict", ROW, FROM)):
            answer = both(server, request)
            assert cors_fields(answer) == []
            assert answer.header("vary") is None

    @pytest.mark.parametrize("path", ["/predict", "/models/m/predict", "/v2/models/m/infer"])
    def test_a_preflight_of_an_origin_in_the_list_is_granted(
        self, server: MemoryServer, stack: Stack, path: str
    ) -> None:
        answer = stack(server, options(path, FROM, *PREFLIGHT))
        assert answer.status == 204
        assert answer.header(ALLOWED) == ORIGIN
        assert answer.header("access-control-allow-methods") == "POST"
        assert answer.header("access-control-allow-headers") == "content-type, x-own"
        assert answer.header("access-control-max-age") == "600"
        assert answer.header("vary") == "Origin"

    def test_a_preflight_of_another_origin_is_not(self, server: MemoryServer, stack: Stack) -> None:
        for origin in ("https://evil.example", "null", f"{ORIGIN}.evil", ORIGIN.upper(), "*"):
            answer = stack(server, options("/predict", ("Origin", origin), *PREFLIGHT))
            assert (answer.status, cors_fields(answer)) == (204, [])
            assert answer.header("vary") == "Origin"

    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            (ask("/predict", ROW, FROM), 200),
            (ask("/livez", b"", FROM), 200),
            (ask("/predict", ROW[:-1], FROM), 400),
            (ask("/models/x/predict", ROW, FROM), 404),
            (ask("/nowhere", b"", FROM), 404),
            (ask("/predict", b"", FROM), 405),
            (ask("/predict", ROW * 10, FROM), 413),
            (ask("/predict", ROW, FROM, ("Content-Encoding", "br")), 415),
        ],
    )
    def test_answers_and_errors_of_every_kind_may_be_read(
        self, server: MemoryServer, stack: Stack, request_bytes: bytes, status: int
    ) -> None:
        answer = stack(server, request_bytes)
        assert (answer.status, answer.header(ALLOWED)) == (status, ORIGIN)
        assert answer.header(CREDENTIALS) == "true"
        assert "X-Request-Id" in (answer.header("access-control-expose-headers") or "")

    def test_answers_to_others_say_that_they_depend_on_the_origin(
        self, server: MemoryServer, stack: Stack
    ) -> None:
        for headers in ((), (FROM_ELSEWHERE,)):
            answer = stack(server, ask("/predict", ROW, *headers))
            assert (answer.status, answer.header("vary")) == (200, "Origin")
            assert cors_fields(answer) == []

    def test_any_origin_is_never_allowed_with_credentials(self, stack: Stack) -> None:
        server = MemoryServer(cors_origins=["*"])
        for request in (options("/predict", FROM, *PREFLIGHT), ask("/predict", ROW, FROM)):
            answer = stack(server, request)
            assert (answer.header(ALLOWED), answer.header(CREDENTIALS)) == ("*", None)
        assert cors_fields(stack(server, ask("/predict", ROW))) == []

    def test_an_origin_beside_any_origin_has_its_own_rights(self, stack: Stack) -> None:
        server = MemoryServer(cors_origins=["*", ORIGIN])
        own, other = (
            stack(server, ask("/predict", ROW, origin)) for origin in (FROM, FROM_ELSEWHERE)
        )
        assert (own.header(ALLOWED), own.header(CREDENTIALS)) == (ORIGIN, "true")
        assert (other.header(ALLOWED), other.header(CREDENTIALS)) == ("*", None)
