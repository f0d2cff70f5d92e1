"""A Redis that can be killed, a proxy that makes it slow, and clients of several kinds."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import ssl
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

    def __init__(self, folder: Path, tls: bool = False) -> None:
        """Use `folder` for its files; skip the test where Redis is not installed.

        With `tls` the certificates in `folder` are its own.
        """
        self._program = found_program("redis-server", "redis-server")
        self._folder, self._tls, self.port = folder, tls, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without anything in it, and wait until it listens."""
        options = {
            "tls-port" if self._tls else "port": str(self.port),
            "bind": "127.0.0.1 127.0.0.2",
            "save": "",
            "requirepass": PASSWORD,
            "dir": str(self._folder),
            "logfile": str(self._folder / "redis.txt"),
        }
        if self._tls:
            options |= {"port": "0", "tls-auth-clients": "no"}
            files = {"cert": "certificate.pem", "key": "key.pem", "ca-cert": "ca.pem"}
            options |= {f"tls-{kind}-file": str(self._folder / at) for kind, at in files.items()}
        values = {name: value.split() or [""] for name, value in options.items()}
        words = [word for name, value in values.items() for word in (f"--{name}", *value)]
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
        with self._connect() as connection:
            for parts in (("AUTH", PASSWORD), ("SELECT", DATABASE), words, ("QUIT",)):
                encoded = [part.encode() if isinstance(part, str) else part for part in parts]
                pieces = [b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]
                connection.sendall(b"*%d\r\n" % len(pieces) + b"".join(pieces))
            reply = b""
            while piece := connection.recv(1 << 16):
                reply += piece
            return reply.removeprefix(2 * b"+OK\r\n").removesuffix(b"+OK\r\n")

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        if not self._tls:
            return connection
        context = ssl.create_default_context(cafile=str(self._folder / "ca.pem"))
        return context.wrap_socket(connection, server_hostname="localhost")

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
            head = _HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            writer.write(head + struct.pack("<4f", *[number] * 4))
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


class Watching:
    """Clients that ask a model, which is replaced meanwhile, on connections that stay.

    The model answers 1000 times the number that it is asked for, and its generation besides.

    Attributes:
        serving: the generation that serves surely.
        loading: the newest generation that may serve.
        counts: answers by `X-Cache`.
        wrong: number that was asked for, oldest generation that might answer, answer.
    """

    def __init__(self, port: int, numbers: int) -> None:
        """Ask for numbers below `numbers`."""
        self._port, self._numbers = port, numbers
        self.serving = self.loading = 0
        self.counts: Counter[bytes] = Counter()
        self.wrong: list[tuple[int, int, object]] = []

    async def ask(self, requests: Iterator[int], clients: int) -> None:
        """Send as many requests as there are in `requests`."""
        await asyncio.gather(*(self._client(requests) for _ in range(clients)))

    async def load(self) -> None:
        """Have the server load the model anew; returns once the new one serves."""
        head = "POST /v2/repository/models/doubles/load HTTP/1.1\r\nHost: localhost\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(f"{head}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        answer = await asyncio.wait_for(reader.read(), ANSWER_LIMIT_S)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        writer.close()

    async def _client(self, requests: Iterator[int]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for request in requests:
            number, serving = request % self._numbers, self.serving
            writer.write(_HEAD + struct.pack("<4f", *[float(number)] * 4))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_LIMIT_S)
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            body = await reader.readexactly(size)
            self.counts[head.lower().partition(b"x-cache: ")[2].partition(b"\r")[0]] += 1
            if head.startswith(b"HTTP/1.1 200"):
                generation = struct.unpack("<4f", body)[0] - 1000 * number
                if not serving <= generation <= self.loading:
                    self.wrong.append((number, serving, struct.unpack("<4f", body)))
            else:
                self.wrong.append((number, serving, body))
        writer.close()


_HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Length: 16\r\nX-Timing: 1\r\n\r\n"
)

STOP, GO_ON = signal.SIGSTOP, signal.SIGCONT
