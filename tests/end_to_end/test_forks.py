"""A model that forks: the copy holds no port, no connection and nothing else of the server."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.processes import one_answer, receive_all, started, until, write_model
from tests.end_to_end.test_listening import ROW, predict

FORKS = """
import os, time
class Model:
    def predict(self, inputs):
        pid = os.fork()
        if not pid:
            try:
                with open({place!r} + "-", "w") as file:
                    file.write(str(os.getpid()))
                os.rename({place!r} + "-", {place!r})
                time.sleep(60)
            finally:
                os._exit(0)
        return {{"y": inputs["x"] * 2}}
"""


def sockets_of(pid: int) -> set[str]:
    """Return the sockets and the epoll instances that a process holds."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(entry)
            if re.match(r"socket:|anon_inode:\[eventpoll\]", target):
                found.add(target)
    return found


@pytest.mark.parametrize("where", ["port", "unix socket"])
def test_a_copy_holds_neither_listener_nor_connections(tmp_path: Path, where: str) -> None:
    place = tmp_path / "pid"
    write_model(tmp_path / "models", "forks", FORKS.format(place=str(place)))
    pytest.importorskip("grpc")
    (tmp_path / "config.yaml").write_text(
        "drain_timeout_s: 2\ndefaults: {warmup: false}\n"
        + ("unix_socket: socket\n" if where == "unix socket" else "grpc_port: 0\n")
    )
    arguments = ("serve.py", "-c", str(tmp_path / "config.yaml"))
    command = arguments if where == "unix socket" else (*arguments, "--port", "0")
    with started(tmp_path, command=command, ready=where == "port") as server:

        def connect() -> socket.socket:
            if where == "port":
                return server.connect()
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(tmp_path / "socket"))
            return connection

        until(lambda: any("ready on" in line for line in server.lines), 60)
        connection, other = connect(), connect()
        other.sendall(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        assert one_answer(other).status == 200
        connection.sendall(predict(ROW, "Connection: close", model="forks"))
        assert receive_all(connection).startswith(b"HTTP/1.1 200"), "the copy holds no end of it"
        until(place.exists)
        copy = int(place.read_text())
        try:
            mine = sockets_of(server.pid)
            assert mine
            shared = mine & sockets_of(copy)
            named = {row for row in shared if row.startswith("socket:")}
            bound = Path("/proc/net/tcp").read_text() + Path("/proc/net/unix").read_text()
            assert not {row for row in named if f" {row[8:-1]} " in bound and where == "port"}
            server.signal(signal.SIGTERM)
            assert server.wait(20) == 0
            assert receive_all(other) == b""
            with pytest.raises(OSError, match=r"refused|No such file"):
                connect()
        finally:
            os.kill(copy, signal.SIGKILL)
            connection.close()
            other.close()
