"""Refusals of a connection: what it does not serve, in the form of every other answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batcher.errors import ModelLoadError
from tests.support.http import ROW, MemoryServer, ask
from tests.support.models import RecordingModel, model_spec
from tests.support.transports import Client

Serve = Callable[..., MemoryServer]

ID = ("X-Request-Id", "id-7")
TARGETS = "GET /{} HTTP/1.1\r\nHost: h\r\n\r\n"


def fail(inputs: object) -> dict[str, object]:
    raise ValueError("secret")


def unready(serve: Serve, **settings: object) -> MemoryServer:
    """Return a server with a good model, one that raises and one that could not be loaded."""
    server = serve(RecordingModel(), RecordingModel(model_spec(name="bad"), fail), **settings)
    server.add(RecordingModel(model_spec(name="broken"))).loaded.errback(
        ModelLoadError("no such file")
    )
    return server


def head(*fields: str) -> bytes:
    return "\r\n".join(
        ["POST /models/m/predict HTTP/1.1", "Host: h", "X-Request-Id: id-7", *fields, "", ""]
    ).encode()


OCTETS = "Content-Type: application/octet-stream"
STATUSES = [
    (200, ask("/models/m/predict", ROW, ID)),
    (200, ask("/docs", b"", ID)),
    (400, ask("/models/m/predict", ROW[:-1], ID)),
    (400, head("Content-Length: 1", "Content-Length: 2")),
    (400, head("Host: again", "Content-Length: 0")),
    (400, head("Content-Length: 3", "Content-Encoding: gzip", OCTETS) + b"abc"),
    (404, ask("/models/unknown/predict", ROW, ID)),
    (404, ask("/nowhere", b"", ID)),
    (405, ask("/predict", b"", ID)),
    (405, ask("/livez", ROW, ID)),
    (405, b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\nX-Request-Id: id-7\r\n\r\n"),
    (406, ask("/models/m/predict", ROW, ID, ("Accept", "image/png"))),
    (413, head("Content-Length: 5000")),
    (413, head("Transfer-Encoding: chunked") + b"7d0\r\n" + b"b" * 2000 + b"\r\n"),
    (413, ask("/models/m/predict", ROW * 60, ID)),
    (415, ask("/models/m/predict", ROW, ID, content_type="text/prose")),
    (415, head("Content-Length: 3", "Content-Encoding: br") + b"abc"),
    (431, head(*(f"X-{index}: {'v' * 100}" for index in range(20)))),
    (500, ask("/models/bad/predict", ROW, ID)),
    (501, head("Transfer-Encoding: gzip, chunked")),
    (503, ask("/models/broken/predict", ROW, ID)),
    (504, ask("/models/m/predict", ROW, ID, ("X-Timeout-Ms", "50"))),
]


ACCEPTS = ("", "application/msgpack", "application/json")
CASES = [
    (*case, accept) for case in STATUSES for accept in ACCEPTS if not (accept and case[0] == 406)
]


@pytest.mark.parametrize(
    ("status", "request_bytes", "accept"), CASES, ids=lambda value: str(value)[:50]
)
def test_every_status_echoes_the_request_id_and_errors_come_in_the_format_asked_for(
    serve: Serve, kind: str, status: int, request_bytes: bytes, accept: str
) -> None:
    server = unready(
        serve, max_body_bytes=1500, max_header_bytes=1024, defaults={"max_queue_rows": 50}
    )
    if accept:
        line, rest = request_bytes.split(b"\r\n", 1)
        request_bytes = line + b"\r\nAccept: " + accept.encode() + b"\r\n" + rest
    client = server.connect(kind)
    client.send(request_bytes)
    if status == 504:
        server.wait(0.1, step=0.05)
    server.work()
    (answer,) = client.answers
    assert client.unparsed == b""
    assert answer.status == status
    assert answer.header("x-request-id") == "id-7"
    if status >= 400:
        assert answer.header("content-type") == (accept or "application/json")
        document = answer.decoded()
        assert set(document) == {"error", "code"}
        assert all(isinstance(text, str) and text for text in document.values())
        assert "secret" not in document["error"]


def test_a_client_that_sent_messagepack_gets_its_error_in_messagepack(
    serve: Serve, kind: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", b"\xc1", content_type="application/msgpack"))
    server.work()
    (answer,) = client.answers
    assert (answer.status, answer.header("content-type")) == (400, "application/msgpack")
    assert set(answer.decoded()) == {"error", "code"}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_is_refused_with_close_and_nothing_behind_it_is_read(
    serve: Serve, kind: str, data: bytes, status: int
) -> None:
    server = serve(max_uri_bytes=200)
    client = server.connect(kind)
    client.send(data + ask("/predict", ROW), ask("/predict", ROW))
    server.work()
    assert [(answer.status, answer.header("connection")) for answer in client.answers] == [
        (status, "close")
    ]
    assert server.model.batches == []


def test_a_refusal_waits_for_the_answers_before_it(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("/predict", ROW) + ask("/predict", ROW) + b"nonsense\r\n\r\n")
    server.turn()
    assert client.received == b""
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200, 400]
    assert client.ended


def test_a_refusal_waits_for_requests_beyond_the_pipelining_bound_too(
    serve: Serve, kind: str
) -> None:
    server = serve(max_pipelined_requests=2)
    client = server.connect(kind)
    client.send(ask("/predict", ROW) * 4 + b"nonsense\r\n\r\n")
    server.work()
    assert [answer.status for answer in client.answers] == [200, 200, 200, 200, 400]


class TestTooManyConnections:
    def test_one_more_than_allowed_gets_503_with_retry_after_and_is_closed(
        self, serve: Serve, kind: str
    ) -> None:
        server = serve(max_connections=2)
        first, _ = server.connect(kind), server.connect(kind)
        third = server.connect(kind)
        third.send(ask("/predict", ROW))
        server.work()
        (answer,) = third.answers
        assert (answer.status, answer.header("connection")) == (503, "close")
        assert int(answer.header("retry-after") or 0) >= 1
        assert set(answer.decoded()) == {"error", "code"}
        assert server.model.batches == []
        server.wait(3)
        assert third.closed
        first.send(ask("/predict", ROW))
        server.work()
        assert [answer.status for answer in first.answers] == [200], (
            "those that were there are served"
        )

    def test_a_place_that_becomes_free_is_given_to_the_next(self, serve: Serve, kind: str) -> None:
        server = serve(max_connections=1)
        server.connect(kind).reset()
        server.turn()
        client = server.connect(kind)
        client.send(ask("/livez"))
        server.work()
        assert [answer.status for answer in client.answers] == [200]

    def test_the_number_of_connections_is_a_metric(self, serve: Serve, kind: str) -> None:
        server = serve()
        clients: list[Client] = [server.connect(kind) for _ in range(3)]
        assert b"batcher_connections 3.0" in server.server.metrics.render()
        clients[0].reset()
        server.turn()
        assert b"batcher_connections 2.0" in server.server.metrics.render()


@pytest.mark.parametrize(
    "host", ["a..b", "x" * 70, "a b", "h\xff", "[::1", "%00", "h:port", "-", "."]
)
def test_no_host_header_makes_a_page_fail(serve: Serve, kind: str, host: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
    server.work()
    (answer,) = client.answers
    assert answer.status in (200, 400)
    assert answer.header("content-type") == "application/json"


@pytest.mark.parametrize(
    "target", ["/%ff", "/models/%ff/predict", "/%", "/%2", "/..", "/livez/..", "/a;b=c"]
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_a_strange_target_gets_an_error_of_ours(
    serve: Serve, kind: str, target: str, method: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask(target, b"", ID, method=method))
    server.work()
    (answer,) = client.answers
    assert answer.status in (400, 404, 405)
    assert set(answer.decoded()) == {"error", "code"}
    assert answer.header("x-request-id") == "id-7"


def test_an_asterisk_is_no_page(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask("*", b"", ID))
    server.turn()
    assert [answer.status for answer in client.answers] in ([400], [404], [405]), bytes(
        client.received
    )
    assert set(client.answers[0].decoded()) == {"error", "code"}


@pytest.mark.parametrize("target", ["/predict", "/livez"])
def test_a_target_in_absolute_form_is_the_same_as_its_path(
    serve: Serve, kind: str, target: str
) -> None:
    server = serve()
    client = server.connect(kind)
    client.send(ask(f"http://batcher.test{target}", ROW if target == "/predict" else b""))
    server.work()
    assert [answer.status for answer in client.answers] == [200], (
        "RFC 9112, 3.2.2: a server must accept it"
    )


HEAD_REFUSALS = [
    (400, b"HEAD /livez HTTP/1.1\r\n\r\n"),
    (400, b"HEAD /livez HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"),
    (400, b"HEAD /livez HTTP/1.1\r\nHost : h\r\n\r\n"),
    (400, b"HEAD nowhere HTTP/1.1\r\nHost: h\r\n\r\n"),
    (404, b"HEAD /nowhere HTTP/1.1\r\nHost: h\r\n\r\n"),
    (405, b"HEAD /predict HTTP/1.1\r\nHost: h\r\n\r\n"),
    (413, b"HEAD /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n"),
    (414, b"HEAD /" + b"a" * 300 + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    (415, b"HEAD /livez HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\n"),
    (431, b"HEAD /livez HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 2000 + b"\r\n\r\n"),
    (501, b"HEAD /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "data"), HEAD_REFUSALS, ids=[str(row) for row in HEAD_REFUSALS])
def test_no_answer_to_head_has_a_body_refused_or_not(
    serve: Serve, kind: str, status: int, data: bytes
) -> None:
    server = serve(max_body_bytes=1000, max_header_bytes=1024, max_uri_bytes=200)
    client = server.connect(kind)
    client.methods = ["HEAD"]
    client.send(data)
    server.turn()
    assert [answer.status for answer in client.answers] == [status]
    assert client.unparsed == b""
    assert int(client.answers[0].header("content-length") or 0) > 0, "as for GET"


def test_a_slow_head_request_is_refused_without_a_body(serve: Serve, kind: str) -> None:
    server = serve(header_timeout_s=2)
    client = server.connect(kind)
    client.methods = ["HEAD"]
    client.send(b"HEAD /livez HTTP/1.1\r\nHost: ")
    server.wait(4)
    assert [answer.status for answer in client.answers] == [408]
    assert client.unparsed == b""


def test_garbage_behind_a_head_request_is_refused_with_a_body(serve: Serve, kind: str) -> None:
    server = serve()
    client = server.connect(kind)
    client.methods = ["HEAD", "GET"]
    client.send(b"HEAD /livez HTTP/1.1\r\nHost: h\r\n\r\nnonsense\r\n\r\n")
    server.turn()
    assert [answer.status for answer in client.answers] == [200, 400]
    assert client.answers[1].decoded()["code"] == "malformed_http"
