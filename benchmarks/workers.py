"""What a batch takes from hand-over to result, in a thread and in a process of its own.

Batches of 64 rows of 784 floats, to a model that gives them back at once and to a model that takes
5 ms; one batch after the other, and with the next batch always handed over. The two workers take
turns, and the ratio is that of their best rounds.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from batcher import ModelSettings
from batcher.batching.batch import Batch
from batcher.batching.part import Part
from batcher.batching.worker import Worker
from batcher.config.model_file import ModelDefinition
from batcher.core.spec import ModelSpec, TensorSpec, datatype
from batcher.workers.making import make_workers
from benchmarks.reporting import write_results

ROWS, WIDTH = 64, 784


class Echo:
    """Takes no time."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give `x` back as `y`."""
        return {"y": inputs["x"]}


class FiveMilliseconds(Echo):
    """Takes 5 ms, as a device does: without the interpreter lock."""

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Give `x` back as `y`, later."""
        time.sleep(5e-3)
        return {"y": inputs["x"]}


class Bench:
    """A worker and the loop that it is called from."""

    def __init__(self, make: Callable[[Callable[..., object]], Worker]) -> None:
        """Start the worker that `make` makes, given the way back from threads."""
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self._worker = make(lambda function, *arguments: self._calls.put((function, arguments)))
        self._delivered = 0
        parts = [
            Part({"x": np.random.rand(1, WIDTH).astype(np.float32)}, 1, 4 * WIDTH, "", 1, 0.0, 0.0)
            for _ in range(ROWS)
        ]
        self._batch = Batch(parts)
        self._wait_for(self._worker.start(self._deliver, lambda condition, reason: None))
        time.sleep(3)  # a process makes its spare ready

    def round(self, batches: int, depth: int) -> float:
        """Return the mean seconds of a batch over `batches` of them, `depth` at a time."""
        began, target = time.perf_counter(), self._delivered + batches
        for _ in range(depth):
            self._worker.do(self._batch)
        handed = depth
        while self._delivered < target:
            before = self._delivered
            self._turn()
            for _ in range(min(self._delivered - before, batches - handed)):
                self._worker.do(self._batch)
                handed += 1
        return (time.perf_counter() - began) / batches

    def end(self) -> None:
        """End the worker."""
        self._wait_for(self._worker.quit())

    def _deliver(self, batch: Batch, outcome: Any) -> None:
        assert outcome.error is None
        self._delivered += 1

    def _wait_for(self, deferred: Deferred[Any]) -> None:
        while not deferred.called:
            self._turn()

    def _turn(self) -> None:
        function, arguments = self._calls.get()
        function(*arguments)


def benches(model: type[Echo]) -> tuple[Bench, Bench]:
    """Return `model` in a thread and in a process."""
    inputs, outputs = (TensorSpec(name, datatype("FP32"), (WIDTH,)) for name in "xy")
    folder = Path(__file__).parent
    spec = ModelSpec(model.__name__, "1", (inputs,), (outputs,))
    definition = ModelDefinition(
        spec, "python", folder, folder, f"benchmarks.workers:{model.__name__}"
    )
    settings, clock = ModelSettings(max_batch_size=ROWS), Clock()

    def ignore(text: str) -> None:
        """Drop what is reported while the model loads."""

    def bench(kind: str) -> Bench:
        """Return a bench of a worker of this kind."""
        own = settings.model_copy(update={"worker": kind})
        return Bench(lambda call: make_workers(definition, own, None, ignore, call, clock)[0])

    return bench("thread"), bench("process")


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batches", type=int, default=200, help="of each round")
    options = parser.parse_args()
    rows = []
    for model in (Echo, FiveMilliseconds):
        both = benches(model)
        for depth in (1, 2):
            rounds = [
                [bench.round(options.batches, depth) for bench in both]
                for _ in range(options.rounds)
            ]
            thread, process = (min(times) * 1e6 for times in zip(*rounds, strict=True))
            figures = {
                "thread µs": f"{thread:.0f}",
                "process µs": f"{process:.0f}",
                "process / thread": f"{process / thread:.3f}",
            }
            rows.append({"model": model.__name__, "handed over at a time": depth, **figures})
        for bench in both:
            bench.end()
    print(
        write_results(
            "workers",
            "A batch of 64 x 784 floats in a thread and in a process",
            rows,
            (__doc__.split("\n\n")[1],),
        )
    )


if __name__ == "__main__":
    main()
