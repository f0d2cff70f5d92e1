"""The three forms of `batcher.client` against a real server, and against sockets that misbehave."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

from batcher.client import (
    AnswerLost,
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    InferenceFailed,
    NotConnected,
    TwistedClient,
)
from tests.end_to_end.processes import ROOT, Process, started, until, write_model
from tests.end_to_end.test_clients import relayed
from tests.end_to_end.test_listening import certify

HELDOUT = np.load(ROOT / "examples" / "digits" / "heldout.npz")
IMAGES, LABELS = HELDOUT["images"].astype("<f4"), HELDOUT["labels"]
ROW = np.ones((1, 4), "<f4")
TOGETHER = 16
SLOW = """
import time

class Model:
    def predict(self, inputs):
        time.sleep(0.5 * inputs["x"].any())
        return {"y": inputs["x"] * 2}
"""
REFUSAL = (
    b'HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 17\r\n\r\n{"error": '
    b'"full"}'
)

Ask = Callable[[Any], Any]
"""Calls a method of a client; the result is waited for."""

Form = Callable[..., list[Any]]
"""Makes a client for an address, makes all calls, and returns results and exceptions.

`together` makes all calls at once.
"""


def blocking(address: str, calls: list[Ask], together: bool = False, **options: Any) -> list[Any]:
    def one(ask: Ask) -> Any:
        try:
            return ask(client)
        except Exception as err:
            return err

    with (
        Client(address, **options) as client,
        ThreadPoolExecutor(len(calls) if together else 1) as threads,
    ):
        return list(threads.map(one, calls))


def asynchronous(
    address: str, calls: list[Ask], together: bool = False, **options: Any
) -> list[Any]:
    async def main() -> list[Any]:
        async with AsyncClient(address, **options) as client:
            if together:
                return await asyncio.gather(*(ask(client) for ask in calls), return_exceptions=True)
            return [(await asyncio.gather(ask(client), return_exceptions=True))[0] for ask in calls]

    return asyncio.run(main())


def deferred(address: str, calls: list[Ask], together: bool = False, **options: Any) -> list[Any]:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.threads import blockingCallFromThread

    async def main() -> list[Any]:
        client = TwistedClient(reactor, address, **options)
        try:
            if together:
                return await gatherResults(
                    [ask(client).addErrback(lambda failure: failure.value) for ask in calls]
                )
            return [await ask(client).addErrback(lambda failure: failure.value) for ask in calls]
        finally:
            await client.close()

    found: list[Any] = blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(main()))
    return found


FORMS: dict[str, Form] = {"blocking": blocking, "asyncio": asynchronous, "Twisted": deferred}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, reactor_thread: None) -> Form:
    return FORMS[request.param]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("client")) as process:
        yield process
        assert "Traceback" not in process.errors


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that reads a request, sends `answer` and hangs up.

    Give its address, and the list of the requests that it has read.
    """
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        stop = Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.settimeout(10)
                    data = b""
                    while b"\r\n\r\n" not in data or not data.endswith(ROW.tobytes()):
                        data += connection.recv(1 << 16)
                    requests.append(data)
                    connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            stop.set()
            thread.join()


def digits(images: Any = IMAGES, **options: Any) -> Ask:
    return lambda client: client.infer("digits", {"image": images}, **options)


def row(**options: Any) -> Ask:
    return lambda client: client.infer("m", {"x": ROW}, **options)


