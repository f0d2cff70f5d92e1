"""Clients that others wrote, with their default settings, against a real server.

Our own reader of answers could share a mistake with the server that writes the answers. So each
test runs with every client of `clients.py`. A relay between client and server counts connections,
which shows whether a client kept its connection.
"""

from __future__ import annotations

import gzip
import json
import select
import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest

from tests.end_to_end.clients import CLIENTS, Call, Client
from tests.end_to_end.processes import ROOT, Process, started
from tests.end_to_end.test_digits import OCTETS, PICTURE, direct

HELDOUT = np.load(ROOT / "examples" / "digits" / "heldout.npz")["images"]
ALL = HELDOUT.tobytes()
PACKED = gzip.compress(ALL)
RAW = {"Content-Type": OCTETS}
TOGETHER = 32
"""Calls at once: more than the ten connections that requests keeps, fewer than the hundred that
httpx and aiohttp open.
"""

OCTET_CALLS = {
    "one row": Call(body=HELDOUT[:1].tobytes(), headers=RAW),
    "many rows": Call(body=ALL, headers=RAW),
    "gzip": Call(body=PACKED, headers=RAW | {"Content-Encoding": "gzip"}),
    "chunked": Call(body=[ALL[at : at + 1000] for at in range(0, len(ALL), 1000)], headers=RAW),
    "chunked gzip": Call(body=[PACKED[:5], PACKED[5:]], headers=RAW | {"Content-Encoding": "gzip"}),
    "expect": Call(body=ALL, headers=RAW | {"Expect": "100-continue"}),
    "chunked expect": Call(body=[ALL[:7], ALL[7:]], headers=RAW | {"Expect": "100-continue"}),
}
UNKNOWN = Call("/models/nobody/predict", ALL, RAW)
BAD = Call(body=b"12", headers=RAW)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, reactor_thread: None) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("clients"), "--set", "max_body_bytes=1MiB") as process:
        yield process
        assert "Traceback" not in process.errors


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Return the model's own scores of the held-out digits."""
    return direct(HELDOUT)


@contextmanager
def relayed(server: Process) -> Iterator[tuple[str, list[object]]]:
    """Give the address of a relay to the server, and the list of connections to the relay."""
    accepted: list[object] = []

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            accepted.append(self.client_address)
            with server.connect() as upstream:
                other: dict[socket.socket, socket.socket] = {
                    self.request: upstream,
                    upstream: self.request,
                }
                while True:
                    for source in select.select(list(other), [], [])[0]:
                        if not (data := source.recv(1 << 16)):
                            return
                        other[source].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as relay:
        thread = Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{relay.server_address[1]}", accepted
        finally:
            relay.shutdown()
            thread.join()


@pytest.mark.parametrize("kind", OCTET_CALLS)
def test_octets_are_answered_with_the_scores_of_each_row(
    client: Client, server: Process, expected: np.ndarray, kind: str
) -> None:
    (answer,) = client(server.address, [OCTET_CALLS[kind]], False)
    assert (answer.status, answer.content_type) == (200, OCTETS), answer.body
    scores = np.frombuffer(answer.body, "<f4").reshape(-1, 10)
    np.testing.assert_allclose(scores, expected[: len(scores)], atol=1e-5, rtol=0)
    assert len(scores) == (1 if kind == "one row" else len(HELDOUT))


def test_json_and_a_picture_in_a_form_are_answered_with_json(
    client: Client, server: Process, expected: np.ndarray
) -> None:
    row = Call(body={"inputs": {"image": HELDOUT[:1].tolist()}})
    of_row, of_picture = client(server.address, [row, Call(body=PICTURE)], False)
    assert (of_row.status, of_row.content_type) == (200, "application/json"), of_row.body
    answer = json.loads(of_row.body)
    np.testing.assert_allclose(answer["outputs"]["scores"], expected[:1], atol=1e-5, rtol=0)
    best = int(expected[0].argmax())
    assert answer["predictions"] == [
        {"label": str(best), "probability": pytest.approx(expected[0, best], abs=1e-5)}
    ]
    assert (of_picture.status, of_picture.content_type) == (200, "application/json"), (
        of_picture.body
    )
    assert json.loads(of_picture.body)["predictions"][0]["label"] == "3"


def test_a_connection_is_kept_over_answers_errors_and_pages(
    client: Client, server: Process
) -> None:
    calls = [
        *OCTET_CALLS.values(),
        BAD,
        Call(body=PICTURE),
        UNKNOWN,
        Call("/docs"),
        Call("/nowhere"),
        OCTET_CALLS["one row"],
    ]
    with relayed(server) as (address, accepted):
        answers = client(address, calls, False)
    assert [answer.status for answer in answers] == [200] * len(OCTET_CALLS) + [
        400,
        200,
        404,
        200,
        404,
        200,
    ]
    assert answers[-1].body == answers[0].body
    assert len(accepted) == 1


def test_requests_at_once_each_get_their_own_answer(
    client: Client, server: Process, expected: np.ndarray
) -> None:
    answers = client(
        server.address,
        [Call(body=image.tobytes(), headers=RAW) for image in HELDOUT[:TOGETHER]],
        True,
    )
    assert [answer.status for answer in answers] == [200] * TOGETHER
    scores = np.stack([np.frombuffer(answer.body, "<f4") for answer in answers])
    np.testing.assert_allclose(scores, expected[:TOGETHER], atol=1e-5, rtol=0)


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}], ids=["plain", "expect"])
def test_errors_are_read_with_their_json(
    client: Client, server: Process, expect: dict[str, str]
) -> None:
    calls = [Call(call.path, call.body, call.headers | expect) for call in (UNKNOWN, BAD)]
    unknown, bad = client(server.address, calls, False)
    assert (unknown.status, unknown.content_type) == (404, "application/json")
    assert json.loads(unknown.body)["code"] == "unknown_model"
    assert "nobody" in json.loads(unknown.body)["error"]
    assert (bad.status, bad.content_type) == (400, "application/json")
    assert json.loads(bad.body)["code"] == "undecodable"


@pytest.mark.parametrize(
    "body", [bytes(4 << 20), [bytes(1 << 16)] * 64], ids=["at once", "chunked"]
)
def test_the_refusal_of_a_large_body_is_read_though_the_body_was_still_being_sent(
    client: Client, server: Process, body: bytes | list[bytes]
) -> None:
    large, live = client(server.address, [Call(body=body, headers=RAW), Call("/livez")], False)
    assert (large.status, large.content_type) == (413, "application/json")
    assert json.loads(large.body)["code"] == "too_large"
    assert live.status == 200


def test_pages_are_read(client: Client, server: Process) -> None:
    docs, metrics, live = client(
        server.address, [Call("/docs"), Call("/metrics"), Call("/livez")], False
    )
    assert [docs.status, metrics.status, live.status] == [200] * 3
    assert docs.content_type.startswith("text/html")
    assert b"/models/{name}/predict" in docs.body
    assert metrics.content_type.startswith("text/plain")
    assert b"\nbatcher_connections " in metrics.body
    assert json.loads(live.body)
