"""What kept answers bring, and what they cost, in process.

- Rate: 64 requests are always on their way to a model that takes 2 ms a batch and 0.05 ms a row, in
  batches of 16. With the cache, four of five requests have inputs that were answered before.
- Costs: a stage alone, with inputs and outputs of 64 floats. A miss is what a request costs besides
  the hashing, over one that goes to the model without a cache. The best of many rounds, with the
  garbage collector as the server sets it.
- Memory: a million answers of 10 floats, beside the bytes that the setting allows.
- Reloads: 100,000 requests of 100 kinds, while the model is replaced again and again by one with
  other answers. A stale answer is one of a model that was replaced before the request was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor
from twisted.internet.task import Clock, deferLater

from batcher import ModelServer, ModelSettings, ServerSettings
from batcher.app.process_settings import leave_libraries, set_collector
from batcher.config.cache import Cache
from batcher.config.model_file import load_model_definition
from batcher.core.digests import Digests
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.local_store import LocalStore
from batcher.serving.stages.cache import CacheStage
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS

OUTSTANDING = 64
KNOWN_OF_FIVE = 4
KINDS = 100
RELOADED_REQUESTS = 100_000
RELOADS = 100
ENTRIES = 1_000_000
MODEL = """class Model:
    def predict(self, inputs):
        return {{"y": inputs["x"] * 0 + {generation}}}
