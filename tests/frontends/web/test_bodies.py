"""What is kept of bodies.

While their requests wait the inputs that the queue counts, and nothing once the client is gone.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from batcher.codecs.arriving_body import SMALL_BYTES, ArrivingBody
from batcher.codecs.content_coding import HEAVY_BYTES
from batcher.frontends.web.connection import LARGE_PIECE_BYTES
from batcher.frontends.web.turn_budget import TURN_S
from tests.support.http import ROW, MemoryServer, ask, over_connection

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
    over_connection(server, ask("/unknown"))  # the site for it is made, and kept
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


def test_a_turn_reads_no_more_of_fast_bodies_than_it_has_time_for(
    serve: Serve, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    append = ArrivingBody.append

    def slow_append(body: ArrivingBody, piece: bytes) -> None:
        server.clock.rightNow += TURN_S
        append(body, piece)

    monkeypatch.setattr(ArrivingBody, "append", slow_append)
    pieces = [bytes(LARGE_PIECE_BYTES)] * 20
    size = sum(map(len, pieces))
    clients = [server.connect(kind) for _ in range(3)]
    readers = [connection._reader for connection in server.front._connections]
    read = [0]
    for client in clients:
        head, _, _ = ask("/predict", bytes(size)).partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n", *pieces)
    while read[-1] < size * len(clients):
        _one_turn(server.clock)
        read.append(sum(reader.body_bytes for reader in readers))
        assert len(read) <= 4 * len(pieces) * len(clients), "the bodies are not read on"
    # The first piece of each body costs nothing yet, and the second may have been begun in time.
    most = 2 * len(clients) * len(pieces[0])
    assert max(after - before for before, after in pairwise(read)) <= most
    server.work()
    assert all(len(client.answers) == 1 for client in clients)


def _one_turn(clock: Clock) -> None:
    """Make the calls that are due; not `advance`, which would also make those of later turns."""
    for call in [call for call in clock.calls if call.getTime() <= clock.seconds()]:
        clock.calls.remove(call)
        call.called = True
        call.func(*call.args, **call.kw)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_body_for_which_the_system_has_no_memory_may_be_sent_again_later(
    serve: Serve, kind: str, chunked: bool, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_mapping(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("batcher.codecs.arriving_body.Mapping", no_mapping)
    server = serve()
    body = bytes(SMALL_BYTES + 1)
    head, _, _ = ask("/predict", body).partition(b"\r\n\r\n")
    if chunked:
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    step = -(-len(body) // pieces)
    client = server.connect(kind)
    client.send(head + b"\r\n\r\n" + body[:100])
    client.send(*(body[start : start + step] for start in range(100, len(body), step)))
    server.work()
    (answer,) = client.answers
    assert answer.status == 503
    assert answer.header("retry-after") == "1"
    assert b"memory for a body" in answer.body
