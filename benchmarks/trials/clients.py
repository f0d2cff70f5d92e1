"""Clients that note, for every request, when it was sent and answered, and by which version.

Each client has one connection and one request under way, and sends the next one `pause_s` after
an answer. The clients run on a loop in a thread of their own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httptools
import numpy as np
import uvloop

END_S = 30.0
"""Seconds that the last answers may take."""


class Answered(NamedTuple):
    """One request and its answer.

    Attributes:
        sent: when the request was sent, by `time.monotonic`.
        at: when the answer had come.
        key: value of `X-Route-Key`; empty without.
        status: HTTP status; 0 where the connection ended before the answer.
        number: number of the version, as the answer's numbers say; -1 if the answer is wrong.
        told: value of `X-Model-Version`; empty without.
    """

    sent: float
    at: float
    key: str
    status: int
    number: int
    told: str


class Client(asyncio.Protocol):
    """One connection of a `Load`. The load's thread."""

    def __init__(self, load: Load) -> None:
        """Speak for `load`."""
        self.is_waiting = False
        self._load = load
        self._parser = httptools.HttpResponseParser(self)
        self._value = 0.0
        self._sent = 0.0
        self._key = ""
        self._told = ""
        self._body = b""
        self._transport: asyncio.Transport

    def send(self) -> None:
        """Send the next request, unless the load has ended."""
        key = self._load.next_key()
        if key is None:
            self._transport.close()
            return
        self._key, self._value = key, self._load.next_value()
        self.is_waiting = True
        self._sent = time.monotonic()
        self._transport.write(self._load.request(key, self._value))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not say so
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note a request that is not answered; the load opens another connection."""
        if self.is_waiting:
            self.is_waiting = False
            self._note(0, -1)
        self._load.ended(self)

    def data_received(self, data: bytes) -> None:
        """Parse some bytes of an answer."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin an answer."""
        self._told, self._body = "", b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take what the answer says of its version."""
        if name.lower() == b"x-model-version":
            self._told = value.decode()

    def on_body(self, piece: bytes) -> None:
        """Take a part of the answer."""
        self._body += piece

    def on_message_complete(self) -> None:
        """Note the answer, and send the next request after the pause."""
        self.is_waiting = False
        status = self._parser.get_status_code()
        self._note(status, self._number() if status == 200 else -1)
        if not self._parser.should_keep_alive():
            self._transport.close()
        elif self._load.pause_s:
            asyncio.get_running_loop().call_later(self._load.pause_s, self.send)
        else:
            self.send()

    def _number(self) -> int:
        """Return the number of the version that answered; -1 if it answered another request."""
        numbers = np.frombuffer(self._body, "<f4")
        is_ours = numbers.shape == (4,) and numbers[0] == np.float32(self._value)
        return int(numbers[1]) if is_ours else -1

    def _note(self, status: int, number: int) -> None:
        now = time.monotonic()
        self._load.noted(Answered(self._sent, now, self._key, status, number, self._told))


class Load:
    """Requests for one model.

    Attributes:
        answered: every request, in the order of the answers.
        pause_s: seconds from an answer to the next request of the same client.
    """

    def __init__(
        self,
        address: str,
        model: str,
        clients: int,
        pause_s: float = 0.0,
        keys: Callable[[], str | None] = lambda: "",
    ) -> None:
        """Send to `model` of the server at `address`; `keys` returns a key, None at the end."""
        self.answered: list[Answered] = []
        self.pause_s = pause_s
        self._host, _, self._port = address.removeprefix("http://").partition(":")
        self._path = f"/models/{model}/predict"
        self._count = clients
        self._keys = keys
        self._value = 0
        self._open: set[Client] = set()
        self._is_resting = False
        self._all_ended: asyncio.Event

    def request(self, key: str, value: float) -> bytes:
        """Return a request of one row that begins with `value`."""
        route = f"X-Route-Key: {key}\r\n" if key else ""
        head = f"POST {self._path} HTTP/1.1\r\nHost: h\r\n{route}Content-Length: 16\r\n"
        row = np.full(4, value, "<f4").tobytes()
        return head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + row

    def next_key(self) -> str | None:
        """Return the key of the next request; None if there is none."""
        return None if self._is_resting else self._keys()

    def next_value(self) -> float:
        """Return a number that no request under way has; never 0."""
        self._value = self._value % 1_000_000 + 1
        return float(self._value)

    def noted(self, answered: Answered) -> None:
        """Keep one request."""
        self.answered.append(answered)

    def ended(self, client: Client) -> None:
        """Forget a connection that has ended, and open another if more is to be sent."""
        self._open.discard(client)
        key_is_left = not self._is_resting and self.answered and self.answered[-1].status == 0
        if key_is_left:
            self._again = asyncio.ensure_future(self._connect())
        elif not self._open:
            self._all_ended.set()

    def rest(self) -> None:
        """Send nothing more. The load's thread."""
        self._is_resting = True
        if not self._open:
            self._all_ended.set()

    async def run(self) -> None:
        """Send until `rest` or the last key, and wait for the last answers."""
        self._all_ended = asyncio.Event()
        for _ in range(self._count):
            await self._connect()
        await self._all_ended.wait()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        client = Client(self)
        self._open.add(client)
        await loop.create_connection(lambda: client, self._host, int(self._port))


def run_loads(*loads: Load) -> None:
    """Run `loads`, each of which ends by its keys, one beside the other."""

    async def run() -> None:
        await asyncio.gather(*(load.run() for load in loads))

    uvloop.run(run())


@contextmanager
def under_load(*loads: Load) -> Iterator[None]:
    """Run `loads` in a thread while the context is open."""
    loop = uvloop.new_event_loop()

    async def run() -> None:
        await asyncio.gather(*(load.run() for load in loads))

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        for load in loads:
            loop.call_soon_threadsafe(load.rest)
        thread.join(END_S)
        if thread.is_alive():
            raise RuntimeError(f"the last answers have not come within {END_S:g} s")
        loop.close()
