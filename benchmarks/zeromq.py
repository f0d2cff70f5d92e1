"""Requests/s and latency over ZeroMQ beside HTTP, and bursts of which no message may be lost.

One server answers both, on the same cores, with the mlp of 784 floats. 64 requests are in flight:
over HTTP on 64 connections of wrk, over ZeroMQ on one socket of pyzmq, and on 64. The load is a
closed loop, each answer is looked at, protocols alternate within a round, and the table has medians
over the rounds. pyzmq's client is Python and takes more of the cores than wrk does.

The bursts are 1 to 1,000 messages at once, each awaited as a whole, to a model that gives its input
back. Each answer must have the number and the value of its request.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import subprocess
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import msgpack
import numpy as np
import orjson
import zmq

from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, server_process
from benchmarks.wrk import OCTETS, require_wrk, run_wrk

IN_FLIGHT = 64
MAX_BURST = 1000
WAIT_MS = 30_000
SETTING = "zeromq=tcp://127.0.0.1:0"


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of all bursts together")
    parser.add_argument("--load", nargs=3, metavar=("ADDRESS", "SOCKETS", "SECONDS"))
    parser.add_argument("--bursts", nargs=2, metavar=("ADDRESS", "MESSAGES"))
    options = parser.parse_args()
    if options.load:
        address, sockets, seconds = options.load
        found: Any = closed_loop(address, int(sockets), float(seconds))
        sys.stdout.write(orjson.dumps(found).decode())
    elif options.bursts:
        found = bursts(options.bursts[0], int(options.bursts[1]))
        sys.stdout.write(orjson.dumps(found).decode())
    else:
        require_wrk()
        rows = [*compared(options.rounds, options.seconds), lost(options.messages)]
        print(write_results("zeromq", "ZeroMQ beside HTTP", rows, REMARKS))


REMARKS = (
    "`http`: raw bytes on `/models/mlp/predict`, wrk with 64 connections. `zeromq, 1 socket` and "
    "`zeromq, 64 sockets`: raw tensors, 64 requests in flight. `ratio`: requests/s over those of "
    "`http`, median over the rounds of the ratio within a round.",
    "`bursts`: one socket, 64 floats echoed, 1 to 1,000 messages at once; `errors` counts answers "
    "that did not come, or were another's.",
)


def compared(rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Return a row for HTTP and for ZeroMQ over one socket and over many."""
    body = np.random.default_rng(0).random(784, dtype=np.float32).tobytes()
    found: dict[str, list[dict[str, float]]] = {}
    with server_process(MODELS, SETTING) as server:
        assert server.zeromq is not None
        for turn in range(rounds + 1):
            measured = {
                "http": http(f"{server.http}/models/mlp/predict", body, seconds),
                "zeromq, 1 socket": child("--load", server.zeromq, "1", str(seconds)),
                "zeromq, 64 sockets": child("--load", server.zeromq, "64", str(seconds)),
            }
            if turn:  # the first is warm-up
                for name, one in measured.items():
                    found.setdefault(name, []).append(one)
    return [summary(name, ones, found["http"]) for name, ones in found.items()]


def http(url: str, body: bytes, seconds: int) -> dict[str, float]:
    """Return what wrk measured."""
    measured = run_wrk(url, body, IN_FLIGHT, seconds, OCTETS)
    return {
        "rate": measured.rate,
        "p50": measured.p50,
        "p99": measured.p99,
        "errors": measured.errors,
    }


def summary(
    name: str, ones: list[dict[str, float]], base: list[dict[str, float]]
) -> dict[str, Any]:
    """Return the row of one protocol."""
    ratios = [one["rate"] / of_http["rate"] for one, of_http in zip(ones, base, strict=True)]
    return {
        "what": name,
        "requests/s": round(median(one["rate"] for one in ones)),
        "p50 ms": round(median(one["p50"] for one in ones), 3),
        "p99 ms": round(median(one["p99"] for one in ones), 3),
        "ratio": round(median(ratios), 2),
        "errors": sum(one["errors"] for one in ones),
    }


