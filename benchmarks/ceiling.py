"""How much of the ceiling is served: rows/s through the server beside a bare loop.

The ceiling is the same model, called in a bare loop with full batches. Each round measures three
things: the bare loop, requests in process that keep the queue full, and HTTP from a process of its
own. The table has medians over the rounds, and ratios to the bare loop of the same round.

In process the server must lose next to nothing: the worker may not stand idle while a finished
batch travels back and the next batch is decided.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor

from batcher import ModelServer, ModelSettings, ServerSettings
from batcher.app.process_settings import set_switch_interval
from benchmarks.bare import bare_rate, example_row, load
from benchmarks.load import LoadOptions, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server

BATCH = 64
OUTSTANDING = 4 * BATCH
"""Requests that are on their way in process, so that the queue always holds more than a batch."""


class Saturation:
    """Submits single rows in process; each answer is followed at once by the next request."""

    def __init__(self, server: ModelServer, name: str, row: dict[str, Any]) -> None:
        """Send `row` to the model `name` of `server`."""
        self._server = server
        self._name = name
        self._row = row
        self._running = False
        self._outstanding = 0
        self.answered = 0

    async def rate(self, seconds: float) -> float:
        """Return the rows/s served over `seconds`, after a tenth of that to fill the queue."""
        self._running = True
        for _ in range(OUTSTANDING):
            self._submit(None)
        await asyncio.sleep(seconds / 10)
        before, began = self.answered, time.perf_counter()
        await asyncio.sleep(seconds)
        rate = (self.answered - before) / (time.perf_counter() - began)
        self._running = False
        while self._outstanding:
            await asyncio.sleep(0.01)
        return rate

    def _submit(self, _: object) -> None:
        if self._running:
            self._outstanding += 1
            self._server.infer(self._name, self._row).addCallback(self._done)

    def _done(self, _: object) -> None:
        self._outstanding -= 1
        self.answered += 1
        self._submit(None)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models",
        nargs="*",
        default=["fixed_cost", "mlp", "echo"],
        help="folders of benchmarks/models",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    rows: list[dict[str, Any]] = []

    async def measure_all() -> None:
        for name in options.models:
            row = await measure(name, options.rounds, options.seconds, reactor, loop)
            rows.append(row)

    measured = Deferred.fromFuture(asyncio.ensure_future(measure_all(), loop=loop))
    measured.addErrback(lambda failure: failure.printTraceback())
    measured.addBoth(lambda _: reactor.stop())
    reactor.run()
    print(
        write_results(
            "ceiling",
            "Served rows/s against the model in a bare loop, batches of 64",
            rows,
            REMARKS,
        )
    )


REMARKS = (
    "`bare`: `predict` alone with 64 rows, on a thread of its own. `in process`: single rows by "
    f"`ModelServer.infer`, {OUTSTANDING} on their way. `http`: single rows from 256 closed-loop "
    "connections, client and server on the same cores.",
    "Ratios are medians over the rounds of the ratio within a round.",
)


async def measure(
    name: str, rounds: int, seconds: float, reactor: Any, loop: Any
) -> dict[str, Any]:
    """Return the row of the model `name`."""
    definition, checked = load(MODELS / name, BATCH)
    row = example_row(definition)
    server = ModelServer(reactor, loop.call_soon_threadsafe)
    await server.add(definition, ModelSettings(max_batch_size=BATCH, torch_threads=1)).asFuture(
        loop
    )
    set_switch_interval(ServerSettings(), server)
    body = b"".join(array.tobytes() for array in row.values())
    samples: dict[str, list[float]] = {"bare": [], "in process": [], "http": []}
    with running_server(MODELS) as address:
        target = LoadOptions(
            url=f"{address}/models/{name}/predict",
            body=body,
            headers=(("Content-Type", "application/octet-stream"),),
            closed=True,
            connections=256,
            duration=seconds,
            warmup=seconds / 4,
        )
        for _ in range(rounds):
            samples["bare"].append(
                await loop.run_in_executor(None, bare_rate, checked, row, BATCH, seconds)
            )
            samples["in process"].append(await Saturation(server, name, row).rate(seconds))
            result = await loop.run_in_executor(None, run_load, target)
            samples["http"].append(result.achieved_rate_200)
    await server.stop().asFuture(loop)
    medians = {f"{way} rows/s": median(values) for way, values in samples.items()}
    ratios = {f"{way} ratio": round(of_bare(samples, way), 3) for way in ("in process", "http")}
    return {"model": name, **medians, **ratios}


def of_bare(samples: dict[str, list[float]], way: str) -> float:
    """Return the median over the rounds of a rate as a share of the bare loop's."""
    return median(rate / bare for rate, bare in zip(samples[way], samples["bare"], strict=True))


if __name__ == "__main__":
    main()
