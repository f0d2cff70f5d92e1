"""nginx and HAProxy as processes of their own, each with a configuration for one test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.end_to_end.processes import until

# Debian puts servers where only root looks for programs.
PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

CHECK_INTERVAL_S = 0.5
"""Seconds between two of HAProxy's checks; the second that fails takes a server out."""

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


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


@contextmanager
def nginx(
    folder: Path, ports: Sequence[int], locations: str = "", repeated: str = "error timeout"
) -> Iterator[Balancer]:
    """Run nginx before the servers on `ports`, with kept connections to them.

    nginx asks no server for its health. It turns to the next one where a connection is refused, and
    tries the first again a second later (by itself after ten, in which the next one may go too).

    Args:
        folder: for its files.
        ports: of the servers.
        locations: `location` blocks; without, everything goes to the servers.
        repeated: what nginx asks the next server after; by itself it repeats no POST that was sent.
    """
    program, port = _program("nginx", "nginx-light"), free_port()
    servers = " ".join(f"server 127.0.0.1:{one} fail_timeout=1s;" for one in ports)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{name}_temp_path {folder / name};" for name in names)
    configuration = f"""
        daemon off; master_process off; worker_processes 1; pid {folder / "nginx.pid"};
        events {{ worker_connections 4096; }}
        http {{
            access_log off; {paths}
            upstream servers {{ {servers} keepalive 64; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                proxy_http_version 1.1;
                proxy_next_upstream {repeated};
                proxy_set_header Connection "";
                proxy_set_header Host $http_host;
                {locations or "location / { proxy_pass http://servers; }"}
            }}
        }}
    """
    file = folder / "nginx.conf"
    file.write_text(configuration)
    command = [program, "-p", str(folder), "-e", str(folder / "errors.txt"), "-c", str(file)]
    with _running(command, folder, port) as balancer:
        yield balancer


@contextmanager
def haproxy(
    folder: Path, ports: Sequence[int], check: str = "GET /readyz", frontend: str = ""
) -> Iterator[Balancer]:
    """Run HAProxy before the servers on `ports`.

    Args:
        folder: for its files.
        ports: of the servers.
        check: the request of its checks; its own, `OPTIONS / HTTP/1.0`, if empty.
        frontend: further lines of the front end.
    """
    program, port = _program("haproxy", "haproxy"), free_port()
    interval = f"inter {round(CHECK_INTERVAL_S * 1000)} fall 2 rise 1"
    servers = "\n".join(f"  server s{one} 127.0.0.1:{one} check {interval}" for one in ports)
    (folder / "haproxy.cfg").write_text(
        f"""
global
  stats socket {folder / "stats.sock"}
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option redispatch
frontend front
  bind 127.0.0.1:{port} backlog 4096
  {frontend}
  default_backend servers
backend servers
  balance roundrobin
  option httpchk {check}
{servers}
"""
    )
    command = [program, "-db", "-f", str(folder / "haproxy.cfg")]
    with _running(command, folder, port) as balancer:
        yield balancer


def checked_states(balancer: Balancer) -> dict[str, tuple[str, str]]:
    """Return what HAProxy thinks of each server: name to state and result of the last check."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(balancer.folder / "stats.sock"))
        connection.sendall(b"show stat\n")
        text = b""
        while piece := connection.recv(1 << 16):
            text += piece
    head, *lines = [line.split(",") for line in text.decode().strip("# \n").splitlines()]
    rows = [dict(zip(head, line, strict=False)) for line in lines]
    return {
        # a star stands before the last result while the next check is under way
        row["svname"]: (row["status"], row["check_status"].removeprefix("* "))
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
