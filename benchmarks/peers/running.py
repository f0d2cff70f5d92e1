"""A peer in a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.reporting import ROOT

OWN_ARGUMENTS = {
    "mosec": ("--address", "127.0.0.1", "--timeout", "20000", "--port"),
}
"""Arguments before the number of the port; a peer that is not named here takes the number alone."""


@contextmanager
def running_peer(
    server: str, model: str, start_s: float = 30.0, **environment: str
) -> Iterator[int]:
    """Run `server` with `model`, and give its port of 127.0.0.1 once somebody listens there.

    The peer also gets the variables of `environment`. It may take `start_s` seconds to listen.
    """
    port = free_port()
    arguments = [*OWN_ARGUMENTS.get(server, ()), str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.peers.{server}_server", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment, "PEER_MODEL": model},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, start_s)
        yield port
    finally:
        process.send_signal(signal.SIGINT if server == "klein" else signal.SIGTERM)
        process.wait(timeout=30)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int, seconds: float = 30.0) -> None:
    """Wait until somebody listens on `port`, for so many seconds at most."""
    for _ in range(int(seconds / 0.1)):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")
