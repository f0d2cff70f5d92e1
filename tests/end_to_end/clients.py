"""The HTTP clients that programs in Python use, each behind an adapter of a few lines.

An adapter sends `Call`s with one session of its client, one after another or all at once, and
leaves the client's settings at their defaults. With `Expect: 100-continue` aiohttp alone waits for
the 100; the other clients send the body at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import aiohttp
import httpx
import requests
import treq


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        path: path of the URL.
        body: argument for the client: bytes; a dict to send as JSON; a list whose pieces are
            streamed; the path of a picture to upload in a form; None for a GET.
        headers: fields besides the client's own.
    """

    path: str = "/predict"
    body: bytes | dict[str, Any] | list[bytes] | Path | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method of the request."""
        return "GET" if self.body is None else "POST"


class Answer(NamedTuple):
    """An answer as the client reports it."""

    status: int
    content_type: str
    body: bytes


Client = Callable[[str, Sequence[Call], bool], list[Answer]]
"""Sends calls to an address with one session; all at once if the last argument is true."""


def with_requests(address: str, calls: Sequence[Call], together: bool) -> list[Answer]:
    def send(call: Call) -> Answer:
        arguments: dict[str, Any]
        match call.body:
            case dict():
                arguments = {"json": call.body}
            case list():
                arguments = {"data": iter(call.body)}
            case Path():
                arguments = {
                    "files": {
                        "image": (call.body.name, BytesIO(call.body.read_bytes()), "image/png")
                    }
                }
            case _:
                arguments = {"data": call.body}
        answer = session.request(
            call.method, address + call.path, headers=call.headers, **arguments
        )
        return Answer(answer.status_code, answer.headers["Content-Type"], answer.content)

    with (
        requests.Session() as session,
        ThreadPoolExecutor(len(calls) if together else 1) as threads,
    ):
        return list(threads.map(send, calls))


def httpx_arguments(call: Call) -> dict[str, Any]:
    match call.body:
        case dict():
            return {"json": call.body}
        case Path():
            return {
                "files": {"image": (call.body.name, BytesIO(call.body.read_bytes()), "image/png")}
            }
        case _:
            return {"content": call.body}


def with_httpx(address: str, calls: Sequence[Call], together: bool) -> list[Answer]:
    def send(call: Call) -> Answer:
        answer = client.request(
            call.method, call.path, headers=call.headers, **httpx_arguments(call)
        )
        return Answer(answer.status_code, answer.headers["Content-Type"], answer.content)

    with (
        httpx.Client(base_url=address) as client,
        ThreadPoolExecutor(len(calls) if together else 1) as threads,
    ):
        return list(threads.map(send, calls))


async def streamed(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def in_tasks(
    send: Callable[[Call], Awaitable[Answer]], calls: Sequence[Call], together: bool
) -> list[Answer]:
    if together:
        return await asyncio.gather(*map(send, calls))
    return [await send(call) for call in calls]


def with_httpx_in_asyncio(address: str, calls: Sequence[Call], together: bool) -> list[Answer]:
    async def session() -> list[Answer]:
        async def send(call: Call) -> Answer:
            arguments = (
                {"content": streamed(call.body)}
                if isinstance(call.body, list)
                else httpx_arguments(call)
            )
            answer = await client.request(call.method, call.path, headers=call.headers, **arguments)
            return Answer(answer.status_code, answer.headers["Content-Type"], answer.content)

        async with httpx.AsyncClient(base_url=address) as client:
            return await in_tasks(send, calls, together)

    return asyncio.run(session())


def with_aiohttp(address: str, calls: Sequence[Call], together: bool) -> list[Answer]:
    def arguments(call: Call) -> dict[str, Any]:
        match call.body:
            case dict():
                return {"json": call.body}
            case list():
                return {"data": streamed(call.body)}
            case Path():
                form = aiohttp.FormData()
                form.add_field(
                    "image",
                    BytesIO(call.body.read_bytes()),
                    filename=call.body.name,
                    content_type="image/png",
                )
                return {"data": form}
            case _:
                return {"data": call.body}

    async def session() -> list[Answer]:
        async def send(call: Call) -> Answer:
            async with client.request(
                call.method, call.path, headers=call.headers, **arguments(call)
            ) as answer:
                return Answer(answer.status, answer.headers["Content-Type"], await answer.read())

        async with aiohttp.ClientSession(address) as client:
            return await in_tasks(send, calls, together)

    return asyncio.run(session())


class Unsized:
    """A file that cannot seek, so that Twisted does not know its length and sends chunks."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, _size: int) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        """Nothing is held."""


def with_treq(address: str, calls: Sequence[Call], together: bool) -> list[Answer]:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, gatherResults
    from twisted.internet.threads import blockingCallFromThread
    from twisted.web.client import FileBodyProducer, HTTPConnectionPool

    def arguments(call: Call) -> dict[str, Any]:
        match call.body:
            case dict():
                return {"json": call.body}
            case list():
                return {"data": FileBodyProducer(Unsized(call.body))}
            case Path():
                return {
                    "files": {
                        "image": (call.body.name, "image/png", BytesIO(call.body.read_bytes()))
                    }
                }
            case _:
                return {"data": call.body}

    async def session() -> list[Answer]:
        async def send(call: Call) -> Answer:
            answer = await treq.request(
                call.method, address + call.path, headers=call.headers, pool=pool, **arguments(call)
            )
            return Answer(
                answer.code, answer.headers.getRawHeaders("Content-Type")[0], await answer.content()
            )

        pool = HTTPConnectionPool(reactor)
        try:
            if together:
                return await gatherResults([Deferred.fromCoroutine(send(call)) for call in calls])
            return [await send(call) for call in calls]
        finally:
            await pool.closeCachedConnections()

    answers: list[Answer] = blockingCallFromThread(
        reactor, lambda: Deferred.fromCoroutine(session())
    )
    return answers


CLIENTS: dict[str, Client] = {
    "requests": with_requests,
    "httpx": with_httpx,
    "httpx in asyncio": with_httpx_in_asyncio,
    "aiohttp": with_aiohttp,
    "treq": with_treq,
}


@contextmanager
def running_reactor() -> Iterator[None]:
    """Run Twisted's own reactor in a thread, which treq needs.

    A reactor cannot be started twice in a process.
    """
    from twisted.internet import reactor

    thread = Thread(target=reactor.run, kwargs={"installSignalHandlers": False})
    thread.start()
    yield
    reactor.callFromThread(reactor.stop)
    thread.join()
