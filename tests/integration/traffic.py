"""Clients of a balancer: new connections on a schedule, and kept ones that ask again and again."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

NEW_PER_S = 200
KEPT = 32
KEPT_INTERVAL_S = 0.1
"""Seconds between two requests on a kept connection."""

ANSWER_LIMIT_S = 20.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Timed(NamedTuple):
    """One request that was answered.

    Attributes:
        due: when the request was to be sent, in seconds on the monotonic clock.
        sent: when the client turned to it.
        at: when the answer was there.
    """

    due: float
    sent: float
    at: float


class Traffic:
    """The clients, on a loop in a thread of their own.

    Each request has a row of its own, and its answer must be twice that row.

    Attributes:
        sent: how many requests were answered rightly, on `new` and on `kept` connections.
        failures: what went wrong, on `new` and on `kept` connections.
        timed: the requests on `new` connections that were answered, rightly or not.
    """

    def __init__(self, port: int) -> None:
        """Send to `port` of this machine, once `sending` is entered."""
        self._port = port
        self._numbers = count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.sent = {"new": 0, "kept": 0}
        self.failures: dict[str, list[str]] = {"new": [], "kept": []}
        self.timed: list[Timed] = []

    @contextmanager
    def sending(self) -> Iterator[Traffic]:
        """Send while the context is open, and wait for every answer at its end."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()

    async def _run(self) -> None:
        kept = [asyncio.create_task(self._keep(place)) for place in range(KEPT)]
        loop, new = asyncio.get_running_loop(), []
        due = loop.time()
        while not self._over.is_set():
            await asyncio.sleep(due - loop.time())
            new.append(asyncio.create_task(self._once(due)))
            due += 1 / NEW_PER_S
        await asyncio.gather(*kept, *new)

    async def _once(self, due: float) -> None:
        """Ask once, at `due`, on a connection of its own."""
        now = asyncio.get_running_loop().time
        sent = now()
        try:
            streams = await asyncio.open_connection("127.0.0.1", self._port)
            await self._ask("new", streams, "close")
            self.timed.append(Timed(due, sent, now()))
            streams[1].close()
        except (OSError, asyncio.IncompleteReadError) as err:
            self.failures["new"].append(repr(err))

    async def _keep(self, place: int) -> None:
        """Ask again and again on one connection; open another where an answer ends it."""
        await asyncio.sleep(place / KEPT * KEPT_INTERVAL_S)
        streams: Streams | None = None
        while not self._over.is_set():
            try:
                streams = streams or await asyncio.open_connection("127.0.0.1", self._port)
                if not await self._ask("kept", streams, "keep-alive"):
                    streams[1].close()
                    streams = None
            except (OSError, asyncio.IncompleteReadError) as err:
                self.failures["kept"].append(repr(err))
                streams = None
            await asyncio.sleep(KEPT_INTERVAL_S)
        if streams is not None:
            streams[1].close()

    async def _ask(self, kind: str, streams: Streams, connection: str) -> bool:
        """Ask once, note what came, and return whether the connection may be used again."""
        reader, writer = streams
        row = [float(next(self._numbers) % (1 << 20))] * 4
        head = (
            "POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
            f"Content-Length: 16\r\nConnection: {connection}\r\n\r\n"
        )
        writer.write(head.encode() + struct.pack("<4f", *row))
        answer = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_LIMIT_S)).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if answer.startswith(b"http/1.1 200") and body == struct.pack("<4f", *(2 * x for x in row)):
            self.sent[kind] += 1
        else:
            self.failures[kind].append(repr((answer, body[:200])))
        return b"connection: close" not in answer
