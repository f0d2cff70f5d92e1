"""What a request costs that a Redis is asked about, beside a cache that asks none.

A stage alone, in front of a model that answers at once, beside a real `redis-server` on this
machine. Inputs and outputs have 64 floats, and every request has inputs of its own. Cost is
processor time of this process: the look, the answer that is sent to Redis, the turns of the loop.

- Together: 16 requests in one turn of the loop. Alone: one in its turn.
- Away: nobody listens at the address of the Redis.
- Hits: another stage finds what the stage before has sent.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final, NamedTuple

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.main import installReactor
from twisted.internet.task import deferLater

from batcher.config.cache import Cache
from batcher.config.model_file import load_model_definition
from batcher.core.request import InferenceRequest, InferenceResponse
from batcher.serving.cache_metrics import CacheCounts
from batcher.serving.caching.redis.answers import RedisAnswers
from batcher.serving.caching.redis.link import RedisLink, connector
from batcher.serving.caching.redis.store import RedisStore
from batcher.serving.stages.cache import CacheStage
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS

TOGETHER: Final = 16

Infer = Callable[[InferenceRequest], Deferred[InferenceResponse]]


class Cost(NamedTuple):
    """What requests cost, each in microseconds.

    Attributes:
        together: of processor time, where 16 come in one turn.
        alone: of processor time, of one that comes alone.
        waits: until the answer of one that comes alone.
    """

    together: float
    alone: float
    waits: float


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000, help="of 17 requests")
    options = parser.parse_args()
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    rows: list[dict[str, str]] = []
    running = Deferred.fromCoroutine(_measured(Asking(reactor, options.rounds), rows))
    running.addErrback(lambda failure: print(failure.getTraceback(), file=sys.stderr))
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
    if rows:
        remarks = [" ".join(each.split()) for each in __doc__.split("\n\n", 1)[1].split("\n- ")]
        print(write_results("cache_redis", "A cache that asks a Redis", rows, remarks))


async def _measured(asking: Asking, rows: list[dict[str, str]]) -> None:
    with redis_server() as port:
        shared = f"redis://127.0.0.1:{port}"
        local = asking.stage("local")
        alone = await asking.cost(lambda request: local.infer(request, answer))
        missed = await asking.cost(await asking.connected(shared))
        found = await asking.cost(await asking.connected(shared))
    if asking.looks["hit"] < 0.9 * asking.rounds * (TOGETHER + 1):
        raise SystemExit(f"expected answers from Redis; got {dict(asking.looks)}")
    stage = asking.stage(shared)  # nobody listens any more
    away = await asking.cost(lambda request: stage.infer(request, answer))
    costs = {"no Redis": alone, "a miss": missed, "a hit": found, "Redis away": away}
    for what, cost in costs.items():
        figures = {name: f"{value:.1f}" for name, value in cost._asdict().items()}
        rows.append({"us of a request": what, **figures})
    outcomes = ", ".join(f"{count:,} {what}" for what, count in sorted(asking.looks.items()))
    rows.append({"us of a request": f"looks: {outcomes}", "together": "", "alone": "", "waits": ""})


@contextmanager
def redis_server() -> Iterator[int]:
    """Run a `redis-server` that keeps nothing on the disk; yield its port."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("expected redis-server; on Debian: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            process.terminate()
            process.wait()


class Asking:
    """Requests, each with inputs of its own, through one stage after another.

    Attributes:
        rounds: of 16 requests together and one alone.
        looks: looks into Redis by their outcome.
    """

    def __init__(self, reactor: Any, rounds: int) -> None:
        """Ask stages on `reactor`."""
        self._reactor, self.rounds = reactor, rounds
        self._spec = load_model_definition("fixed_cost", "1", MODELS / "fixed_cost" / "1").spec
        self._counts = CacheCounts()
        self.looks = self._counts.redis.looks

    def stage(self, store: str) -> CacheStage:
        """Return a stage that has kept nothing yet."""
        settings, clock, counts = Cache(store=store), self._reactor, self._counts
        shared, address = None, settings.redis
        if address is not None:
            link = RedisLink(address, clock, connector(address, clock))
            asked = RedisStore(link, clock, counts.redis, "fixed_cost/1", address.place)
            shared = RedisAnswers(settings, (), self._spec, succeed(b"files"), asked, counts)
        pool: Any = None  # inputs and outputs are small
        deadline = self._deadline
        return CacheStage(settings, self._spec, 2, deadline, pool, clock, counts, shared)

    def _deadline(self) -> float:
        return float(self._reactor.seconds()) + 30.0

    async def cost(self, infer: Infer) -> Cost:
        """Return what requests cost that `infer` answers."""
        requests = [_request(number) for number in range(self.rounds * (TOGETHER + 1))]
        many, single = requests[: -self.rounds], requests[-self.rounds :]
        began = process_time()
        for place in range(0, len(many), TOGETHER):
            await DeferredList([infer(each) for each in many[place : place + TOGETHER]])
            await deferLater(self._reactor, 0)
        together, waits = (process_time() - began) / len(many), []
        began = process_time()
        for each in single:
            at = perf_counter()
            await infer(each)
            waits.append(perf_counter() - at)
            await deferLater(self._reactor, 0)
        alone = (process_time() - began) / len(single)
        return Cost(together * 1e6, alone * 1e6, median(waits) * 1e6)

    async def connected(self, store: str) -> Infer:
        """Return how a new stage answers, once it has its connection."""
        stage, number, before = self.stage(store), -1, self.looks["miss"]
        while self.looks["miss"] == before:
            number -= 1
            await stage.infer(_request(number), answer)
            await deferLater(self._reactor, 0.01)
        return lambda request: stage.infer(request, answer)


def _request(number: int) -> InferenceRequest:
    inputs = {"input": np.full((1, 64), number, "<f4")}
    return InferenceRequest("fixed_cost", "1", inputs, 1)


def answer(request: InferenceRequest) -> Deferred[InferenceResponse]:
    """Answer as a model that takes no time."""
    outputs = {"output": request.inputs["input"]}
    return succeed(InferenceResponse("fixed_cost", "1", outputs, 0.0, 0.0, 1))


if __name__ == "__main__":
    main()
