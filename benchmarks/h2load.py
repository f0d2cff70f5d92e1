"""Driving h2load, the closed-loop HTTP/2 load generator, as a gRPC client, and reading what it measured."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.wrk import SETTLE, Measured

HEADERS = ("content-type: application/grpc", "te: trailers")


def require_h2load() -> None:
    """Exit with a message if h2load is not installed."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed; on Debian: apt-get install nghttp2-client")


def framed(message: bytes) -> bytes:
    """Return `message` as gRPC sends it: not compressed, its length before it."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def run_h2load(url: str, message: bytes, calls: int, seconds: int) -> Measured:
    """Call `url` with `message`, `calls` at a time on one connection, once the server before has settled.

    h2load sees the status of HTTP alone, so a call's own status is to be checked apart.
    """
    time.sleep(SETTLE)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(framed(message))
        headers = [part for header in HEADERS for part in ("-H", header)]
        shape = [
            "-c",
            "1",
            "-m",
            str(calls),
            "-t",
            "1",
            "-D",
            str(seconds),
            "-d",
            str(body),
            "--log-file",
            str(log),
        ]
        subprocess.run(["h2load", *shape, *headers, url], capture_output=True, check=True)
        lines = np.loadtxt(log, dtype=np.int64, ndmin=2)  # begin in us, status, us that it took
    return Measured(
        rate=len(lines) / seconds,
        p50=float(np.percentile(lines[:, 2], 50)) / 1e3,
        p99=float(np.percentile(lines[:, 2], 99)) / 1e3,
        errors=int((lines[:, 1] != 200).sum()),
    )
