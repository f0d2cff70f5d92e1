"""Requests/s and latency over ZeroMQ beside HTTP, and bursts of which no message may be lost.

One server answers both, on the same cores, with the mlp of 784 floats. 64 requests are in flight:
over HTTP on 64 connections of wrk, over ZeroMQ on one socket, and on 64. Over HTTP the request has
three forms: raw bytes, which name no tensor, and the Open Inference Protocol with the tensor as
bytes, which says as much as a header of ZeroMQ does, and as JSON. The load is a closed loop,
each answer is looked at, protocols alternate within a round, and the table has medians over the
rounds. Both clients are C, since they share the cores with the server: `zeromq_load.c` is built
here, which needs a C compiler and the library's headers (`apt-get install libzmq3-dev`).

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
from collections.abc import Mapping
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgpack
import numpy as np
import orjson
import zmq

from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, server_process
from benchmarks.wrk import OCTETS, require_wrk, run_wrk

IN_FLIGHT = 64
MAX_BURST = 1000
ANSWER_BYTES = 40
"""Ten scores of FP32."""

WAIT_MS = 30_000
SETTING = "zeromq=tcp://127.0.0.1:0"


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--messages", type=int, default=1_000_000, help="of all bursts together")
    parser.add_argument("--bursts", nargs=2, metavar=("ADDRESS", "MESSAGES"))
    options = parser.parse_args()
    if options.bursts:
        found = bursts(options.bursts[0], int(options.bursts[1]))
        sys.stdout.write(orjson.dumps(found).decode())
    else:
        require_wrk()
        with TemporaryDirectory() as folder:
            load = Load(Path(folder))
            rows = [*compared(load, options.rounds, options.seconds), lost(options.messages)]
        print(write_results("zeromq", "ZeroMQ beside HTTP", rows, REMARKS))


REMARKS = (
    "`http`: raw bytes on `/models/mlp/predict`, wrk with 64 connections. `http, binary tensor`, "
    "`http, JSON`: the Open Inference Protocol. `zeromq, 1 socket` and `zeromq, 64 sockets`: raw "
    "tensors, 64 requests in flight, by a client in C. `ratio`: requests/s over those of `http`, "
    "median over the rounds of the ratio within a round.",
    "`bursts`: one socket, 64 floats echoed, 1 to 1,000 messages at once; `errors` counts answers "
    "that did not come, or were another's.",
)


class Load:
    """The client of ZeroMQ, built in a folder."""

    def __init__(self, folder: Path) -> None:
        """Build it."""
        self._program, self._header, self._body = (
            str(folder / name) for name in ("load", "header", "body")
        )
        source = Path(__file__).with_name("zeromq_load.c")
        command = ["cc", "-O2", "-o", self._program, str(source), "-lzmq"]
        if subprocess.run(command, check=False).returncode:
            sys.exit("expected a C compiler and the headers of ZeroMQ: apt-get install libzmq3-dev")

    def run(self, address: str, sockets: int, seconds: int, body: bytes) -> dict[str, float]:
        """Return what was measured with IN_FLIGHT requests on so many sockets."""
        Path(self._header).write_bytes(header("mlp", len(body) // 4))
        Path(self._body).write_bytes(body)
        numbers = map(str, (sockets, IN_FLIGHT, seconds, ANSWER_BYTES))
        command = [self._program, address, *numbers, self._header, self._body]
        output = subprocess.run(command, capture_output=True, check=True).stdout
        answered, took, p50, p99, errors = map(float, output.split())
        return {"rate": answered / took, "p50": p50, "p99": p99, "errors": errors}


def compared(load: Load, rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Return a row for HTTP and for ZeroMQ over one socket and over many."""
    body = np.random.default_rng(0).random(784, dtype=np.float32).tobytes()
    found: dict[str, list[dict[str, float]]] = {}
    with server_process(MODELS, SETTING) as server:
        assert server.zeromq is not None
        for turn in range(rounds + 1):
            measured = {
                **{name: http(server.http, form, seconds) for name, form in forms(body).items()},
                "zeromq, 1 socket": load.run(server.zeromq, 1, seconds, body),
                "zeromq, 64 sockets": load.run(server.zeromq, IN_FLIGHT, seconds, body),
            }
            if turn:  # the first is warm-up
                for name, one in measured.items():
                    found.setdefault(name, []).append(one)
    return [summary(name, ones, found["http"]) for name, ones in found.items()]


class Form(NamedTuple):
    """A request over HTTP."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def forms(row: bytes) -> dict[str, Form]:
    """Return the forms that a request of one row has over HTTP, by what the table calls them."""
    entry = {"name": "input", "datatype": "FP32", "shape": [1, len(row) // 4]}
    binary = {**entry, "parameters": {"binary_data_size": len(row)}}
    head = orjson.dumps({"inputs": [binary], "parameters": {"binary_data_output": True}})
    listed = {**entry, "data": np.frombuffer(row, "<f4").tolist()}
    infer, length = "/v2/models/mlp/infer", {"Inference-Header-Content-Length": str(len(head))}
    json = {"Content-Type": "application/json"}
    return {
        "http": Form("/models/mlp/predict", OCTETS, row),
        "http, binary tensor": Form(infer, {**OCTETS, **length}, head + row),
        "http, JSON": Form(infer, json, orjson.dumps({"inputs": [listed]})),
    }


def http(address: str, form: Form, seconds: int) -> dict[str, float]:
    """Return what wrk measured."""
    url = f"{address}{form.path}"
    measured = run_wrk(url, form.body, IN_FLIGHT, seconds, form.headers)
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


def connected(address: str) -> Any:
    """Return a socket of ZeroMQ."""
    found = zmq.Context.instance().socket(zmq.DEALER)
    found.set(zmq.LINGER, 0)
    found.set(zmq.RCVTIMEO, WAIT_MS)
    found.connect(address)
    return found


def bursts(address: str, messages: int) -> dict[str, float]:
    """Send bursts, and return the rate and how many answers did not come or were wrong."""
    socket = connected(address)
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
