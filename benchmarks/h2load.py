"""Driving h2load, a closed-loop HTTP/2 load generator, as a gRPC client."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.wrk import SETTLE_S, Measured

HEADERS = ("content-type: application/grpc", "te: trailers")


def require_h2load() -> None:
    """Exit with a message if h2load is not installed."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed; on Debian: apt-get install nghttp2-client")


def framed(message: bytes) -> bytes:
    """Return `message` as gRPC sends messages: not compressed, behind 4 bytes of its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def run_h2load(url: str, message: bytes, calls: int, seconds: int) -> Measured:
    """Call `url` with `message`, `calls` at a time on one connection, and return what was measured.

    h2load sees the status of HTTP alone, so a call's own status is to be checked apart.
    """
    time.sleep(SETTLE_S)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(framed(message))
        headers = [part for header in HEADERS for part in ("-H", header)]
        shape = ["-c", "1", "-m", str(calls), "-t", "1", "-D", str(seconds)]
        shape += ["-d", str(body), "--log-file", str(log)]
        subprocess.run(["h2load", *shape, *headers, url], capture_output=True, check=True)
        # a call a line: its begin in us, its status, and the us that it took
        lines = np.loadtxt(log, dtype=np.int64, ndmin=2)
    return Measured(
        rate=len(lines) / seconds,
        p50=float(np.percentile(lines[:, 2], 50)) / 1e3,
        p99=float(np.percentile(lines[:, 2], 99)) / 1e3,
        errors=int((lines[:, 1] != 200).sum()),
    )
