"""What is kept of bodies.

While their requests wait the inputs that the queue counts, and nothing once the client is gone.
"""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from collections.abc import Callable

import pytest

from batcher.codecs.content_coding import HEAVY_BYTES
from tests.support.http import ROW, MemoryServer, ask

Serve = Callable[..., MemoryServer]

PADDING = b" " * (1 << 20)
TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
HEAD = json.dumps({"inputs": [TENSOR]}).encode() + PADDING

REQUESTS = {
    "json": ask(
        "/predict", b'{"instances": [[1, 2, 3, 4]]}' + PADDING, content_type="application/json"
    ),
    "oip": ask(
        "/v2/models/m/infer", HEAD + ROW, ("Inference-Header-Content-Length", str(len(HEAD)))
    ),
}


@pytest.mark.parametrize("form", REQUESTS)
def test_of_a_body_that_was_decoded_nothing_waits_but_its_inputs(
    serve: Serve, kind: str, form: str
) -> None:
    server = serve()
    clients = [server.connect(kind) for _ in range(4)]
    request = REQUESTS[form]
    tracemalloc.start()
    try:
        for client in clients:
            client.send(request[:1000], request[1000:])
        server.turn()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    scheduler = next(iter(server.server)).scheduler
    assert scheduler.queue_rows + scheduler.in_flight_rows == 4
    assert kept < len(PADDING)
    server.work()
    assert [answer.status for client in clients for answer in client.answers] == [200] * 4


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("leave", ["leave", "reset"])
def test_of_a_body_whose_client_left_in_the_middle_nothing_is_kept(
    serve: Serve, kind: str, leave: str, chunked: bool
) -> None:
    server = serve()
    whole = (
        ask("/predict", PADDING, ("Transfer-Encoding", "chunked"))
        if chunked
        else ask("/predict", PADDING)
    )
    head, _, body = whole.partition(b"\r\n\r\n")
    pieces = b"%x\r\n%b\r\n" % (len(body), body) if chunked else body[:-1]
    head = re.sub(rb"\r\nContent-Length: \d+", b"", head) if chunked else head
    clients = [server.connect(kind) for _ in range(4)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for client in clients:
            client.send(head + b"\r\n\r\n", pieces[:1000], pieces[1000:])
            getattr(client, leave)()
            server.turn()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert all(client.closed for client in clients)
    assert kept < len(PADDING)


@pytest.mark.parametrize("target", ["/unknown", "/predict"])
def test_of_a_body_that_was_answered_nothing_is_kept(serve: Serve, kind: str, target: str) -> None:
    server = serve()
    body = PADDING[: HEAVY_BYTES - 1]
    request = ask(target, body, content_type="application/json")
    clients = [server.connect(kind) for _ in range(4)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for client in clients:
            client.send(request[:1000], request[1000:])
            server.work()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert [answer.status for client in clients for answer in client.answers] == [
        404 if target == "/unknown" else 400
    ] * 4
    assert kept < len(body)
