"""What clients that do next to nothing cost clients that work: memory and latency.

| clients | what they do | measured with and without them |
|---|---|---|
| idle | keep a connection open after one request | memory; seconds of `/readyz` and of inference |
| slow | send a head, or a body, a byte at a time | normal clients, by wrk |

The figures are medians over the rounds. The slow clients run in a thread of this process.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import os
import resource
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from threading import Event
from typing import Any

from benchmarks.reporting import write_results
from benchmarks.serving import running_server
from benchmarks.wrk import Measured, require_wrk, run_wrk

ROW = bytes(256)
TARGET = "/models/echo/predict"
READY = b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n"
PREDICT = (
    f"POST {TARGET} HTTP/1.1\r\nHost: h\r\nContent-Type: application/octet-stream\r\n"
    f"Content-Length: {len(ROW)}\r\n\r\n"
).encode() + ROW
CONNECTIONS_PER_ADDRESS = 1_000
"""Connections from one address of this machine. That is few of its ports, so the kernel finds a
free port at once.
"""

SLOW_HEAD = b"GET /readyz HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"a" * 4096
SLOW_BODY = PREDICT[: -len(ROW)].replace(b": 256", b": 4096") + bytes(4095)
SLOW_BODY_SENT = len(SLOW_BODY) - 4095
BYTE_INTERVAL_S = 0.3
"""Seconds between two bytes of a slow client: 50 bytes of a head within `header_timeout_s`."""

Found = dict[tuple[str, bool], list[list[float]]]
"""By kind of request, and whether idle connections are beside: percentiles of each round, in ms."""


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle", type=int, default=10_000, help="connections that do nothing")
    parser.add_argument(
        "--slow",
        type=int,
        default=500,
        help="connections that send a head slowly, and as many a body",
    )
    parser.add_argument(
        "--connections", type=int, default=64, help="of normal clients beside the slow ones"
    )
    parser.add_argument(
        "--requests", type=int, default=2000, help="of each kind, for the latency beside idle ones"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=int, default=2, help="of each measurement beside slow ones"
    )
    options = parser.parse_args()
    require_wrk()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle, memory = measure_idle(options)
    print(*idle, memory, sep="\n", flush=True)
    slow, cpu = measure_slow(options)
    print(
        write_results("idle", "What idle and slow connections cost", [*idle, *slow], [memory, cpu])
    )


def measure_idle(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each kind of request, and a sentence about memory."""
    requests = {"/readyz": READY, "inference": PREDICT}
    found: Found = {(name, beside): [] for name in requests for beside in (False, True)}
    memory = []
    with running_server() as address:
        place = host_and_port(address)
        pid = process_that_listens(place[1])
        for request in requests.values():
            # what a server makes at its first requests is made now
            latencies(place, request, options.requests)
        for _ in range(options.rounds):
            for name, request in requests.items():
                found[name, False].append(latencies(place, request, options.requests))
            before = resident(pid)
            with idle_connections(place, options.idle):
                memory.append((resident(pid) - before) / options.idle / 1024)
                for name, request in requests.items():
                    found[name, True].append(latencies(place, request, options.requests))
    rows = [idle_row(name, options.idle, found) for name in requests]
    later = ", ".join(f"{grown:.2f}" for grown in memory[1:])
    remark = f"the server's resident memory grew by {memory[0]:.2f} KiB for each"
    return (
        rows,
        f"When {options.idle:,} idle connections were first opened, {remark}; in later rounds by "
        f"{later} KiB.",
    )


def idle_row(name: str, idle: int, found: Found) -> dict[str, Any]:
    """Return the row for requests `name` with and without `idle` connections beside them."""
    percentiles = {}
    for percentile in (50, 99):
        beside, alone = (
            [times[percentile - 1] for times in found[name, is_beside]]
            for is_beside in (True, False)
        )
        percentiles |= compared(f"p{percentile} ms", beside, alone)
    return {
        "normal clients": f"1, {name}",
        "beside": f"{idle:,} idle",
        **percentiles,
        **dict.fromkeys(("requests/s", "requests/s without", "requests/s ratio"), ""),
        "errors": 0,
    }


