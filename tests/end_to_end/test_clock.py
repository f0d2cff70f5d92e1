"""The system's clock is set while requests run: deadlines are measured by another clock."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.processes import Process, one_answer, started, until, write_model

WAITER = """
from pathlib import Path
class Model:
    def predict(self, inputs):
        (Path(__file__).parent / "go").read_text()
        return {"y": inputs["x"]}
"""
"""A model that runs until something is written to a FIFO."""
PROGRAM = """
import sys, time
from pathlib import Path
seconds = time.time
time.time = lambda: seconds() + (float(flag.read_text()) if flag.exists() else 0.0)
flag = Path(sys.argv.pop(1))
from batcher.app.cli import main
main()
"""
"""A server whose clock is off by the number of seconds that stands in a file."""

REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    b"X-Timeout-Ms: %d\r\nContent-Length: 16\r\n\r\n" + bytes(16)
)


@contextmanager
def clock_set(
    folder: Path, hours: int, timeout: int
) -> Iterator[tuple[Process, socket.socket, Path]]:
    """Run a request with a `timeout` in ms, and set the server's clock meanwhile.

    Give the server, the connection of the request, and the FIFO for which the model waits.
    """
    write_model(folder / "models", "waiter", WAITER)
    go, flag = folder / "models" / "waiter" / "1" / "go", folder / "flag"
    os.mkfifo(go)
    settings = (
        f"model_repository={folder / 'models'}",
        "defaults.warmup=false",
        "access_log=false",
    )
    arguments = [part for pair in settings for part in ("--set", pair)]
    command = ("-c", PROGRAM, str(flag), "serve", "--port", "0")
    with started(folder, *arguments, command=command) as server, server.connect() as connection:
        connection.sendall(REQUEST % timeout)
        until(lambda: server.metric("batcher_in_flight_rows") == 1)
        (folder / "written").write_text(str(3600 * hours))
        (folder / "written").rename(flag)
        yield server, connection, go


def test_a_deadline_passes_though_the_clock_was_set_back(tmp_path: Path) -> None:
    with clock_set(tmp_path, -1, timeout=1000) as (server, connection, go):
        assert one_answer(connection).status == 504
        assert server.metric("batcher_in_flight_rows") == 1, (
            "what is late is answered while it runs"
        )
        go.write_text("go")


def test_a_deadline_does_not_pass_because_the_clock_was_set_forward(tmp_path: Path) -> None:
    with clock_set(tmp_path, 1, timeout=30_000) as (server, connection, go):
        assert server.metric("batcher_in_flight_rows") == 1, (
            "the loop has had the new time, and goes on waiting"
        )
        go.write_text("go")
        assert one_answer(connection).status == 200
