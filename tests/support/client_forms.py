"""The three forms of the client, each against a `Peer`.

The clock of each form moves only when everybody waits.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

import httpx
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from batcher.client import AsyncClient, Client, TwistedClient
from batcher.client.response_reading import HttpResponse
from tests.support.oip_peer import Hang, Lose, Peer, Refuse

ADDRESS = "http://peer:1/base"
ClientCall = Callable[[Any], Any]
"""Calls a method of a client."""

CallResult = tuple[Any, float]
"""The result or the exception of a call, and the seconds that the call took."""


def httpx_answer(answer: HttpResponse) -> httpx.Response:
    return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def blocking(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on a `Client`."""
    clock = Clock()

    def handle(request: httpx.Request) -> httpx.Response:
        try:
            return httpx_answer(
                peer.ask(request.url.raw_path.decode(), request.headers, request.read())
            )
        except Refuse as err:
            raise httpx.ConnectError("refused") from err
        except Lose as err:
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response."
            ) from err
        except Hang as err:
            clock.advance(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("timed out") from err

    transport = httpx.MockTransport(handle)
    with Client(
        ADDRESS, transport=transport, seconds=clock.seconds, sleep=clock.advance, **options
    ) as client:
        try:
            return call(client), clock.seconds()
        except Exception as err:
            return err, clock.seconds()


class JumpingSelector(selectors.DefaultSelector):
    """In place of waiting, its time jumps to when the next timer is due."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "nothing will ever happen again"
            self.now += timeout
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on the time of a `JumpingSelector`."""

    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def asynchronous(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on an `AsyncClient`."""

    async def handle(request: httpx.Request) -> httpx.Response:
        try:
            return httpx_answer(
                peer.ask(request.url.raw_path.decode(), request.headers, request.content)
            )
        except Refuse as err:
            raise httpx.ConnectError("refused") from err
        except Lose as err:
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response."
            ) from err
        except Hang:
            await asyncio.get_running_loop().create_future()
            raise

    async def main() -> CallResult:
        time = asyncio.get_running_loop().time
        async with AsyncClient(ADDRESS, transport=httpx.MockTransport(handle), **options) as client:
            try:
                return await call(client), time()
            except Exception as err:
                return err, time()

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main())


@implementer(IResponse)
class FakeResponse:
    """A response of Twisted's whose body comes at once, or never."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    request = previousResponse = None

    def __init__(self, answer: HttpResponse, body_comes: bool = True) -> None:
        self.code = answer.status
        self.headers = Headers({name: [value] for name, value in answer.headers.items()})
        self.length = len(answer.body)
        self.transport = StringTransport()
        self._body = answer.body if body_comes else None

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(self.transport)
        if self._body is not None:
            protocol.dataReceived(self._body[:5])
            protocol.dataReceived(self._body[5:])
            protocol.connectionLost(Failure(ResponseDone()))


class _Written:
    """Takes what a body producer writes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


@implementer(IAgent)
class PeerAgent:
    """An agent of Twisted's that asks a `Peer`.

    Attributes:
        cancelled: how many requests were cancelled while they hung.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.cancelled = 0

    def request(
        self, method: bytes, uri: bytes, headers: Headers, bodyProducer: Any = None
    ) -> Deferred[Any]:
        written = _Written()
        if bodyProducer is not None:
            bodyProducer.startProducing(written)
            assert len(written.data) == bodyProducer.length
        fields = {
            name.decode().lower(): b", ".join(values).decode()
            for name, values in headers.getAllRawHeaders()
        }
        try:
            return succeed(
                FakeResponse(
                    self._peer.ask(
                        uri.removeprefix(b"http://peer:1").decode(), fields, written.data
                    )
                )
            )
        except Refuse:
            return fail(ConnectionRefusedError())
        except Lose:
            from twisted.web._newclient import ResponseNeverReceived

            return fail(ResponseNeverReceived([Failure(ConnectionLost())]))
        except Hang:
            return Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


def deferred(peer: Peer, call: ClientCall, **options: Any) -> CallResult:
    """Run `call` on a `TwistedClient`."""
    clock = Clock()
    outcomes: list[Any] = []
    client = TwistedClient(clock, ADDRESS, agent=PeerAgent(peer), **options)
    call(client).addErrback(lambda failure: failure.value).addCallback(outcomes.append)
    while not outcomes:
        (due, *_) = sorted(timer.getTime() for timer in clock.getDelayedCalls())
        clock.advance(due - clock.seconds())
    took = clock.seconds()
    assert not clock.getDelayedCalls(), "every timer ends with its call"
    return outcomes[0], took


FORMS = {"blocking": blocking, "asyncio": asynchronous, "Twisted": deferred}
