"""Mutated requests by the million, over HTTP, gRPC and TLS, with right ones among them.

    python benchmarks/fuzz.py --requests 1000000

What must hold:

- No answer says that the server failed: a 500 (gRPC: INTERNAL, UNKNOWN) is always wrong. A 501,
  503, 504 or 505 is right with its reason.
- Every right request is answered with its own result, and every answer can be read.
- No turn of the server's loop takes above MAX_TURN_S. `fuzzing/watched_server.py` measures that.
- Memory is flat: the last quarter of the run holds at most MAX_GROWTH_BYTES more than the second.
  (In the first one caches and allocators fill.)

All follows from `--seed`. A session that failed is named, and `--session NAME` runs it alone.
Exit status: 0, or 1 if something did not hold.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import orjson

from benchmarks.fuzzing.certificate import certify
from benchmarks.fuzzing.corpus import MODELS
from benchmarks.fuzzing.grpc_sessions import run_frames, run_grpc
from benchmarks.fuzzing.http_sessions import make_session, run_session
from benchmarks.fuzzing.tls_sessions import run_tls
from benchmarks.hostile_kinds.kind import Target
from benchmarks.hostile_kinds.memory import memory_of
from benchmarks.hostile_kinds.repository import write_models
from benchmarks.reporting import ROOT, Row, table, write_results
from benchmarks.serving import Running, server_process

MAX_TURN_S = 0.05
MAX_GROWTH_BYTES = 32 << 20
"""Bytes: about a tenth of what a server with PyTorch in it begins with."""

SETTLE_S = 1.0
"""Seconds after the ready line for what a server does once behind it: it collects garbage."""

THREADS = 12
MAX_FAILURES = 20
"""Failures after which a part ends early: more would say the same."""

MIB = 1 << 20

Run = Callable[[Target, str], tuple[int, str]]
"""Runs the session of a name; returns requests handled and what is wrong, empty if nothing is."""


def run_http(target: Target, name: str) -> tuple[int, str]:
    """Run one session of HTTP."""
    return run_session(target, make_session(name))


class Part(NamedTuple):
    """A part of the run.

    Attributes:
        name: of the part, the first word of its sessions' names.
        run: runs one session.
        share: of all requests.
        tls: whether it needs the server with a certificate.
    """

    name: str
    run: Run
    share: float
    tls: bool = False


PARTS = (
    Part("http", run_http, 0.85),
    Part("grpc", run_grpc, 0.10),
    Part("frames", run_frames, 0.02),
    Part("tls", run_tls, 0.03, tls=True),
)


class Tally:
    """What a part has found so far. Any thread.

    Attributes:
        handled: mutated requests that were handled.
        failures: names of sessions and what was wrong.
    """

    def __init__(self, requests: int) -> None:
        """Count up to `requests`."""
        self.handled = 0
        self.failures: list[tuple[str, str]] = []
        self._requests = requests
        self._lock = threading.Lock()

    @property
    def is_over(self) -> bool:
        """Return whether enough was tried, or enough is wrong."""
        return self.handled >= self._requests or len(self.failures) >= MAX_FAILURES

    def add(self, name: str, handled: int, wrong: str) -> None:
        """Count one session."""
        with self._lock:
            self.handled += handled
            if wrong:
                self.failures.append((name, wrong))
                print(f"{name}: {wrong}", flush=True)


def main() -> int:
    """Fuzz as the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS))
    parser.add_argument("--session", default=None, help="run this session alone")
    parser.add_argument("--name", default=None, help="write results/NAME.md and NAME.json")
    options = parser.parse_args()
    names = options.session.split(":")[:1] if options.session else options.parts.split(",")
    parts = [part for part in PARTS if part.name in names]
    rows = fuzz(parts, options.requests, options.seed, options.session)
    print(table(rows))
    if options.name:
        write_results(options.name, "Mutated requests", rows, (__doc__ or "").split("\n\n")[2:4])
    return 1 if any(row["wrong"] for row in rows) else 0


