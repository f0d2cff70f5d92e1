"""Clients that behave, and keep account of every request.

The clients run on a loop in a thread of their own, beside the test. They keep their connections and
send without a pause, or on a schedule.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httptools
import uvloop

from tests.chaos.ledger import Ledger, Load, Sent
from tests.end_to_end.processes import Process

TICK_S = 0.005
"""Seconds between two looks at which requests are due."""

LISTEN_ON_S = 0.2
"""Seconds for which a connection is read after its last answer, since there must be no second
answer.
"""


class Client(asyncio.Protocol):
    """One connection of a load. Thread of the load.

    Attributes:
        load: the load that the connection is a part of.
        ledger: where account is kept.
        pending: requests that are not answered, in their order.
        open: whether the connection can send.
        closed: fires when the connection has ended.
        resting: whether nothing more is to be sent.
    """

    def __init__(self, load: Load, ledger: Ledger, closed: asyncio.Future[None]) -> None:
        self.load = load
        self.pending: deque[Sent] = deque()
        self.open = False
        self.closed = closed
        self.resting = False
        self.ledger = ledger
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._request_id: str | None = None
        # An answer announced the end: the server does not take requests sent behind its request.
        self._end_announced = False
        self._transport: asyncio.Transport

    def send(self) -> None:
        """Send a request."""
        sent = self.ledger.send(self.load)
        self.pending.append(sent)
        self._transport.write(sent.data)

    def close(self, why: str) -> None:
        """End the connection; requests that are pending were never answered."""
        for sent in self.pending:
            if self._end_announced:
                self.ledger.not_taken(sent)
            else:
                self.ledger.never(sent, why)
        self.pending.clear()
        self.open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not say so
        self.open = True
        # At least one request: the server cuts off connections that begin with none.
        for _ in range(self.load.pipelined if self.load.rate is None else 1):
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(f"the connection ended: {exc}")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as err:
            self.ledger.fault(f"what came is not an answer: {err}: {data[:200]!r}")
            self.close("what came is not an answer")

    def on_message_begin(self) -> None:
        self._body = []
        self._request_id = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._request_id = value.decode()

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        if not self.pending:
            self.ledger.fault(f"an answer came to no request: {b''.join(self._body)[:200]!r}")
            return
        sent = self.pending.popleft()
        self.ledger.answered(
            sent, self._parser.get_status_code(), b"".join(self._body), self._request_id
        )
        if not self._parser.should_keep_alive():
            self.open, self._end_announced = False, True
        if self.open and self.load.rate is None and not self.resting:
            self.send()


class Clients:
    """All clients of one load. Thread of the load."""

    def __init__(self, load: Load, ledger: Ledger, address: tuple[str, int], ends: bool) -> None:
        """Send to `address`; `ends` tells whether the server may end meanwhile."""
        self._load = load
        self._ledger = ledger
        self._address = address
        self._ends = ends
        self._clients: list[Client] = []
        self._resting = False
        self._due = time.monotonic()

    async def keep(self) -> None:
        """Keep one connection open, again and again, until the load ends."""
        loop = asyncio.get_running_loop()
        while not self._resting:
            client = Client(self._load, self._ledger, loop.create_future())
            try:
                await loop.create_connection(lambda client=client: client, *self._address)
            except OSError as err:
                if not self._ends:
                    self._ledger.fault(f"no connection could be opened: {err}")
                return
            self._clients.append(client)
            client.resting = self._resting
            await client.closed
            self._clients.remove(client)

    def send_due(self, now: float) -> None:
        """Send requests that are due, over the clients that wait for the fewest answers."""
        free = [client for client in self._clients if client.open and not client.resting]
        if self._load.rate is None or not free:
            self._due = now
            return
        while self._due <= now:
            self._due += 1 / self._load.rate
            min(free, key=lambda client: len(client.pending)).send()

    def rest(self) -> None:
        """Send nothing more."""
        self._resting = True
        for client in self._clients:
            client.resting = True

    @property
    def pending(self) -> bool:
        """Whether answers are due, and may still come."""
        since = time.monotonic() - self._load.wait_s
        return any(client.pending and client.pending[0].at > since for client in self._clients)

    def close(self) -> None:
        """End all connections."""
        for client in list(self._clients):
            client.close("it took too long")


@contextmanager
def under_load(server: Process, *loads: Load, ends: bool = False) -> Iterator[Ledger]:
    """Put `loads` on `server` while the context is open.

    Then wait for all answers and check that none is missing or too many.

    Args:
        server: the server under load.
        loads: what clients send to which models.
        ends: whether the server ends meanwhile, so that connections may be refused.
    """
    ledger = Ledger()
    resting = threading.Event()
    groups = [Clients(load, ledger, server.host_and_port, ends) for load in loads]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(uvloop.run, _run(loads, groups, resting))
        try:
            yield ledger
        finally:
            resting.set()
            running.result()
    ledger.check()


async def _run(loads: Sequence[Load], groups: Sequence[Clients], resting: threading.Event) -> None:
    keepers = [
        asyncio.ensure_future(group.keep())
        for load, group in zip(loads, groups, strict=True)
        for _ in range(load.connections)
    ]
    while not resting.is_set():
        for group in groups:
            group.send_due(time.monotonic())
        await asyncio.sleep(TICK_S)
    for group in groups:
        group.rest()
    while any(group.pending for group in groups):
        await asyncio.sleep(TICK_S)
    await asyncio.sleep(LISTEN_ON_S)
    for group in groups:
        group.close()
    await asyncio.gather(*keepers)