def test_digits_are_known_over_one_connection(form: Form, server: Process) -> None:
    with relayed(server) as (address, accepted):
        ready, first, wrong, other, described, last = form(
            address,
            [
                lambda client: client.is_ready(),
                digits(request_id="é"),
                digits(IMAGES.astype("f8")),
                lambda client: client.infer("no body", {"x": ROW}),
                lambda client: client.metadata("digits"),
                digits(outputs=["scores"], version="1", timeout=20, priority=1),
            ],
        )
    assert ready is True
    assert (first.model, first.version, first.id) == ("digits", "1", "é")
    for result in (first, last):
        assert (result.outputs["scores"].argmax(axis=1) == LABELS).mean() > 0.97
    assert isinstance(wrong, InferenceFailed)
    assert (wrong.status, wrong.retry_after) == (400, None)
    assert "expected datatype FP32; got 'FP64'" in wrong.message
    assert other.status == 404
    assert described["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]
    assert len(accepted) == 1


def test_calls_at_the_same_time_each_get_their_own(form: Form, server: Process) -> None:
    calls = [digits(IMAGES[index : index + 1]) for index in range(TOGETHER)]
    results = form(server.address, calls, True)
    expected = form(server.address, [digits(IMAGES[:TOGETHER])])[0].outputs["scores"]
    found = np.concatenate([result.outputs["scores"] for result in results])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_many_calls_at_once_take_turns_on_few_connections(form: Form, server: Process) -> None:
    expected = form(server.address, [digits()])[0].outputs["scores"].argmax(axis=1)
    rows = [index % len(IMAGES) for index in range(600)]
    calls = [digits(IMAGES[row : row + 1]) for row in rows]
    with relayed(server) as (address, accepted):
        results = form(address, calls, True, connections=12)
    assert [result.outputs["scores"].argmax() for result in results] == expected[rows].tolist()
    assert len(accepted) <= 12


def test_closing_wakes_the_threads_that_wait_for_answers_and_for_turns() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(5) as threads:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", connections=2)
        calls = [threads.submit(row(), client) for _ in range(5)]
        accepted, _ = silent.accept()
        with accepted:  # closed before the client is, it would lose an answer
            accepted.recv(1)
            client.close()
            assert [type(call.exception(10)) for call in calls] == [ClientClosed] * 5


def test_a_process_that_was_forked_has_connections_of_its_own(server: Process) -> None:
    program = f"""
import os
import numpy as np
from batcher.client import Client

def scores(sign):
    images = np.full((1, 1, 8, 8), sign, "<f4")
    return client.infer("digits", {{"image": images}}).outputs["scores"]

client = Client("{server.address}")
expected = [scores(0), scores(1)]
child = os.fork()
mine = 0 if child else 1
same = all(np.allclose(scores(mine), expected[mine], atol=1e-5) for _ in range(200))
if not child:
    os._exit(0 if same else 1)
print(same, os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == "True 0\n", result.stderr


def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{"model_name":"m","outputs":[]}'

    async def ask(client: AsyncClient) -> Any:
        return await client.infer("m", {"x": ROW})

    # the server takes one connection after the other, so the last one is closed at the next answer
    with listening(answer) as (address, _), asyncio.Runner() as runner, Client(address) as client:
        other = AsyncClient(address)
        for _ in range(3):
            assert client.infer("m", {"x": ROW}).model == "m"
            assert runner.run(ask(other)).model == "m"
        runner.run(other.close())


def test_retry_after_is_waited_for_and_then_it_is_asked_again(form: Form) -> None:
    with listening(REFUSAL) as (address, requests):
        began = time.monotonic()
        (error,) = form(address, [row()], retries=1)
        took = time.monotonic() - began
    assert isinstance(error, InferenceFailed)
    assert (error.status, error.message, error.retry_after) == (503, "full", 1.0)
    assert len(requests) == 2
    assert took >= 1.0


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"], ids=["none", "cut off"]
)
def test_a_connection_that_is_lost_after_the_request_was_sent_is_not_tried_again(
    form: Form, answer: bytes
) -> None:
    with listening(answer) as (address, requests):
        (error,) = form(address, [row()])
    assert isinstance(error, AnswerLost)
    assert len(requests) == 1


def test_a_server_that_never_answers_is_left_on_time(form: Form) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        (error,) = form(f"http://127.0.0.1:{silent.getsockname()[1]}", [row(timeout=0.3)])
        took = time.monotonic() - began
    assert isinstance(error, DeadlineExceeded)
    assert took >= 0.3


def test_nobody_there_is_told_as_such(form: Form) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"http://127.0.0.1:{gone.getsockname()[1]}"
    error, ready = form(address, [row(), lambda client: client.is_ready()], retries=1)
    assert isinstance(error, NotConnected)
    assert ready is False


def test_a_certificate_that_nobody_trusts_is_no_connection(form: Form, tmp_path: Path) -> None:
    certify(tmp_path, "own")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:

        def read() -> bytes:
            accepted, _ = listener.accept()
            with (
                suppress(OSError),  # some forms say why they leave, others just leave
                context.wrap_socket(accepted, server_side=True) as connection,
            ):
                return connection.recv(1)
            return b""

        received = threads.submit(read)
        (error,) = form(f"https://127.0.0.1:{listener.getsockname()[1]}", [row()], retries=0)
        assert received.result(10) == b""
    assert isinstance(error, NotConnected)
    assert "certificate" in str(error)


def test_a_client_that_comes_first_waits_until_the_server_is_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        started(tmp_path, "--port", str(port), ready=False),
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        assert not client.is_ready()
        client.wait_ready(60)
        assert client.infer("digits", {"image": IMAGES[:1]}).outputs["scores"].shape == (1, 10)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Process]:
    write_model(tmp_path / "models", "m", SLOW)
    settings = (
        "--set",
        f"model_repository={tmp_path / 'models'}",
        "--set",
        "defaults.max_batch_size=1",
    )
    with started(tmp_path, *settings) as process:
        yield process


def test_what_nobody_waits_for_any_more_costs_the_model_nothing(form: Form, slow: Process) -> None:
    before = slow.metric("batcher_batch_size_sum")
    results = form(slow.address, [row(timeout=0.7)] * 8, True)
    assert sum(isinstance(result, DeadlineExceeded | InferenceFailed) for result in results) >= 6
    until(
        lambda: (
            slow.metric("batcher_queue_rows") == 0 and slow.metric("batcher_in_flight_rows") == 0
        )
    )
    assert slow.metric("batcher_batch_size_sum") - before <= 3


def test_a_server_that_stops_answers_what_it_took_and_is_then_not_there(slow: Process) -> None:
    with ThreadPoolExecutor(1) as threads, Client(slow.address, retries=1) as client:
        accepted = threads.submit(row(), client)
        until(lambda: slow.metric("batcher_in_flight_rows") > 0)
        slow.signal(signal.SIGTERM)
        np.testing.assert_array_equal(accepted.result(20).outputs["y"], ROW * 2)
        began = time.monotonic()
        with pytest.raises(NotConnected):
            client.infer("m", {"x": ROW})
        assert time.monotonic() - began >= 0.1, "it was tried again"
