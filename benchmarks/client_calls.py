"""The clients that `benchmarks/clients.py` measures, each behind a function that makes one call."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from batcher.client.attempts import checked_options
from batcher.client.http_exchange import request_bytes
from batcher.client.request_building import infer_operation

ROUTE = "/v2/models/echo/infer"
LENGTH = "Inference-Header-Content-Length"
INPUT = np.random.default_rng(1).random((1, 64), "<f4")
WORKERS, CONNECTIONS = 64, 100
THREAD_STACK_BYTES = 1 << 18
"""Of 5,000 threads: the usual 8 MiB each are more than some systems let a process reserve."""

Call = Callable[[], Awaitable[Any]]


def written_by_hand() -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a call, made anew as a program makes them for each input."""
    parameters = {"binary_data_size": INPUT.nbytes}
    entry = {"name": "input", "shape": INPUT.shape, "datatype": "FP32", "parameters": parameters}
    head = orjson.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}})
    headers = {LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
    return head + INPUT.tobytes(), headers


def read_by_hand(body: bytes, length: str) -> Any:
    """Return the output of an answer."""
    shape = orjson.loads(body[: int(length)])["outputs"][0]["shape"]
    return np.frombuffer(body, "<f4", offset=int(length)).reshape(shape)


async def by_aiohttp(address: str, drive: Callable[[Call], Awaitable[Any]]) -> Any:
    """Call by aiohttp."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call() -> Any:
            body, headers = written_by_hand()
            async with session.post(address + ROUTE, data=body, headers=headers) as answer:
                return read_by_hand(await answer.read(), answer.headers[LENGTH])

        return await drive(call)


async def by_httpx(address: str, drive: Callable[[Call], Awaitable[Any]]) -> Any:
    """Call by httpx."""
    import httpx

    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(limits=limits, timeout=None) as session:

        async def call() -> Any:
            body, headers = written_by_hand()
            answer = await session.post(address + ROUTE, content=body, headers=headers)
            return read_by_hand(answer.content, answer.headers[LENGTH])

        return await drive(call)


async def by_async_client(address: str, drive: Callable[[Call], Awaitable[Any]]) -> Any:
    """Call by `AsyncClient`."""
    from batcher.client import AsyncClient

    async with AsyncClient(address, connections=CONNECTIONS) as client:

        async def call() -> Any:
            return (await client.infer("echo", {"input": INPUT})).outputs["output"]

        return await drive(call)


class Bytes(asyncio.Protocol):
    """Sends the same bytes, and takes as many as the first answer had for an answer."""

    def __init__(self) -> None:
        """Wait for the first answer."""
        self.waiting: asyncio.Future[Any] | None = None
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the answer, which is small enough to come in one piece."""
        assert self.waiting is not None
        self.waiting.set_result(INPUT if data.endswith(INPUT.tobytes()) else None)


async def by_bytes_alone(address: str, drive: Callable[[Call], Awaitable[Any]]) -> Any:
    """Send the bytes of one request again and again."""
    loop = asyncio.get_running_loop()
    options = checked_options(address, 60.0, 0)
    operation = infer_operation("echo", {"input": INPUT}, "", None, 0, "")
    data = request_bytes(operation.request(60.0), options)
    host, port = options.address.host, options.address.port
    free = [(await loop.create_connection(Bytes, host, port))[1] for _ in range(WORKERS)]

    async def call() -> Any:
        connection = free.pop()
        connection.waiting = loop.create_future()
        connection.transport.write(data)
        answer = await connection.waiting
        free.append(connection)
        return answer

    return await drive(call)


def on_asyncio(
    client: Any, address: str, load: str, calls: int, factory: Any = None
) -> dict[str, Any]:
    """Measure a client of asyncio on a loop of `factory`."""

    async def drive(call: Call) -> dict[str, Any]:
        await call()
        watch = Watch()
        if load == "at once":
            found = await asyncio.gather(*(call() for _ in range(calls)))
        else:
            found = []

            async def work() -> None:
                while len(found) < calls:
                    found.append(await call())

            await asyncio.gather(*(work() for _ in range(WORKERS)))
        return watch.figures(found)

    with asyncio.Runner(loop_factory=factory) as runner:
        figures: dict[str, Any] = runner.run(client(address, drive))
        return figures


def on_uvloop(client: Any, address: str, load: str, calls: int) -> dict[str, Any]:
    """Measure a client of asyncio on uvloop."""
    import uvloop

    return on_asyncio(client, address, load, calls, uvloop.new_event_loop)


def on_threads(make: Any, address: str, load: str, calls: int) -> dict[str, Any]:
    """Measure a blocking client that threads share."""
    call = make(address)
    call()
    threading.stack_size(THREAD_STACK_BYTES)
    number = calls if load == "at once" else WORKERS
    found: list[Any] = []

    def work() -> None:
        found.extend([call() for _ in range(calls // number)])

    watch = Watch()
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return watch.figures(found)


def with_client(address: str) -> Callable[[], Any]:
    """Return a call of one `Client`."""
    from batcher.client import Client

    client = Client(address, connections=CONNECTIONS)
    return lambda: client.infer("echo", {"input": INPUT}).outputs["output"]


def with_requests(address: str) -> Callable[[], Any]:
    """Return a call of one session of requests."""
    import requests

    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS, pool_block=True)
    session.mount("http://", adapter)

    def call() -> Any:
        body, headers = written_by_hand()
        answer = session.post(address + ROUTE, data=body, headers=headers)
        return read_by_hand(answer.content, answer.headers[LENGTH])

    return call


def on_twisted(make: Any, address: str, load: str, calls: int) -> dict[str, Any]:
    """Measure a client of Twisted on the usual reactor."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, gatherResults

    figures: dict[str, Any] = {}

    async def main() -> None:
        call = make(reactor, address)
        await call()
        watch, found = Watch(), []
        if load == "at once":
            found = await gatherResults([call() for _ in range(calls)])
        else:

            async def work() -> None:
                while len(found) < calls:
                    found.append(await call())

            await gatherResults([Deferred.fromCoroutine(work()) for _ in range(WORKERS)])
        figures.update(watch.figures(found))

    def begin() -> None:
        done = Deferred.fromCoroutine(main())
        done.addErrback(lambda failure: failure.printTraceback())
        done.addBoth(lambda _: reactor.stop())  # type: ignore[attr-defined]

    reactor.callWhenRunning(begin)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    return figures


def with_twisted_client(reactor: Any, address: str) -> Callable[[], Any]:
    """Return a call of one `TwistedClient`."""
    from batcher.client import TwistedClient

    client = TwistedClient(reactor, address, connections=CONNECTIONS)
    return lambda: client.infer("echo", {"input": INPUT}).addCallback(
        lambda result: result.outputs["output"]
    )


def with_treq(reactor: Any, address: str) -> Callable[[], Any]:
    """Return a call by treq, whose connections in use have no bound of their own."""
    import treq
    from twisted.internet.defer import Deferred
    from twisted.web.client import HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONNECTIONS

    async def call() -> Any:
        body, headers = written_by_hand()
        answer = await treq.post(address + ROUTE, data=body, headers=headers, pool=pool)
        (length,) = answer.headers.getRawHeaders(LENGTH)
        return read_by_hand(await answer.content(), length)

    return lambda: Deferred.fromCoroutine(call())


class Watch:
    """Begins to measure this process."""

    def __init__(self) -> None:
        """Note time, processor time and memory."""
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._processor, self._time = time.process_time(), time.perf_counter()

    def figures(self, found: list[Any]) -> dict[str, Any]:
        """Return what the calls that gave `found` took."""
        took, processor = time.perf_counter() - self._time, time.process_time() - self._processor
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self._memory
        wrong = sum(not np.array_equal(output, INPUT) for output in found)
        return {
            "rate": len(found) / took,
            "cpu": processor / len(found) * 1e6,
            "connections": _sockets(),
            "memory": memory / 1024,
            "wrong": wrong,
        }


def _sockets() -> int:
    """Return how many sockets of this process lead to the server."""
    mine = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            mine.add(os.readlink(entry.path))
        except FileNotFoundError:
            continue
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return sum(f"socket:[{field[9]}]" in mine and field[3] == "01" for field in fields)


CLIENTS: dict[str, tuple[Any, Any]] = {
    "AsyncClient": (on_asyncio, by_async_client),
    "aiohttp": (on_asyncio, by_aiohttp),
    "AsyncClient, uvloop": (on_uvloop, by_async_client),
    "aiohttp, uvloop": (on_uvloop, by_aiohttp),
    "Client, threads": (on_threads, with_client),
    "requests, threads": (on_threads, with_requests),
    "TwistedClient": (on_twisted, with_twisted_client),
    "treq": (on_twisted, with_treq),
    "httpx": (on_asyncio, by_httpx),
    "bytes alone": (on_asyncio, by_bytes_alone),
    "bytes alone, uvloop": (on_uvloop, by_bytes_alone),
}
ONLY_AT_A_TIME = {"httpx", "treq", "requests, threads", "bytes alone", "bytes alone, uvloop"}
"""Not measured at once: httpx takes minutes for 5,000, treq opens 5,000 connections."""
