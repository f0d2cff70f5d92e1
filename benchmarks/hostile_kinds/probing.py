"""Two small requests every 50 ms while others do their worst: an open loop in its own process.

    python benchmarks/hostile_kinds/probing.py HOST PORT

The program asks until its standard input ends, waits for the answers that are outstanding, and
prints their latencies as JSON. A latency counts from the time at which the request was due. A
request that finds no free connection opens one, so that a late answer delays no other request.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# Run as a script: the root of the imports is two levels above this directory.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import orjson

from benchmarks.hostile_kinds.wire import request

INTERVAL_S = 0.05
LONGEST_S = 60.0
"""Seconds after which a request counts as failed, with this latency."""

PROBES = {
    "livez": b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    "small": request("/models/probe/predict", bytes(256), keep=True),
}

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Probe:
    """One request, asked again and again.

    Attributes:
        latencies: seconds from the due time to the answer.
        failures: statuses and errors that were not 200.
    """

    def __init__(self, host: str, port: int, data: bytes) -> None:
        """Ask with `data`."""
        self._address = (host, port)
        self._data = data
        self._free: list[Connection] = []
        self.latencies: list[float] = []
        self.failures: list[str] = []

    async def ask(self, due: float) -> None:
        """Ask once and note how long after `due` the answer came."""
        try:
            status = await asyncio.wait_for(self._ask(), LONGEST_S)
            self.latencies.append(time.monotonic() - due)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as err:
            status = type(err).__name__
            self.latencies.append(LONGEST_S)
        if status != "200":
            self.failures.append(status)

    async def _ask(self) -> str:
        if self._free:
            connection = self._free.pop()
        else:
            connection = await asyncio.open_connection(*self._address)
        reader, writer = connection
        writer.write(self._data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        self._free.append(connection)
        return head[9:12].decode()


async def probe(host: str, port: int) -> dict[str, Any]:
    """Ask until standard input ends, and return what was measured."""
    loop = asyncio.get_running_loop()
    over = loop.run_in_executor(None, sys.stdin.buffer.read)
    probes = {name: Probe(host, port, data) for name, data in PROBES.items()}
    tasks, lags, due = [], [], time.monotonic()
    while not over.done():
        await asyncio.sleep(max(due - time.monotonic(), 0))
        lags.append(time.monotonic() - due)
        tasks += [asyncio.create_task(one.ask(due)) for one in probes.values()]
        due += INTERVAL_S
    await asyncio.gather(*tasks)
    return {
        "lags": lags,
        **{
            name: {"latencies": one.latencies, "failures": one.failures}
            for name, one in probes.items()
        },
    }


def main() -> None:
    """Ask, ahead of all other processes of this machine if that is allowed."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    measured = asyncio.run(probe(sys.argv[1], int(sys.argv[2])))
    sys.stdout.buffer.write(orjson.dumps(measured))


if __name__ == "__main__":
    main()
