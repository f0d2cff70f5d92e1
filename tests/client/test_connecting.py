"""Which address of a host is connected to, and a client that is closed meanwhile."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import numpy as np
import pytest
from twisted.internet.task import Clock

from batcher.client import AsyncClient, Client, ClientClosed, NotConnected, shared_sockets
from tests.support.client_forms import JumpingLoop, PeerSocket
from tests.support.oip_peer import Peer, doubled

ROW = np.ones((1, 4), "<f4")
SILENT, REFUSING, THERE = ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)


class AddressedSocket(PeerSocket):
    """A socket to be connected, to an address that answers or does not.

    Attributes:
        waits: address to the seconds that it was given.
        open: the sockets that are not closed.
    """

    clock = Clock()
    waits: dict[tuple[str, int], float | None]
    open: list[AddressedSocket]

    def __init__(self, *_: Any) -> None:
        super().__init__(Peer(doubled), self.clock)
        self.open.append(self)

    def connect(self, where: tuple[str, int]) -> None:
        self.waits[where] = self._timeout
        if where == SILENT:
            assert self._timeout is not None
            self.clock.advance(self._timeout)
            raise TimeoutError("timed out")
        if where == REFUSING:
            raise ConnectionRefusedError("refused")

    def setsockopt(self, *_: int) -> None:
        pass

    def close(self) -> None:
        if not self.is_closed:
            self.open.remove(self)
        super().close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    AddressedSocket.clock, AddressedSocket.waits, AddressedSocket.open = Clock(), {}, []
    monkeypatch.setattr(shared_sockets, "socket", AddressedSocket)
    monkeypatch.setattr(shared_sockets, "monotonic", AddressedSocket.clock.seconds)
    return AddressedSocket.clock


def client_of(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int], **options: Any
) -> Client:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in addresses]
    monkeypatch.setattr(shared_sockets, "getaddrinfo", lambda *_, **__: found)
    return Client("http://several:1", seconds=clock.seconds, sleep=clock.advance, **options)


def test_each_address_of_a_host_gets_its_share_of_the_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(clock, monkeypatch, SILENT, REFUSING, SILENT, THERE) as client:
        assert client.infer("m", {"x": ROW}, timeout=4).model == "m"
        assert AddressedSocket.waits == {SILENT: 1.5, REFUSING: 1.0, THERE: 1.5}
        assert len(AddressedSocket.open) == 1
    assert AddressedSocket.open == []


def test_no_address_takes_longer_than_the_call_has_and_the_first_error_is_told(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        client_of(clock, monkeypatch, REFUSING, SILENT, SILENT, retries=0) as client,
        pytest.raises(NotConnected, match="refused"),
    ):
        client.infer("m", {"x": ROW}, timeout=60)
    assert clock.seconds() == pytest.approx(5)
    assert AddressedSocket.open == []


def test_an_address_that_is_silent_does_not_keep_asyncio_from_the_next() -> None:
    tried: list[tuple[tuple[str, int], float]] = []

    class Loop(JumpingLoop):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
            return [(*kind, SILENT), (*kind, REFUSING)]

        async def sock_connect(self, _: Any, where: Any) -> None:
            tried.append((where, self.time()))
            if where == SILENT:
                await self.create_future()
            raise ConnectionRefusedError("refused")

    async def main() -> None:
        async with AsyncClient("http://several:1", retries=0) as client:
            with pytest.raises(NotConnected):
                await client.infer("m", {"x": ROW})
        assert asyncio.get_running_loop().time() == pytest.approx(5)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
    assert tried == [(SILENT, 0.0), (REFUSING, 0.25)]


def test_a_connection_made_while_the_client_was_closed_carries_nothing() -> None:
    clock, peer = Clock(), Peer(doubled)
    made: list[PeerSocket] = []

    def connect(_: float) -> Any:
        client.close()
        made.append(PeerSocket(peer, clock))
        return made[0]

    client = Client("http://peer:1", connect=connect, seconds=clock.seconds)
    with pytest.raises(ClientClosed):
        client.infer("m", {"x": ROW})
    assert made[0].is_closed
    assert peer.seen == []
