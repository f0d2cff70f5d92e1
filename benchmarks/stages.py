"""Where a request's microseconds go: 64 connections in memory, without threads and sockets.

Four stages: `receive` (bytes to a queued request), `decide` (the batch is bound), `run` (collated,
predicted, split: the echo model does nothing), `deliver` (answers encoded and written). The best of
many rounds, since anything else a machine does adds.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import gc
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from twisted.internet.task import Clock
from twisted.web.server import Site

from batcher import ModelServer, ModelSettings, ServerSettings
from batcher.app.process_settings import YOUNG_OBJECTS
from batcher.frontends.endpoints.answer_log import AnswerLog
from batcher.frontends.endpoints.disclosure import disclosure_of
from batcher.frontends.endpoints.routing import Router
from batcher.frontends.endpoints.table import routes
from batcher.frontends.web.connection import Connection
from batcher.frontends.web.front import Front
from batcher.frontends.web.limits import Limits
from batcher.serving.repository.repository import ModelRepository
from batcher.workers.memory import MemoryWorker
from batcher.workers.run_batch import run_batch
from benchmarks.bare import load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS

STAGES = ("receive", "decide", "run", "deliver")


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--batches", type=int, default=20, help="of each round")
    options = parser.parse_args()
    # as the server has it: with Python's own thresholds, 64 requests are one look for cycles
    gc.set_threshold(YOUNG_OBJECTS, 20, 50)
    bench = Bench(options.connections)
    bench.round(options.batches)
    gc.collect()
    gc.freeze()
    rounds = [bench.round(options.batches) for _ in range(options.rounds)]
    best = [min(found[stage] for found in rounds) for stage in STAGES]
    total = min(sum(found.values()) for found in rounds)
    requests = options.connections * options.batches
    row = {
        stage: f"{seconds / requests * 1e6:.2f}"
        for stage, seconds in zip(STAGES, best, strict=True)
    }
    row["all"] = f"{total / requests * 1e6:.2f}"
    print(
        write_results(
            "stages",
            "Microseconds of a request by stage, in process",
            [row],
            (__doc__.split("\n\n")[1],),
        )
    )


class Discard:
    """A transport that nothing is sent through."""

    def write(self, data: bytes) -> None:
        """Send nothing."""

    def get_extra_info(self, name: str) -> Any:
        """Return an address."""
        return ("127.0.0.1", 1) if name == "peername" else None


class Bench:
    """A server in memory with the echo model, and connections to it."""

    def __init__(self, connections: int) -> None:
        """Wire them."""
        clock, settings = Clock(), ServerSettings()
        server = ModelServer(
            clock,
            lambda function, *arguments: function(*arguments),
            settings,
            call_soon=lambda pump: None,
        )
        definition, self.checked = load(MODELS / "echo", 64)
        self.worker = MemoryWorker(self.checked, clock)
        with patch("batcher.workers.making.InferenceThread", lambda *_: self.worker):
            server.add(definition, ModelSettings())
        self.scheduler = server.find("echo").scheduler
        disclosure = disclosure_of(settings, clock.seconds)
        repository = ModelRepository(server, settings, MODELS)
        router = Router(
            routes(server, repository, settings, disclosure),
            AnswerLog(clock, server.metrics),
            disclosure,
        )
        self.front = Front(
            router, Site(None), Limits.from_settings(settings), clock, server.metrics
        )
        self.connections = [self._connection() for _ in range(connections)]
        body = np.ones(64, np.float32).tobytes()
        head = (
            "POST /models/echo/predict HTTP/1.1\r\nHost: x\r\nContent-Type: "
            "application/octet-stream\r\n"
        )
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def round(self, batches: int) -> dict[str, float]:
        """Answer a request on every connection, `batches` times.

        Return the seconds of each stage.
        """
        spent = dict.fromkeys(STAGES, 0.0)
        for _ in range(batches):
            times = [perf_counter()]
            for connection in self.connections:
                connection.data_received(self.request)
            times.append(perf_counter())
            self.scheduler._pump_and_check()
            times.append(perf_counter())
            (held,) = self.worker.batches
            outcome = run_batch(self.checked, held[0], 0.0, perf_counter)
            times.append(perf_counter())
            self.worker.batches.clear()
            self.front.burst(self.scheduler.deliver, held[0], outcome)
            times.append(perf_counter())
            for stage, begin, end in zip(STAGES, times, times[1:], strict=False):
                spent[stage] += end - begin
        return spent

    def _connection(self) -> Connection:
        connection = self.front.connection()
        # the rest is not called here
        connection.connection_made(Discard())  # type: ignore[arg-type]
        return connection


if __name__ == "__main__":
    main()
