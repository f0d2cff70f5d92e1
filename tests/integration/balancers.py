"""nginx and HAProxy as processes of their own, with the files that `deploy/` offers.

A test changes in a file what belongs to its machine alone: addresses, and how often HAProxy polls.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.processes import ROOT, until

DEPLOY = ROOT / "deploy"

# Debian puts servers where only root looks for programs.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CHECK_INTERVAL_S = 0.5
"""Seconds between two of HAProxy's checks; the second that fails takes a server out."""

AGENT_WITHIN_S = 1.0
"""Seconds after which HAProxy surely knows what a server says of itself: two of the checks for
that, which come each quarter of a second, and as long again for a busy machine.
"""

LEARNS_WITHIN_S = 2.0
"""Seconds after which HAProxy surely sends nothing more to a server that is not ready: two checks
that fail, the one that has just been made before, and as long again for a busy machine.
"""


class Balancer(NamedTuple):
    """A balancer that runs.

    Attributes:
        port: that clients connect to.
        folder: where its files are.
    """

    port: int
    folder: Path

    def connect(self) -> socket.socket:
        """Return a new connection to the balancer."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


NO_CHANGES: Mapping[str, str] = {}
NO_AGENTS: Mapping[int, int] = {}

NOBODY = 1
"""A port on which no program listens."""

SERVER = "  server {name} 127.0.0.1:{port} weight 100 agent-check agent-port {agent}\n"
"""The line of a server in HAProxy's file."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def found_program(name: str, package: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


@contextmanager
def nginx(
    folder: Path,
    ports: Sequence[int],
    locations: str = "",
    changes: Mapping[str, str] = NO_CHANGES,
) -> Iterator[Balancer]:
    """Run nginx with the file of `deploy/nginx/` before the servers on `ports`.

    Args:
        folder: for its files.
        ports: of the servers.
        locations: further `location` blocks.
        changes: from a text of the file to what stands in its place.
    """
    program, port = found_program("nginx", "nginx-light"), free_port()
    server = "server 127.0.0.1:{} max_fails=0;"
    site = _replaced(
        (DEPLOY / "nginx" / "batcher.conf").read_text(),
        {
            server.format(8080): " ".join(server.format(one) for one in ports),
            "listen 80;": f"listen 127.0.0.1:{port} backlog=4096; {locations}",
            **changes,
        },
    )
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{name}_temp_path {folder / name};" for name in names)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; worker_processes 1; pid {folder / 'nginx.pid'};\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; {paths}\n{site}}}\n"
    )
    command = [program, "-p", str(folder), "-e", str(folder / "errors.txt"), "-c", str(file)]
    with _running(command, folder, port) as balancer:
        yield balancer


@contextmanager
def haproxy(
    folder: Path,
    ports: Sequence[int],
    check: str = "GET /readyz",
    agents: Mapping[int, int] = NO_AGENTS,
    changes: Mapping[str, str] = NO_CHANGES,
) -> Iterator[Balancer]:
    """Run HAProxy with the file of `deploy/haproxy/` before the servers on `ports`.

    Args:
        folder: for its files.
        ports: of the servers.
        check: the request of its checks; its own, `OPTIONS / HTTP/1.0`, if empty.
        agents: from the port of a server to that on which it tells its weight, if it does.
        changes: from a text of the file to what stands in its place.
    """
    program, port = found_program("haproxy", "haproxy"), free_port()
    (folder / "haproxy.cfg").write_text(
        _replaced(
            (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
            {
                "\nglobal\n": f"\nglobal\n  stats socket {folder / 'stats.sock'}\n",
                "bind :80": f"bind 127.0.0.1:{port} backlog 4096",
                "httpchk GET /readyz": f"httpchk {check}",
                "inter 2s": f"inter {round(CHECK_INTERVAL_S * 1000)}",
                SERVER.format(name="batcher1", port=8080, agent=8083): "".join(
                    SERVER.format(name=f"s{one}", port=one, agent=agents.get(one, NOBODY))
                    for one in ports
                ),
                **changes,
            },
        )
    )
    command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
    with _running(command, folder, port) as balancer:
        yield balancer


def _replaced(text: str, changes: Mapping[str, str]) -> str:
    """Return `text` with each key of `changes`, which stands in it once, replaced."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the recipe"
        text = text.replace(old, new)
    return text


def checked_states(balancer: Balancer) -> dict[str, tuple[str, str]]:
    """Return what HAProxy thinks of each server: name to state and result of the last check."""
    return {
        # a star stands before the last result while the next check is under way
        name: (row["status"], row["check_status"].removeprefix("* "))
        for name, row in _rows(balancer).items()
    }


def weight_of(balancer: Balancer, port: int) -> int:
    """Return the weight that HAProxy gives the server on `port`."""
    return int(_rows(balancer)[f"s{port}"]["weight"])


def _rows(balancer: Balancer) -> dict[str, dict[str, str]]:
    """Return HAProxy's figures of each server, by the name of the server."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(balancer.folder / "stats.sock"))
        connection.sendall(b"show stat\n")
        text = b""
        while piece := connection.recv(1 << 16):
            text += piece
    head, *lines = [line.split(",") for line in text.decode().strip("# \n").splitlines()]
    rows = [dict(zip(head, line, strict=False)) for line in lines]
    return {
        row["svname"]: row
        for row in rows
        if row.get("pxname") == "servers" and row["svname"] != "BACKEND"
    }


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int) -> Iterator[Balancer]:
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until(_listens(process, port, folder))
            yield Balancer(port, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _listens(process: subprocess.Popen[bytes], port: int, folder: Path) -> Callable[[], bool]:
    def listens() -> bool:
        assert process.poll() is None, (folder / "output.txt").read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionError:
            return False
        return True

    return listens