def fuzz(
    parts: list[Part], requests: int, seed: str = "1", session: str | None = None
) -> list[Row]:
    """Run `parts` with so many requests in all, and return a row for each.

    Args:
        parts: what is run, one after the other.
        requests: mutated requests in all, shared out as the parts' shares say.
        seed: what everything follows from.
        session: name of the only session that is run; all if None.
    """
    whole = sum(part.share for part in parts)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder / "models", *MODELS)
        certify(folder)
        for tls in (False, True):
            chosen = [part for part in parts if part.tls == tls]
            if chosen:
                with _watched(folder, tls) as (server, target):
                    for part in chosen:
                        number = round(requests * part.share / whole)
                        names = [session] if session else _names(part, seed)
                        rows.append(_run_part(part, number, iter(names), server, target, folder))
    return rows


def _names(part: Part, seed: str) -> Iterator[str]:
    return (f"{part.name}:{seed}:{number}" for number in count())


@contextmanager
def _watched(folder: Path, tls: bool) -> Iterator[tuple[Running, Target]]:
    os.environ["WATCH_FILE"] = str(folder / "watch.json")
    settings = ["grpc_port=0", "defaults.torch_threads=1"]
    if tls:
        settings += [f"tls_certificate={folder / 'own.pem'}"]
    script = ROOT / "benchmarks" / "fuzzing" / "watched_server.py"
    with server_process(folder / "models", *settings, script=script) as server:
        time.sleep(SETTLE_S)
        address = urlsplit(server.http)
        grpc_port = (server.grpc or ":0").rpartition(":")[2]
        yield server, Target(address.hostname or "", address.port or 0, int(grpc_port))


def _run_part(
    part: Part,
    requests: int,
    names: Iterator[str],
    server: Running,
    target: Target,
    folder: Path,
) -> Row:
    os.kill(server.pid, signal.SIGUSR1)
    tally, lock = Tally(requests), threading.Lock()
    threads = [
        threading.Thread(target=_repeat, args=(part, names, lock, target, tally), daemon=True)
        for _ in range(THREADS)
    ]
    began = time.monotonic()
    memory: list[tuple[int, int]] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append((tally.handled, memory_of(server.pid)))
        threads[0].join(0.2)
    seconds = time.monotonic() - began
    return _row(part, tally, seconds, _growth(memory), _watch(folder))


def _repeat(
    part: Part, names: Iterator[str], lock: threading.Lock, target: Target, tally: Tally
) -> None:
    while not tally.is_over:
        with lock:
            name = next(names, None)
        if name is None:
            return
        try:
            handled, wrong = part.run(target, name)
        except OSError as err:
            handled, wrong = 1, f"{type(err).__name__}: {err}"
        tally.add(name, handled, wrong)


def _growth(memory: list[tuple[int, int]]) -> int:
    """Return the bytes by which the last quarter's mean is above that of the second."""
    end = memory[-1][0]
    second = [held for handled, held in memory if end / 4 <= handled < end / 2]
    last = [held for handled, held in memory if handled >= end * 3 / 4]
    return sum(last) // len(last) - sum(second) // len(second) if second else 0


def _watch(folder: Path) -> dict[str, Any]:
    time.sleep(0.1)  # a turn that is being written down
    found: dict[str, Any] = orjson.loads((folder / "watch.json").read_bytes())
    return found


def _row(part: Part, tally: Tally, seconds: float, growth: int, watch: dict[str, Any]) -> Row:
    wrong = [f"{len(tally.failures)} sessions"] * bool(tally.failures)
    wrong += ["turn"] * (watch["own"] > MAX_TURN_S) + ["memory"] * (growth > MAX_GROWTH_BYTES)
    if watch["own"] > MAX_TURN_S:
        print("where the loop was:", *watch["stack"], sep="\n")
    return {
        "part": part.name,
        "requests": tally.handled,
        "requests/s": round(tally.handled / seconds),
        "worst turn ms": round(watch["own"] * 1e3, 1),
        "of it the loop's ms": round(watch["loop"] * 1e3, 1),
        "more MiB": round(growth / MIB, 1),
        "failed sessions": len(tally.failures),
        "wrong": ", ".join(wrong),
    }


if __name__ == "__main__":
    sys.exit(main())
