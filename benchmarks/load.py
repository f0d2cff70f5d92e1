"""An HTTP/1.1 load generator that knows its own faults.

The generator must put 10,000 scheduled requests a second on a server that shares two cores with the
generator, and must be believed. So the generator

- runs in a process of its own,
- counts latency from the time at which a request was due, so that a slow server cannot slow down
  its own examination,
- reports how late the generator itself was (its lag), and calls its run invalid when the p99 of the
  lag is above 2 ms.

An open loop, the default, sends on a schedule:

    python benchmarks/load.py http://127.0.0.1:8080/predict --rate 10000 --random-body 256 --json
    result.json

A closed loop (`--closed`) sends on each connection whenever the answer to the last request came. A
closed loop finds a server's limit, and says so when it found the generator's own limit instead.
Benchmarks call `run_load`, which starts such a process and reads its JSON.

How the generator wakes up, and what was refused: `loadgen/schedule.py`. Why connections are a fixed
pool: `loadgen/traffic.py`. Why the generator writes to sockets itself: `loadgen/client.py`.

Measured on two shared cores, with an echo server in uvloop on the other core, 10,000 requests/s of
256 bytes, five runs of 10 s each:

| schedule | own lag p99 | share of a core |
|---|---|---|
| Poisson | 0.10 to 0.11 ms | 0.35 |
| constant | 0.06 to 0.08 ms | 0.55 |

Closed loop, 64 connections: 115,000 to 129,000 requests/s, 0.9 of what wrk with one thread asks of
the same server.

Exit status: 0, 1 if there was nobody to load, 2 for a mistake in the arguments, 3 if the run is
invalid.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Run as a script: the root of the imports is the parent of this directory.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import uvloop

from benchmarks.loadgen.client import LoadError, Target, Window, generate
from benchmarks.loadgen.options import LoadOptions, parse
from benchmarks.loadgen.report import LoadResult, conclude, render
from benchmarks.loadgen.schedule import constant, poisson
from benchmarks.loadgen.traffic import ClosedLoop, OpenLoop, Traffic

__all__ = ["LoadError", "LoadOptions", "LoadResult", "main", "report_invalid", "run_load"]

EXIT_INVALID = 3
_START_AND_SETTLE_S = 60.0  # to start, connect and settle, beyond what the options ask for


def run_load(options: LoadOptions) -> LoadResult:
    """Run the generator in a process of its own, wait for it, and read its result.

    An invalid run is a result like any other: look at `valid`.

    Raises:
        LoadError: The generator could not run; the message is what it said.
    """
    command = [sys.executable, str(Path(__file__).resolve()), *options.argv(), "--json=-"]
    limit = options.warmup + options.duration + 2 * options.timeout + _START_AND_SETTLE_S
    try:
        done = subprocess.run(
            command, input=options.body, capture_output=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise LoadError(f"the generator did not end within {limit:g} s") from err
    if done.returncode not in (0, EXIT_INVALID):
        raise LoadError(
            done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        )
    return LoadResult.from_json(done.stdout)


def report_invalid(results: Sequence[LoadResult]) -> int:
    """Say how many runs are not to be used, and return the exit status."""
    invalid = [result for result in results if not result.valid]
    if not invalid:
        return 0
    print(
        f"{len(invalid)} of {len(results)} runs are invalid: {invalid[0].invalid_reason}",
        file=sys.stderr,
    )
    return EXIT_INVALID


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one load in this process, write its result, and return the exit status."""
    options, destination = parse(sys.argv[1:] if arguments is None else arguments, _read_body)
    try:
        result = _run(options)
    except LoadError as err:
        print(f"load: {err}", file=sys.stderr)
        return 1
    _write(result, destination)
    return 0 if result.valid else EXIT_INVALID


def _run(options: LoadOptions) -> LoadResult:
    family, address = _resolve(options)
    target = Target(family, address, options.request, options.timeout)
    if options.realtime:
        _enter_realtime()
    window = Window(options.warmup, options.duration)
    tally, cores = uvloop.run(generate(target, _traffic(options), window, options.connections))
    return conclude(tally, options.describe(), options.max_lag_ms, cores)


def _traffic(options: LoadOptions) -> Traffic:
    if options.closed:
        return ClosedLoop()
    constantly = options.schedule == "constant"
    schedule = constant(options.rate) if constantly else poisson(options.rate, options.seed)
    return OpenLoop(schedule, time.monotonic)


def _resolve(options: LoadOptions) -> tuple[int, tuple[object, ...]]:
    """The first of the host's addresses that answers a connect."""
    host, port = options.target.hostname or "", options.target.port or 80
    try:
        with socket.create_connection((host, port), timeout=options.timeout) as sock:
            return sock.family, sock.getpeername()
    except OSError as err:
        raise LoadError(f"cannot connect to {host} port {port}: {err}") from err


def _enter_realtime() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError as err:
        raise LoadError("--realtime needs root or CAP_SYS_NICE") from err


def _read_body(source: str) -> bytes:
    return sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()


def _write(result: LoadResult, destination: str | None) -> None:
    loud = destination == "-" or not result.valid
    print(render(result), file=sys.stderr if loud else sys.stdout)
    if destination == "-":
        sys.stdout.buffer.write(result.to_json())
    elif destination is not None:
        Path(destination).write_bytes(result.to_json())


if __name__ == "__main__":
    sys.exit(main())