def measure_slow(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Return a row for each kind of slow clients, and a sentence about their own use of a core."""
    kinds = {
        "head": [(SLOW_HEAD, 1)] * options.slow,
        "body": [(SLOW_BODY, SLOW_BODY_SENT)] * options.slow,
    }
    kinds["head and body"] = kinds["head"] + kinds["body"]
    rows, cpu = [], []
    with running_server() as address:
        run_wrk(address + TARGET, ROW, options.connections, 1)
        for kind, clients in kinds.items():
            alone, beside, used = with_and_without(address, clients, options)
            cpu += used
            rows.append(
                {
                    "normal clients": f"{options.connections}, inference",
                    "beside": f"{len(clients):,} slow ({kind})",
                    **slow_figures(alone, beside),
                }
            )
            print(rows[-1], flush=True)
    return (
        rows,
        f"The slow clients' own thread took {median(cpu):.0%} of a core (median), of the same "
        "cores; no ratio leaves it out.",
    )


def with_and_without(
    address: str, clients: list[tuple[bytes, int]], options: argparse.Namespace
) -> tuple[list[Measured], list[Measured], list[float]]:
    """Measure rounds of normal clients, alone and beside slow `clients`, in turn.

    Returns:
        What was measured alone, what beside, and the cores that the slow clients took themselves.
    """
    url = address + TARGET
    alone: list[Measured] = []
    beside: list[Measured] = []
    cpu = []
    for number in range(options.rounds):
        for slow in (False, True) if number % 2 else (True, False):
            if slow:
                with slow_clients(host_and_port(address), clients) as used:
                    beside.append(run_wrk(url, ROW, options.connections, options.seconds))
                cpu.append(used[0])
            else:
                alone.append(run_wrk(url, ROW, options.connections, options.seconds))
    return alone, beside, cpu


def slow_figures(alone: list[Measured], beside: list[Measured]) -> dict[str, Any]:
    """Return the figures of a row, of normal clients `alone` and `beside` slow ones."""
    figures = {}
    for name, attribute in (("p50 ms", "p50"), ("p99 ms", "p99"), ("requests/s", "rate")):
        with_slow, without = (
            [getattr(found, attribute) for found in measured] for measured in (beside, alone)
        )
        figures |= compared(name, with_slow, without)
    return {**figures, "errors": sum(found.errors for found in (*alone, *beside))}


def compared(name: str, beside: list[float], alone: list[float]) -> dict[str, float]:
    """Return medians with and without the other connections, and of the ratio within a round."""
    ratio = median(one / other for one, other in zip(beside, alone, strict=True))
    return {
        name: median(beside),
        f"{name} without": median(alone),
        f"{name} ratio": round(ratio, 2),
    }


def latencies(place: tuple[str, int], request: bytes, count: int) -> list[float]:
    """Return the percentiles 1 to 99, in ms, of `count` requests in turn on one connection."""
    times = []
    with socket.create_connection(place, 20) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            ask(client, request)
            times.append((time.perf_counter() - began) * 1e3)
    return quantiles(times, n=100)


def ask(client: socket.socket, request: bytes) -> None:
    """Send `request` and receive the whole answer, which must be a 200."""
    client.sendall(request)
    data = client.recv(4096)
    while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + content_length(data):
        piece = client.recv(4096)
        if not piece:
            raise SystemExit(f"the server ended a connection behind {data!r}")
        data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"expected an answer of 200; got {data!r}")


def content_length(head: bytes) -> int:
    """Return how long the body behind `head` is."""
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])


@contextmanager
def idle_connections(place: tuple[str, int], count: int) -> Iterator[None]:
    """Keep `count` connections open that have each made one request."""
    clients = []
    try:
        for number in range(count):
            source = (f"127.0.1.{2 + number // CONNECTIONS_PER_ADDRESS}", 0)
            clients.append(socket.create_connection(place, 20, source))
            # closed at once, so that no port is left in TIME_WAIT
            clients[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ask(clients[-1], PREDICT)
        yield
        ask(clients[0], READY)  # the first is still open, and so are the others, used later
    finally:
        for client in clients:
            client.close()
        time.sleep(0.5)  # the server notices


@contextmanager
def slow_clients(place: tuple[str, int], clients: list[tuple[bytes, int]]) -> Iterator[list[float]]:
    """Run clients, each a text and how many bytes of the text are sent at once.

    The rest follows byte by byte. Gives the share of a core that the clients took.
    """
    over, used = Event(), [0.0]
    connected = [(socket.create_connection(place, 20), *client) for client in clients]
    for client, data, first in connected:
        client.sendall(data[:first])

    def trickle() -> None:
        began, step = time.monotonic(), 0
        while not over.is_set():
            for number, (client, data, first) in enumerate(connected):
                client.sendall(data[first + step : first + step + 1])
                if number % 20 == 19:  # the bytes of one step are spread over the interval
                    due = began + BYTE_INTERVAL_S * (step + number / len(connected))
                    over.wait(max(0.0, due - time.monotonic()))
            step += 1
        used[0] = time.thread_time() / (time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(trickle)
        try:
            yield used
        finally:
            over.set()
        done.result()  # a client that the server gave up fails the run
    for client, _, _ in connected:
        client.close()


def host_and_port(address: str) -> tuple[str, int]:
    """Return where `address` is."""
    host, port = address.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def process_that_listens(port: int) -> int:
    """Return the id of the child of this process that listens on `port`."""
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()
        if f":{port:04X} 00000000:0000 0A" in line
    }
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return next(int(child) for child in children if inodes & sockets_of(int(child)))


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    return {os.readlink(entry)[8:-1] for entry in Path(f"/proc/{pid}/fd").iterdir()}


def resident(pid: int) -> int:
    """Return the bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
