"""A Redis that can be killed, a proxy that makes it slow, and clients that leave early."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path

from tests.end_to_end.processes import until
from tests.integration.balancers import found_program, free_port

PASSWORD, DATABASE = "sesame-open", "2"
ANSWER_LIMIT_S = 30.0


class Redis:
    """A `redis-server` on a port of its own.

    Attributes:
        port: that it listens on, also after a restart.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder` for its files; skip the test where Redis is not installed."""
        self._program = found_program("redis-server", "redis-server")
        self._folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without anything in it, and wait until it listens."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "requirepass": PASSWORD,
            "dir": str(self._folder),
            "logfile": str(self._folder / "redis.txt"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([self._program, *words])
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                self.command("PING")
                return
            assert time.monotonic() < deadline, "Redis does not listen"
            time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def command(self, *words: str | bytes) -> bytes:
        """Return the whole reply to a command; OSError if there is none within some seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            for parts in (("AUTH", PASSWORD), ("SELECT", DATABASE), words, ("QUIT",)):
                encoded = [part.encode() if isinstance(part, str) else part for part in parts]
                pieces = [b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]
                connection.sendall(b"*%d\r\n" % len(pieces) + b"".join(pieces))
            reply = b""
            while piece := connection.recv(1 << 16):
                reply += piece
            return reply.removeprefix(2 * b"+OK\r\n").removesuffix(b"+OK\r\n")

    def keys(self) -> list[bytes]:
        """Return every key."""
        return [line for line in self.command("KEYS", "*").split(b"\r\n") if line[:1] == b"b"]


@contextmanager
def slow_proxy(behind: int, most_s: float) -> Iterator[int]:
    """Yield a port that leads to the port `behind`; what comes back is up to `most_s` s late.

    The proxy is a process of its own: beside busy clients it would be slower than it is to be.
    """
    port = free_port()
    process = get_context("spawn").Process(target=_run_proxy, args=(port, behind, most_s))
    process.start()
    try:
        until(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.join()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _run_proxy(port: int, behind: int, most_s: float) -> None:
    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most_s: float
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                await asyncio.sleep(most_s * random.random())
                writer.write(piece)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            back, there = await asyncio.open_connection("127.0.0.1", behind)
            await asyncio.gather(pass_on(reader, there, 0), pass_on(back, writer, most_s))

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
            await server.serve_forever()

    asyncio.run(run())


class Asking:
    """Clients that ask for twice a number, on connections of their own.

    Attributes:
        counts: answers by `X-Cache`, and `left` for those whose client did not wait.
        wrong: every answer that was not the right one.
    """

    def __init__(self, port: int, numbers: int, leave: float = 0.0) -> None:
        """Ask for numbers below `numbers`; this share of clients leaves within 4 ms."""
        self._port, self._numbers, self._leave = port, numbers, leave
        self.counts: Counter[str] = Counter()
        self.wrong: list[bytes] = []
        self._random = random.Random(7)

    def ask(self, requests: int, clients: int = 32) -> None:
        """Send so many requests, and wait for what becomes of them."""

        async def run() -> None:
            left = iter(range(requests))
            await asyncio.gather(*(self._client(left) for _ in range(clients)))

        asyncio.run(run())

    async def _client(self, left: Iterator[int]) -> None:
        for _ in left:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            number = float(self._random.randrange(self._numbers))
            head = (
                "POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
                "Content-Length: 16\r\nConnection: close\r\nX-Timing: 1\r\n\r\n"
            )
            writer.write(head.encode() + struct.pack("<4f", *[number] * 4))
            if self._random.random() < self._leave:
                await asyncio.sleep(0.004 * self._random.random())
                writer.transport.abort()
                self.counts["left"] += 1
            else:
                answer = await asyncio.wait_for(reader.read(), ANSWER_LIMIT_S)
                self._note(answer, struct.pack("<4f", *[2 * number] * 4))
                writer.close()

    def _note(self, answer: bytes, expected: bytes) -> None:
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or body != expected:
            self.wrong.append(answer)
            return
        found = head.lower().partition(b"x-cache:")[2].partition(b"\r\n")[0]
        self.counts[found.strip().decode()] += 1


STOP, GO_ON = signal.SIGSTOP, signal.SIGCONT
