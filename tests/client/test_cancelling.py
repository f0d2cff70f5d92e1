"""Calls that end early: cancelled, on a closed client, or at the end of their time.

Also a body that comes in drops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock

from batcher.client import AsyncClient, Client, DeadlineExceeded, TwistedClient
from batcher.client.response_reading import HttpResponse
from tests.support.client_forms import ADDRESS, FakeResponse, JumpingLoop, PeerAgent
from tests.support.oip_peer import Hang, Peer, refused

ROW = np.ones((1, 4), "<f4")


def errors_of(call: Deferred[Any]) -> list[Any]:
    found: list[Any] = []
    call.addErrback(lambda failure: found.append(failure.value))
    return found


class Held:
    """A Twisted client whose answers never come."""

    def __init__(self, *steps: Any) -> None:
        self.clock = Clock()
        self.peer = Peer(*steps)
        self.agent = PeerAgent(self.peer)
        self.client = TwistedClient(self.clock, ADDRESS, agent=self.agent)


def test_a_cancelled_call_cancels_its_request_and_leaves_no_timer() -> None:
    held = Held(Hang())
    call = held.client.infer("m", {"x": ROW})
    errors = errors_of(call)
    call.cancel()
    assert [type(error) for error in errors] == [CancelledError]
    assert held.agent.cancelled == 1
    assert not held.clock.getDelayedCalls()
    held.clock.advance(1000)
    assert len(held.peer.seen) == 1


def test_a_call_that_is_cancelled_while_it_waits_is_not_repeated() -> None:
    for question in ("infer", "wait_ready"):
        held = Held(refused(503, "2"))
        call = (
            held.client.infer("m", {"x": ROW}) if question == "infer" else held.client.wait_ready()
        )
        errors = errors_of(call)
        held.clock.advance(1)
        call.cancel()
        assert [type(error) for error in errors] == [CancelledError]
        assert not held.clock.getDelayedCalls()
        assert len(held.peer.seen) == 1


def test_patience_ends_with_a_cancel_too() -> None:
    held = Held(Hang())
    call = held.client.wait_ready()
    errors = errors_of(call)
    call.cancel()
    held.clock.advance(1000)
    assert [type(error) for error in errors] == [CancelledError]
    assert len(held.peer.seen) == 1


def test_a_call_cancelled_within_its_body_closes_the_connection() -> None:
    held = Held(Hang())
    response = FakeResponse(HttpResponse(200, {}, b""), body_comes=False)
    held.agent.request = lambda *arguments: succeed(response)  # type: ignore[method-assign]
    call = held.client.infer("m", {"x": ROW})
    errors = errors_of(call)
    assert not response.transport.disconnecting
    call.cancel()
    assert response.transport.disconnecting
    assert [type(error) for error in errors] == [CancelledError]


def test_a_body_that_never_ends_is_left_on_time() -> None:
    held = Held(Hang())
    response = FakeResponse(HttpResponse(200, {}, b""), body_comes=False)
    held.agent.request = lambda *arguments: succeed(response)  # type: ignore[method-assign]
    errors = errors_of(held.client.infer("m", {"x": ROW}, timeout=2))
    held.clock.advance(1.9)
    assert not errors
    held.clock.advance(0.2)
    assert [type(error) for error in errors] == [DeadlineExceeded]
    assert response.transport.disconnecting


def test_closing_cancels_the_calls_that_are_still_here() -> None:
    held = Held(Hang())
    errors = [errors_of(held.client.infer("m", {"x": ROW})) for _ in range(3)]
    closed: list[None] = []
    held.client.close().addCallback(closed.append)
    assert closed == [None]
    assert [[type(error) for error in found] for found in errors] == [[CancelledError]] * 3
    assert held.agent.cancelled == 3


def test_a_cancelled_task_is_cancelled() -> None:
    seen: list[str] = []
    asked = asyncio.Event()

    async def handle(request: httpx.Request) -> httpx.Response:
        seen.append("asked")
        asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            seen.append("left")
        raise AssertionError

    async def main() -> None:
        async with AsyncClient(ADDRESS, transport=httpx.MockTransport(handle)) as client:
            task = asyncio.create_task(client.infer("m", {"x": ROW}))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    assert seen == ["asked", "left"]


def test_a_body_that_trickles_is_left_when_the_time_is_over() -> None:
    clock = Clock()
    pieces: list[int] = []

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for number in range(100):
                clock.advance(1)
                pieces.append(number)
                yield b"{"

    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Trickle()))
    with (
        Client(ADDRESS, transport=transport, seconds=clock.seconds) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.infer("m", {"x": ROW}, timeout=5)
    assert len(pieces) == 5
