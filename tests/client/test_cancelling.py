"""Calls that end early: cancelled, on a closed client, or at the end of their time.

Also a body that comes in drops.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from batcher.client import AsyncClient, Client, ClientClosed, DeadlineExceeded, TwistedClient
from batcher.client.response_reading import HttpResponse
from tests.support.client_forms import (
    ADDRESS,
    JumpingLoop,
    PeerEndpoint,
    PeerSocket,
    PeerTransport,
)
from tests.support.oip_peer import Hang, Peer, doubled, refused

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
        self.endpoint = PeerEndpoint(self.peer)
        self.client = TwistedClient(self.clock, ADDRESS, endpoint=self.endpoint)

    @property
    def aborted(self) -> list[bool]:
        """Whether each connection was ended."""
        return [transport.is_aborted for transport in self.endpoint.transports]


def test_a_cancelled_call_ends_its_connection_and_leaves_no_timer() -> None:
    held = Held(Hang())
    call = held.client.infer("m", {"x": ROW})
    errors = errors_of(call)
    call.cancel()
    assert [type(error) for error in errors] == [CancelledError]
    assert held.aborted == [True]
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


def half_an_answer(held: Held) -> None:
    held.endpoint.transports[0].protocol.dataReceived(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"
    )


def test_a_call_cancelled_within_its_body_closes_the_connection() -> None:
    held = Held(Hang())
    call = held.client.infer("m", {"x": ROW})
    errors = errors_of(call)
    half_an_answer(held)
    assert held.aborted == [False]
    call.cancel()
    assert held.aborted == [True]
    assert [type(error) for error in errors] == [CancelledError]


def test_a_body_that_never_ends_is_left_on_time() -> None:
    held = Held(Hang())
    errors = errors_of(held.client.infer("m", {"x": ROW}, timeout=2))
    half_an_answer(held)
    held.clock.advance(1.9)
    assert not errors
    held.clock.advance(0.2)
    assert [type(error) for error in errors] == [DeadlineExceeded]
    assert held.aborted == [True]


def test_closing_cancels_the_calls_that_are_still_here() -> None:
    held = Held(Hang())
    errors = [errors_of(held.client.infer("m", {"x": ROW})) for _ in range(300)]
    closed: list[None] = []
    held.client.close().addCallback(closed.append)
    assert closed == [None]
    assert [[type(error) for error in found] for found in errors] == [[CancelledError]] * 300
    assert held.aborted == [True] * 100
    assert not held.clock.getDelayedCalls()
    assert [type(error) for error in errors_of(held.client.metadata("m"))] == [ClientClosed]


def in_a_loop(peer: Peer, main: Callable[..., Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Run `main` with an `AsyncClient` to `peer`, and the transports of the client."""
    transports: list[PeerTransport] = []

    async def connect(factory: Callable[[], Any]) -> Any:
        transports.append(PeerTransport(peer, factory()))
        return transports[-1], None

    async def run() -> Any:
        async with AsyncClient(ADDRESS, connect=connect, **options) as client:
            return await main(client, transports)

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run())


def test_a_cancelled_task_ends_its_connection() -> None:
    peer = Peer(Hang())

    async def main(client: AsyncClient, transports: list[PeerTransport]) -> None:
        task = asyncio.create_task(client.infer("m", {"x": ROW}))
        while not peer.seen:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [transport.is_aborted for transport in transports] == [True]

    in_a_loop(peer, main)


def responses() -> dict[int, HttpResponse]:
    """Return all responses that the process holds, by their identity."""
    gc.collect()
    return {id(each): each for each in gc.get_objects() if type(each) is HttpResponse}


def test_an_idle_connection_holds_no_answer() -> None:
    of_others = responses()  # other tests keep some in their parameters

    async def main(client: AsyncClient, transports: list[PeerTransport]) -> None:
        await client.infer("m", {"x": ROW})
        await asyncio.sleep(0)  # the loop holds what woke this task until its next turn
        assert [transport.is_aborted for transport in transports] == [False]
        assert responses().keys() <= of_others.keys()

    in_a_loop(Peer(doubled), main)


def test_a_turn_that_was_granted_to_a_cancelled_task_goes_to_the_next() -> None:
    async def main(client: AsyncClient, transports: list[PeerTransport]) -> Any:
        tasks = [asyncio.create_task(client.infer("m", {"x": ROW})) for _ in range(9)]
        for _ in range(200):
            await asyncio.sleep(0)
            for task in tasks[1::2]:
                task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(transports) == 1
        return found

    found = in_a_loop(Peer(doubled), main, connections=1)
    for result in found[::2]:
        np.testing.assert_array_equal(result.outputs["y"], ROW * 2)
    assert all(isinstance(error, asyncio.CancelledError) for error in found[1::2])


def test_a_closed_client_tells_every_call_that_it_is() -> None:
    async def main(client: AsyncClient, transports: list[PeerTransport]) -> Any:
        calls = asyncio.gather(
            *(client.infer("m", {"x": ROW}) for _ in range(3)), return_exceptions=True
        )
        await asyncio.sleep(0.1)
        await client.close()
        return [*await calls, *await asyncio.gather(client.metadata("m"), return_exceptions=True)]

    found = in_a_loop(Peer(Hang()), main, connections=2)
    assert [type(error) for error in found] == [ClientClosed] * 4
    client = Client(ADDRESS)
    client.close()
    with pytest.raises(ClientClosed, match="expected an open client; got a closed one"):
        client.infer("m", {"x": ROW})


def test_a_client_of_one_loop_refuses_another_with_words() -> None:
    client = AsyncClient("http://127.0.0.1:1", retries=0)
    assert asyncio.run(client.is_ready()) is False
    with pytest.raises(RuntimeError, match="make an AsyncClient in each loop, or use Client"):
        asyncio.run(client.is_ready())


def test_waiting_for_a_turn_ends_with_the_time_of_the_call() -> None:
    async def main(client: AsyncClient, transports: list[PeerTransport]) -> Any:
        patient = asyncio.create_task(client.infer("m", {"x": ROW}, timeout=50))
        await asyncio.sleep(1)
        with pytest.raises(DeadlineExceeded, match=r"within 3 s; got none"):
            await client.infer("m", {"x": ROW}, timeout=3)
        assert asyncio.get_running_loop().time() == pytest.approx(4)
        with pytest.raises(DeadlineExceeded):
            await patient

    in_a_loop(Peer(Hang()), main, connections=1)


def test_a_body_that_trickles_is_left_when_the_time_is_over() -> None:
    clock = Clock()
    pieces: list[int] = []

    class Trickle(PeerSocket):
        def recv(self, most: int) -> bytes:
            clock.advance(1)
            pieces.append(len(pieces))
            return super().recv(most) if len(pieces) < 20 else b"{"

    peer = Peer(HttpResponse(200, {"content-length": "1000"}, b""))
    connect: Any = lambda _: Trickle(peer, clock)  # noqa: E731 - the socket is none
    with (
        Client(ADDRESS, connect=connect, seconds=clock.seconds) as client,
        pytest.raises(DeadlineExceeded),
    ):
        client.infer("m", {"x": ROW}, timeout=5)
    assert len(pieces) == 5
