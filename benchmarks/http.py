"""Requests/s and latency over HTTP: this server by every protocol, Mosec and FastAPI.

All serve the same models with one torch thread, to the same client (wrk, closed loop, one thread)
on the same cores, and bodies are float32. Every server's answer is checked once before anything is
timed. Servers alternate within a round, and the table has medians over the rounds.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import grpc
import numpy as np
import orjson

from batcher.config.model_file import ModelDefinition
from batcher.frontends.grpc._generated import grpc_service_pb2 as pb
from benchmarks.bare import bare_rate, example_row, load
from benchmarks.h2load import require_h2load, run_h2load
from benchmarks.peers.running import running_peer
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server
from benchmarks.wrk import OCTETS, Measured, require_wrk, run_wrk

JSON_LENGTH = "Inference-Header-Content-Length"
WIDTHS = {"echo": 64, "mlp": 784, "fixed_cost": 64}
SERVERS = (
    "batcher",
    "v2_binary",
    "v2_json",
    "grpc",
    "klein",
    "mosec",
    "fastapi",
    "bare",
    "bare_grpc",
)
OURS = {
    "batcher": "/models/{}/predict",
    "v2_binary": "/v2/models/{}/infer",
    "v2_json": "/v2/models/{}/infer",
    "grpc": "/inference.GRPCInferenceService/ModelInfer",
}
"""Paths of this server by protocol; `{}` stands for the name of the model."""


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--connections", nargs="*", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--servers", nargs="*", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--name", default="http", help="of the result's files")
    options = parser.parse_args()
    require_wrk()
    if {"grpc", "bare_grpc"} & set(options.servers):
        require_h2load()
    rows = [row for model in options.models for row in measure_model(model, options)]
    print(write_results(options.name, "Requests/s over HTTP, and latency in ms", rows, REMARKS))


REMARKS = (
    "`batcher`: this server as `serve.py` runs it, default settings, raw bytes. `v2_binary`, "
    "`v2_json`: it too, by the Open Inference Protocol with binary and with JSON tensors. `grpc`: "
    "it too, by gRPC, so many calls at a time on one connection of h2load. `klein`: its own routes "
    "over Klein on twisted.web alone. `mosec`: batches up to 64, 5 ms. `fastapi`: on uvicorn, one "
    "request at a time. `bare`: httptools on uvloop, which answers each body with itself and has "
    "neither batch nor model; the most that Python can do. `bare_grpc`: the same on grpc.aio.",
    "`ratio`: requests/s of `batcher` over those of the row, median over the rounds of the ratio "
    "within a round.",
    "`of model`: requests/s over the rows/s of the model called in a bare loop with 64 rows, in "
    "the same run.",
)


def measure_model(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each server and number of connections."""
    random = np.random.default_rng(0)
    body = random.random(WIDTHS[model], dtype=np.float32).tobytes()
    definition, checked = load(MODELS / model, 64)
    bare = median(
        bare_rate(checked, example_row(definition), 64, options.seconds)
        for _ in range(options.rounds)
    )
    rows = []
    with ExitStack() as stack:
        servers = [
            server for server in options.servers if not server.startswith("bare") or model == "echo"
        ]
        targets = {
            server: target(server, stack.enter_context(running(server, model)), definition, body)
            for server in servers
        }
        check_answers(targets)
        for connections in options.connections:
            rounds: list[dict[str, Measured]] = [
                {
                    server: loaded(sent, connections, options.seconds)
                    for server, sent in targets.items()
                }
                for _ in range(options.rounds)
            ]
            rows += [summary(model, server, connections, rounds, bare) for server in targets]
            print(*rows[-len(targets) :], sep="\n", flush=True)
    return rows


def loaded(sent: Target, connections: int, seconds: int) -> Measured:
    """Return what a run of the generator that speaks the target's protocol measured."""
    if sent.is_grpc:
        return run_h2load(sent.url, sent.body, connections, seconds)
    return run_wrk(sent.url, sent.body, connections, seconds, sent.headers)