"""
MODEL_FILE = """format: python
class: model:Model
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
"""


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each rate")
    parser.add_argument("--rounds", type=int, default=300, help="of each cost")
    options = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    leave_libraries()
    set_collector()
    costs = list(_costs(options.rounds))
    memory = _memory()
    server = ModelServer(reactor, loop.call_soon_threadsafe, ServerSettings(), None, _silent)
    found: dict[str, Any] = {}
    running = Deferred.fromCoroutine(_measured(server, options.seconds, found))
    running.addErrback(lambda failure: print(failure.getTraceback(), file=sys.stderr))
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
    rows = [*_rates(found), *costs, memory, *_reloads(found)]
    remarks = [each.strip().replace("\n  ", "\n") for each in __doc__.split("- ")[1:]]
    print(write_results("cache", "Kept answers: rates and costs", rows, remarks))


def _silent(title: str, text: str) -> None:
    pass


def _row(what: str, figure: float, form: str = "{:,.0f}") -> dict[str, str]:
    return {"what": what, "figure": form.format(figure)}


def _rates(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield _row("requests/s without a cache", found["without"])
    yield _row("requests/s, four of five kept", found["with"])
    yield _row("their ratio, at most 5", found["with"] / found["without"], "{:.2f}")


def _reloads(found: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield _row("requests under reloads", found["asked"])
    yield _row("of these, kept or joined", found["kept"])
    yield _row("reloads", found["reloads"])
    yield _row("stale answers", found["stale"])


async def _measured(server: ModelServer, seconds: float, found: dict[str, Any]) -> None:
    definition = load_model_definition("fixed_cost", "1", MODELS / "fixed_cost" / "1")
    for name, cache in (("without", None), ("with", Cache())):
        settings = ModelSettings(max_batch_size=16, cache=cache)
        adding = server.add if name == "without" else server.replace
        await adding(definition, settings)
        found[name] = await _rate(server, seconds)
    with tempfile.TemporaryDirectory() as folder:
        await _reloaded(server, Path(folder), found)
    await server.stop()


async def _rate(server: ModelServer, seconds: float) -> float:
    """Return how many requests a second are answered."""
    known = [np.full((1, 64), number, "<f4") for number in range(KINDS)]
    for inputs in known:
        await server.infer("fixed_cost", {"input": inputs})
    began, answered, number = time.perf_counter(), 0, 0

    async def ask() -> None:
        nonlocal answered, number
        while time.perf_counter() - began < seconds:
            number += 1
            fresh = number % 5 == KNOWN_OF_FIVE
            inputs = np.full((1, 64), -number, "<f4") if fresh else known[number % KINDS]
            await server.infer("fixed_cost", {"input": inputs})
            answered += 1

    asking = [Deferred.fromCoroutine(ask()) for _ in range(OUTSTANDING)]
    for each in asking:
        await each
    return answered / (time.perf_counter() - began)


async def _reloaded(server: ModelServer, folder: Path, found: dict[str, Any]) -> None:
    """Ask for kinds of inputs while the model is replaced."""
    settings = ModelSettings(max_batch_size=16, warmup=False, cache=Cache())
    generation = 0
    found.update(asked=0, kept=0, reloads=0, stale=0)

    def definition() -> Any:
        place = folder / str(generation)
        place.mkdir()
        (place / "model.py").write_text(MODEL.format(generation=generation))
        (place / "model.yaml").write_text(MODEL_FILE)
        return load_model_definition("m", "1", place)

    await server.add(definition(), settings)

    async def ask(first: int) -> None:
        for number in range(first, RELOADED_REQUESTS, OUTSTANDING):
            serving = generation
            response = await server.infer("m", {"x": np.full((1, 4), number % KINDS, "<f4")})
            if number % 10 == 0:  # kept answers are there at once, and the loop must turn
                await deferLater(server.clock, 0)
            found["asked"] += 1
            found["kept"] += response.origin != ""
            found["stale"] += float(response.outputs["y"][0, 0]) < serving

    asking = [Deferred.fromCoroutine(ask(first)) for first in range(OUTSTANDING)]
    for part in range(RELOADS):
        while found["asked"] < RELOADED_REQUESTS * part // RELOADS:
            await deferLater(server.clock, 0)
        generation += 1
        replacing = server.replace(definition(), settings)
        generation -= 1  # the earlier model answers until the new one is ready
        await replacing
        generation += 1
        found["reloads"] += 1
    for each in asking:
        await each


def _costs(rounds: int) -> Iterator[dict[str, str]]:
    definition = load_model_definition("fixed_cost", "1", MODELS / "fixed_cost" / "1")
    inputs = [{"input": np.full((1, 64), number, "<f4")} for number in range(OUTSTANDING)]
    digests = Digests("fixed_cost", "1")
    hashing = direct = missed = hit = float("inf")
    requests = [InferenceRequest("fixed_cost", "1", each, 1) for each in inputs]
    for _ in range(rounds):
        stage = CacheStage(Cache(), definition.spec, 2, lambda: 1.0, None, Clock(), CacheCounts())
        began = time.perf_counter()
        for each in inputs:
            digests.of(each)
        hashing = min(hashing, time.perf_counter() - began)
        direct = min(direct, _seconds(requests, lambda request, go_on: go_on(request)))
        missed = min(missed, _seconds(requests, stage.infer))
        hit = min(hit, _seconds(requests, stage.infer))
    count = OUTSTANDING / 1e6
    yield _row("us to hash the inputs", hashing / count, "{:.2f}")
    yield _row("us of a miss, besides", (missed - direct - hashing) / count, "{:.2f}")
    yield _row("us of a kept answer, hashing included", hit / count, "{:.2f}")
    yield _row("kept answers/s of the stage alone", OUTSTANDING / hit)


def _seconds(requests: list[InferenceRequest], infer: Any) -> float:
    """Return the time in which `infer` answers `requests`."""
    rows: list[tuple[Deferred[InferenceResponse], InferenceRequest]] = []

    def go_on(request: InferenceRequest) -> Deferred[InferenceResponse]:
        row: Deferred[InferenceResponse] = Deferred()
        rows.append((row, request))
        return row

    began = time.perf_counter()
    for request in requests:
        infer(request, go_on).addCallback(_done)
    for row, request in rows:
        outputs = {"output": request.inputs["input"]}
        row.callback(InferenceResponse("fixed_cost", "1", outputs, 0.0, 0.0, 1))
    return time.perf_counter() - began


def _done(response: InferenceResponse) -> None:
    pass


def _memory() -> dict[str, str]:
    """Return how much a million answers take, as a share of what the setting allows."""
    value = LocalStore.begin(1e9) + bytes(88)
    store = LocalStore(ENTRIES * 320)
    before = _resident()
    for number in range(ENTRIES + 100_000):
        key = blake2b(number.to_bytes(8, "little"), digest_size=16).digest()
        store.put(key, bytes(bytearray(value)))
    share = (_resident() - before) / (ENTRIES * 320)
    return _row(f"resident memory of {len(store):,} answers, of what is allowed", share, "{:.2f}")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