def lost(messages: int) -> dict[str, Any]:
    """Return the row of the bursts."""
    with server_process(MODELS, SETTING) as server:
        assert server.zeromq is not None
        found = child("--bursts", server.zeromq, str(messages))
    return {
        "what": f"bursts, {messages:,} messages",
        "requests/s": round(found["rate"]),
        "p50 ms": None,
        "p99 ms": None,
        "ratio": None,
        "errors": found["errors"],
    }


def child(*arguments: str) -> dict[str, float]:
    """Return what this script measures in a process of its own."""
    command = [sys.executable, str(Path(__file__)), *arguments]
    output = subprocess.run(command, capture_output=True, check=True)
    found: dict[str, float] = orjson.loads(output.stdout)
    return found


def header(model: str, width: int) -> bytes:
    """Return the header of a request of one row."""
    entry = {"name": "input", "datatype": "FP32", "shape": [1, width]}
    packed: bytes = msgpack.packb({"model_name": model, "inputs": [entry]})
    return packed


def connected(address: str, sockets: int) -> list[Any]:
    """Return so many sockets of ZeroMQ."""
    context = zmq.Context.instance()
    found = [context.socket(zmq.DEALER) for _ in range(sockets)]
    for each in found:
        each.set(zmq.LINGER, 0)
        each.set(zmq.RCVTIMEO, WAIT_MS)
        each.connect(address)
    return found


def closed_loop(address: str, sockets: int, seconds: float) -> dict[str, float]:
    """Keep requests in flight, and return rate, latencies in ms, and errors."""
    found = connected(address, sockets)
    head = header("mlp", 784)
    body = np.random.default_rng(0).random(784, dtype=np.float32).tobytes()
    began: dict[bytes, float] = {}
    latencies: list[float] = []
    errors = number = 0
    for each in found:
        for _ in range(IN_FLIGHT // sockets):
            number += 1
            key = number.to_bytes(8, "big")
            began[key] = time.perf_counter()
            each.send_multipart((key + head, body))
    poller = zmq.Poller()
    for each in found:
        poller.register(each, zmq.POLLIN)
    start = now = time.perf_counter()
    while now - start < seconds:
        ready = [found[0]] if sockets == 1 else [each for each, _ in poller.poll(WAIT_MS)]
        for each in ready:
            first, *parts = each.recv_multipart()
            now = time.perf_counter()
            key = first[:8]
            latencies.append(now - began.pop(key))
            errors += len(parts) != 1 or len(parts[0]) != 40
            number += 1
            key = number.to_bytes(8, "big")
            began[key] = now
            each.send_multipart((key + head, body))
    ordered = np.sort(latencies) * 1e3
    p50, p99 = float(np.percentile(ordered, 50)), float(np.percentile(ordered, 99))
    return {"rate": len(latencies) / (now - start), "p50": p50, "p99": p99, "errors": errors}


def bursts(address: str, messages: int) -> dict[str, float]:
    """Send bursts, and return the rate and how many answers did not come or were wrong."""
    (socket,) = connected(address, 1)
    draw, head = Random(0), header("echo", 64)
    sent = errors = 0
    start = time.perf_counter()
    while sent < messages:
        count = min(draw.randrange(1, MAX_BURST + 1), messages - sent)
        due = {}
        for _ in range(count):
            sent += 1
            key = sent.to_bytes(8, "big")
            due[key] = np.full(64, sent % 9973, "<f4").tobytes()
            socket.send_multipart((key + head, due[key]))
        try:
            while due:
                first, *parts = socket.recv_multipart()
                errors += parts != [due.pop(first[:8], None)]
        except zmq.Again:
            errors += len(due)
    return {"rate": sent / (time.perf_counter() - start), "errors": errors}


if __name__ == "__main__":
    main()