def summary(
    model: str, server: str, connections: int, rounds: list[dict[str, Measured]], bare: float
) -> dict[str, Any]:
    """Return the medians of one server at one number of connections."""
    rate = median(found[server].rate for found in rounds)
    first = next(iter(rounds[0]))
    return {
        "model": model,
        "connections": connections,
        "server": server,
        "requests/s": round(rate),
        "p50 ms": median(found[server].p50 for found in rounds),
        "p99 ms": median(found[server].p99 for found in rounds),
        "ratio": round(median(found[first].rate / found[server].rate for found in rounds), 2),
        "of model": round(rate / bare, 3),
        "errors": sum(found[server].errors for found in rounds),
    }


@contextmanager
def running(server: str, model: str, **environment: str) -> Iterator[str]:
    """Run `server` in a process of its own, and give the URL that answers for `model`.

    A peer also gets the variables of `environment`.
    """
    if server in OURS:
        with running_server(MODELS, *(("grpc_port=0",) if server == "grpc" else ())) as address:
            yield address + OURS[server].format(model)
        return
    with running_peer(server, model, **environment) as port:
        path = {"klein": OURS["batcher"].format(model), "bare_grpc": OURS["grpc"]}.get(
            server, "/inference"
        )
        yield f"http://127.0.0.1:{port}{path}"


class Target(NamedTuple):
    """What is posted where."""

    url: str
    body: bytes
    headers: dict[str, str]

    @property
    def is_grpc(self) -> bool:
        """Whether the URL is called by gRPC."""
        return self.url.endswith(OURS["grpc"])


def target(server: str, url: str, definition: ModelDefinition, row: bytes) -> Target:
    """Return how `server` wants the row `row`."""
    if not server.startswith("v2") and "grpc" not in server:
        return Target(url, row, OCTETS)
    tensor = definition.spec.inputs[0]
    entry: dict[str, Any] = {"name": tensor.name, "datatype": "FP32", "shape": [1, *tensor.shape]}
    if "grpc" in server:
        message = pb.ModelInferRequest(
            model_name=definition.spec.name, inputs=[entry], raw_input_contents=[row]
        )
        return Target(url, message.SerializeToString(), {})
    if server == "v2_json":
        data = np.frombuffer(row, np.float32).tolist()
        return Target(
            url,
            orjson.dumps({"inputs": [{**entry, "data": data}]}),
            {"Content-Type": "application/json"},
        )
    parameters = {"binary_data_size": len(row)}
    head = orjson.dumps(
        {
            "inputs": [{**entry, "parameters": parameters}],
            "parameters": {"binary_data_output": True},
        }
    )
    return Target(url, head + row, {**OCTETS, JSON_LENGTH: str(len(head))})


def check_answers(targets: dict[str, Target]) -> None:
    """Check that every server gives the same answer."""
    answers = {server: answer(sent) for server, sent in targets.items() if server != "bare_grpc"}
    first = next(iter(answers.values()))
    for server, found in answers.items():
        if not np.allclose(found, first, atol=1e-5):
            raise SystemExit(f"{server} answers {found[:4]}…, not {first[:4]}…")


def answer(sent: Target) -> np.ndarray:
    """Return what is answered to `sent`, trying until the model is loaded."""
    if sent.is_grpc:
        with grpc.insecure_channel(sent.url.split("/")[2]) as channel:
            found = channel.unary_unary(OURS["grpc"], None, pb.ModelInferResponse.FromString)(
                sent.body
            )
            return np.frombuffer(found.raw_output_contents[0], np.float32)
    for _ in range(100):
        try:
            with urlopen(Request(sent.url, sent.body, sent.headers), timeout=20) as found:
                body, json_length = found.read(), int(found.headers.get(JSON_LENGTH, 0))
        except OSError:
            time.sleep(0.2)
            continue
        if found.headers["Content-Type"] == "application/json":
            return np.array(orjson.loads(body)["outputs"][0]["data"], np.float32)
        return np.frombuffer(body[json_length:], np.float32)
    raise SystemExit(f"{sent.url} does not answer")


if __name__ == "__main__":
    main()
