"""Answers that twisted.web resources produce piece by piece.

As fast as the client reads, in their turn, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from tests.frontends.web.test_klein_channel import Page, mount
from tests.support.http import ROW, MemoryServer, ask
from tests.support.transports import HIGH

Serve = Callable[..., MemoryServer]
PIECE = b"p" * 8192
PIECES = 64


@implementer(IPullProducer)
class Pulled:
    """Writes a piece whenever it is asked to."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.left = PIECES
        self.events: list[str] = []
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        assert "stop" not in self.events
        self.left -= 1
        self.request.write(PIECE)
        if not self.left:
            self.request.unregisterProducer()
            self.request.finish()

    def stopProducing(self) -> None:
        self.events.append("stop")


@implementer(IPushProducer)
class Pushed:
    """Writes a piece each tick of the clock that it is not paused."""

    def __init__(self, request: Any, server: MemoryServer) -> None:
        self.request = request
        self.left = PIECES
        self.paused = False
        self.events: list[str] = []
        self._clock = server.clock
        request.registerProducer(self, True)
        self._clock.callLater(0, self.tick)

    def tick(self) -> None:
        if "stop" in self.events or not self.left:
            return
        if not self.paused:
            self.left -= 1
            self.request.write(PIECE)
            if not self.left:
                self.request.unregisterProducer()
                self.request.finish()
                return
        self._clock.callLater(0.001, self.tick)

    def pauseProducing(self) -> None:
        self.events.append("pause")
        self.paused = True

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self.paused = False

    def stopProducing(self) -> None:
        self.events.append("stop")


def streaming(server: MemoryServer, kind: str) -> tuple[Resource, list[Any]]:
    """Return a page that is produced by pulling or by pushing, and the list of its producers."""
    producers: list[Any] = []

    def render(request: Any) -> int:
        producers.append(Pulled(request) if kind == "pull" else Pushed(request, server))
        return NOT_DONE_YET

    return Page(render), producers


def pass_time(server: MemoryServer) -> None:
    server.wait(0.2, step=0.001)


@pytest.mark.parametrize("producing", ["pull", "push"])
class TestStreaming:
    def test_a_client_that_reads_gets_everything(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, producers = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.send(ask("/stream") + ask("/predict", ROW))
        pass_time(server)
        server.work()
        assert [len(answer.body) for answer in client.answers] == [PIECES * len(PIECE), len(ROW)]
        assert client.unparsed == b""
        assert producers[0].left == 0
        assert not client.closed

    def test_nothing_is_produced_for_a_client_that_does_not_read(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, producers = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.stall()
        client.send(ask("/stream"))
        pass_time(server)
        produced = PIECES - producers[0].left
        assert produced * len(PIECE) <= HIGH + 2 * len(PIECE)
        pass_time(server)
        assert PIECES - producers[0].left == produced
        client.read(100_000)
        pass_time(server)
        assert PIECES - producers[0].left > produced
        client.read()
        pass_time(server)
        assert [len(answer.body) for answer in client.answers] == [PIECES * len(PIECE)]

    def test_nothing_is_produced_before_its_turn(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, producers = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.send(ask("/predict", ROW) + ask("/stream") + ask("/stream"))
        pass_time(server)
        assert [producer.left for producer in producers] == [PIECES, PIECES]
        server.work()
        for _ in range(3):
            pass_time(server)
        assert [producer.left for producer in producers] == [0, 0]
        assert [len(answer.body) for answer in client.answers] == [
            len(ROW),
            PIECES * len(PIECE),
            PIECES * len(PIECE),
        ]

    def test_a_producer_is_stopped_when_its_client_leaves(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, producers = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.stall()
        client.send(ask("/stream") + ask("/stream"))
        pass_time(server)
        client.reset()
        pass_time(server)
        assert {producer.events.count("stop") for producer in producers} == {1}, (
            "each that began, once, as twisted.web does"
        )
        left = [producer.left for producer in producers]
        pass_time(server)
        assert [producer.left for producer in producers] == left

    def test_a_half_closed_client_gets_the_whole_stream(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, _ = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.stall()
        client.send(ask("/stream"))
        client.end()
        pass_time(server)
        for _ in range(100):
            client.read(10_000)
            pass_time(server)
        assert [len(answer.body) for answer in client.answers] == [PIECES * len(PIECE)]
        assert client.received.count(b"HTTP/1.1") == 1
        assert client.closed

    def test_a_stream_is_finished_while_the_server_stops(
        self, serve: Serve, kind: str, producing: str
    ) -> None:
        server = serve()
        page, _ = streaming(server, producing)
        mount(server, page)
        client = server.connect(kind)
        client.stall(1000)
        client.send(ask("/stream"))
        pass_time(server)
        done: list[None] = []
        server.front.drain().addCallback(done.append)
        pass_time(server)
        assert not client.closed
        assert done == []
        client.read()
        for _ in range(5):
            pass_time(server)
        assert [len(answer.body) for answer in client.answers] == [PIECES * len(PIECE)]
        server.wait(1.1, step=0.01)  # the grace, since its head could not say that it is the last
        assert client.closed
        assert done == [None]


def test_a_client_that_ends_its_sending_side_in_the_middle_of_a_stream_gets_it_unharmed(
    serve: Serve, kind: str
) -> None:
    server = serve()
    page, _ = streaming(server, "push")
    mount(server, page)
    client = server.connect(kind)
    client.send(ask("/stream") + ask("/predict", ROW))
    server.wait(0.01, step=0.001)
    assert client.received.startswith(b"HTTP/1.1 200")
    client.end()
    server.work()
    server.wait(1, step=0.001)
    assert [answer.body for answer in client.answers] == [
        PIECE * PIECES,
        (np.frombuffer(ROW, "<f4") * 2).tobytes(),
    ]
    assert client.closed
    assert not client.aborted


def test_a_stream_that_began_before_the_stop_is_followed_by_the_end_of_its_connection(
    serve: Serve, kind: str
) -> None:
    server = serve()
    page, _ = streaming(server, "push")
    mount(server, page)
    client = server.connect(kind)
    client.send(ask("/stream"))
    server.wait(0.01, step=0.001)
    assert client.received.startswith(b"HTTP/1.1 200"), (
        "its head is on its way, without a word of closing"
    )
    server.front.drain()
    server.wait(1.5, step=0.001)
    assert [len(answer.body) for answer in client.answers] == [PIECES * len(PIECE)]
    assert client.closed
