"""The server as a process of its own, for end-to-end tests.

A test waits for the server's ready line. The process is always ended by its id.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO
from urllib.request import urlopen

from tests.end_to_end.forking import Fork, can_fork, forks
from tests.support.http_answers import Answer, parse_answers

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 60.0
"""Seconds for a start: a loaded machine imports torch in seconds, so more is a failure."""


def _hear_interrupts() -> None:
    """Have SIGINT end the process again; shells make background processes ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """A running server.

    Attributes:
        address: `http://host:port`, once the server is ready.
        lines: the lines on the server's standard output so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        working: Path = ROOT,
    ) -> None:
        self._errors: IO[bytes] = (folder / f"stderr-{time.monotonic_ns()}.txt").open("w+b")
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("BATCHER_")
        }
        self._process: Fork | subprocess.Popen[bytes]
        if can_fork(command, clean | environment):
            self._process = forks().start(
                command, working, clean | environment, self._errors.fileno()
            )
        else:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                cwd=working,
                env=clean | environment,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                stdin=subprocess.DEVNULL,
                preexec_fn=_hear_interrupts,
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._output = b""
        self.address = ""

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def errors(self) -> str:
        """The text on the server's standard error so far."""
        self._errors.flush()
        return Path(self._errors.name).read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        """The lines on the server's standard output so far."""
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read():
            self._output += chunk
        return self._output.decode().splitlines()

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Host and port of the server's socket."""
        host, port = self.address.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    @property
    def grpc_address(self) -> str:
        """`host:port` of the gRPC port, from the ready line."""
        found = re.search(r"grpc://(\S+)", "\n".join(self.lines))
        assert found, self.lines
        return found[1]

    def wait_ready(self, seconds: float = START_LIMIT_S) -> None:
        """Read the server's output until the ready line with the address, within `seconds`."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not (found := re.search(r"ready on (http://\S+)", "\n".join(self.lines))):
                status = self._process.poll()
                assert status is None, f"the server ended with {status}:\n{self.errors}"
                assert time.monotonic() < deadline, f"not ready:\n{self.errors}"
                selector.select(0.2)
        self.address = found[1]

    def connect(self) -> socket.socket:
        """Return a new TCP connection to the server."""
        connection = socket.create_connection(self.host_and_port, timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def listens(self) -> bool:
        """Return whether the server takes new connections."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    def get(self, target: str) -> str:
        """Return the body of a page."""
        with urlopen(self.address + target, timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str) -> float:
        """Return the sum of a metric's values over its labels; 0 if it is absent."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        return sum(map(float, found))

    def resident(self) -> int:
        """Return the bytes of memory that the server holds."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) * 1024

    def signal(self, number: int) -> None:
        """Send a signal to the server."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Return the exit status, which must come within `seconds`."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """End the process, whatever the server is doing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


@contextmanager
def started(
    folder: Path,
    *arguments: str,
    command: Sequence[str] = ("serve.py", "--port", "0"),
    environment: dict[str, str] | None = None,
    ready: bool = True,
    working: Path = ROOT,
) -> Iterator[Process]:
    """Run a server in `working` while the context is open; its errors are kept in `folder`."""
    process = Process([*command, *arguments], folder, environment or {}, working)
    try:
        if ready:
            process.wait_ready()
        yield process
    finally:
        process.end()


def run(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `batcher` with `arguments` to its end."""
    return run_python("-m", "batcher.app.cli", *arguments, environment=environment)


def run_python(
    *arguments: str,
    environment: dict[str, str] | None = None,
    working: Path = ROOT,
    seconds: float = START_LIMIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a script, or `-m` and the name of a module, to its end in the folder `working`.

    The end must come within `seconds`.
    """
    with TemporaryDirectory() as folder:
        process = Process(arguments, Path(folder), environment or {}, working)
        try:
            status = process.wait(seconds)
            printed = "".join(f"{line}\n" for line in process.lines)
            return subprocess.CompletedProcess(arguments, status, printed, process.errors)
        finally:
            process.end()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Call `true` again and again until the result is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def write_model(repository: Path, name: str, source: str, version: str = "1") -> None:
    """Write a model in Python: four floats in `x`, four floats out in `y`.

    `source` defines the class `Model`.
    """
    folder = repository / name / version
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(source)
    (folder / "model.yaml").write_text(
        "format: python\n"
        "class: code:Model\n"
        "inputs: [{name: x, dtype: FP32, shape: [4]}]\n"
        "outputs: [{name: y, dtype: FP32, shape: [4]}]\n"
    )


def receive_all(connection: socket.socket) -> bytes:
    """Return everything that comes until the server ends its sending side."""
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def one_answer(connection: socket.socket) -> Answer:
    """Return the next answer on a connection."""
    data = b""
    while True:
        answers, _ = parse_answers(data, [], over=False)
        if answers:
            return answers[0]
        piece = connection.recv(1 << 16)
        assert piece, f"the connection ended after {data!r}"
        data += piece
