"""What pipelines cost and bring: a cascade, a step, steps over HTTP, batches of a second step.

`cascade`: 64 clients send scans of digits, one a request, to the large network of
`examples/cascade` alone and to the cascade, in one process. `step`: 64 clients send rows to a model
that does nothing, directly and through pipelines of one and of four such steps; a step is the time
that the pipeline takes longer, its model's own time left out. `over HTTP`: wrk with 32 connections
asks a pipeline of three such steps, the three models in turn, and one of them alone, whose batches
are three times as large; three calls answer one request. `batches`: 32 clients send rows to a model
that takes 2 ms a batch, alone and as the second step behind one that takes as long.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import asyncio
import runpy
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from twisted.internet import asyncioreactor

from batcher import ModelServer, ModelSettings, ServerSettings, load_model_definition
from batcher.app.process_settings import set_collector, set_switch_interval
from batcher.core.spec import Array
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, ROOT, running_server
from benchmarks.wrk import require_wrk, run_wrk

CASCADE = ROOT / "examples" / "cascade"
SETTINGS = ModelSettings(device="cpu", torch_threads=1)

Inputs = list[Mapping[str, Array]]


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    require_wrk()
    loop = asyncio.new_event_loop()
    asyncioreactor.install(loop)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(loop, Path(folder), options.seconds)
        bench.load()
        set_collector()
        set_switch_interval(ServerSettings(), bench.server)
        rounds = [bench.round() for _ in range(options.rounds)]
        rows = [
            *bench.cascade(rounds),
            *bench.step(rounds),
            *bench.batches(rounds),
            *bench.over_http(options.rounds),
        ]
    remarks = (__doc__.split("\n\n")[1].replace("\n", " "), "Medians of the rounds.")
    print(write_results("pipelines", "Pipelines: a cascade, and what steps cost", rows, remarks))


def row(what: str, value: str, limit: str) -> dict[str, str]:
    """Return a row of the table."""
    return {"what": what, "measured": value, "wanted": limit}


def chain(model: str, steps: int) -> str:
    """Return the `model.yaml` of a pipeline that asks `model` as often as it has `steps`."""
    lines = ["format: pipeline", "inputs: [{name: input, dtype: FP32, shape: [64]}]"]
    last = f"s{steps - 1}.output"
    lines.append(f"outputs: [{{name: output, dtype: FP32, shape: [64], from: {last}}}]\nsteps:")
    names = ["input", *(f"s{index}.output" for index in range(steps))]
    lines += [
        f"  - {{name: s{index}, model: {model}{index}, inputs: {{input: {names[index]}}}}}"
        for index in range(steps)
    ]
    return "\n".join(lines)


class Bench:
    """A server in this process, and clients beside it on the same loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, seconds: float) -> None:
        """Measure each run for `seconds`; write pipelines into `folder`."""
        from twisted.internet import reactor

        self.loop, self.folder, self.seconds = loop, folder, seconds
        clock: Any = reactor
        clock.startRunning()
        self.server = ModelServer(clock, loop.call_soon_threadsafe, call_soon=loop.call_soon)
        random = np.random.default_rng(0)
        self.row: Inputs = [{"input": random.random((1, 64)).astype("<f4")}]

    def load(self) -> None:
        """Load all models."""
        if not (CASCADE / "models" / "digits_large" / "1" / "model.pt").exists():
            subprocess.run([sys.executable, str(CASCADE / "train.py")], check=True)
        parts = runpy.run_path(str(CASCADE / "train.py"))["scans"]()
        images, self.wanted = parts[1].numpy(), parts[3].numpy()
        self.scans: Inputs = [{"image": image[np.newaxis]} for image in images]
        self.all_scans = {"image": images}
        names = ("digits_small", "digits_large", "digits_cascade")
        self._add({name: CASCADE / "models" / name / "1" for name in names})
        self._add({f"echo{index}": MODELS / "echo" / "1" for index in range(4)})
        self._add({f"cost{index}": MODELS / "fixed_cost" / "1" for index in range(2)})
        self._add({"alone": MODELS / "fixed_cost" / "1"})
        for name, model, steps in (("one", "echo", 1), ("four", "echo", 4), ("two", "cost", 2)):
            (self.folder / name).mkdir()
            (self.folder / name / "model.yaml").write_text(chain(model, steps))
            self._add({name: self.folder / name})

    def _add(self, models: dict[str, Path]) -> None:
        for name, folder in models.items():
            definition = load_model_definition(name, "1", folder)
            self._wait(self.server.add(definition, SETTINGS))

    def _wait(self, deferred: Any) -> Any:
        return self.loop.run_until_complete(deferred.asFuture(self.loop))

    def rate(self, model: str, inputs: Inputs, clients: int) -> float:
        """Return the requests/s of so many clients, each with one request on its way."""
        done, answered, ended = self.loop.create_future(), 0, 0
        until, begun = perf_counter() + self.seconds, perf_counter()

        def came(_: object, client: int) -> None:
            nonlocal answered, ended
            answered += 1
            if perf_counter() < until:
                ask(client)
                return
            ended += 1
            if ended == clients:
                done.set_result(None)

        def ask(client: int) -> None:
            chosen = inputs[(answered + client) % len(inputs)]
            self.server.infer(model, chosen).addCallback(came, client)

        for client in range(clients):
            ask(client)
        self.loop.run_until_complete(done)
        return answered / (perf_counter() - begun)

    def batch(self, model: str, run: Callable[[], object]) -> float:
        """Return the mean rows of the batches of `model` in a run."""
        sizes = self.server.metrics.model(model, "1").batch_size
        rows, count = sizes.total, sizes.count
        run()
        return (sizes.total - rows) / max(sizes.count - count, 1)

    def round(self) -> dict[str, float]:
        """Measure everything in this process once."""
        found = {
            "large": self.rate("digits_large", self.scans, 64),
            "cascade": self.rate("digits_cascade", self.scans, 64),
        }
        for name, model in (("direct", "echo0"), ("one", "one"), ("four", "four")):
            found[name] = 1e6 / self.rate(model, self.row, 64)
        found["alone"] = self.batch("alone", lambda: self.rate("alone", self.row, 32))
        found["second"] = self.batch("cost1", lambda: self.rate("two", self.row, 32))
        return found

    def cascade(self, rounds: list[dict[str, float]]) -> list[dict[str, str]]:
        """Return what the cascade brings, and costs in accuracy."""
        right = {}
        for name in ("digits_large", "digits_cascade"):
            scores = self._wait(self.server.infer(name, self.all_scans)).outputs["scores"]
            right[name] = float((scores.argmax(1) == self.wanted).mean()) * 100
        lost = right["digits_large"] - right["digits_cascade"]
        counts = self.server.metrics.pipelines.of("digits_cascade", "1").of("large")
        share = counts.run / (counts.run + counts.skipped)
        times = median([each["cascade"] / each["large"] for each in rounds])
        large = median([each["large"] for each in rounds])
        return [
            row("rows/s of the large network alone", f"{large:,.0f}", ""),
            row("rows/s of the cascade over that", f"{times:.2f}", "at least 1.5"),
            row("rows that the large network gets", f"{share:.1%}", ""),
            row("right: the large network", f"{right['digits_large']:.2f} %", ""),
            row("points of accuracy lost by the cascade", f"{lost:.2f}", "at most 0.3"),
        ]

    def step(self, rounds: list[dict[str, float]]) -> list[dict[str, str]]:
        """Return what a step costs over a direct call."""
        one = median([each["one"] - each["direct"] for each in rounds])
        four = median([(each["four"] - 4 * each["direct"]) / 4 for each in rounds])
        direct = median([each["direct"] for each in rounds])
        return [
            row("a direct call, us", f"{direct:.1f}", ""),
            row("a pipeline of one step over a direct call, us", f"{one:.1f}", "at most 60"),
            row("each of four steps over a direct call, us", f"{four:.1f}", "at most 60"),
        ]

    def batches(self, rounds: list[dict[str, float]]) -> list[dict[str, str]]:
        """Return how full the batches of a second step are."""
        alone = median([each["alone"] for each in rounds])
        ratio = median([each["second"] / each["alone"] for each in rounds])
        return [
            row("rows of a batch of a model alone, 32 clients", f"{alone:.1f}", ""),
            row("rows of a batch of the second step over that", f"{ratio:.2f}", "at least 0.8"),
        ]

    def over_http(self, rounds: int) -> list[dict[str, str]]:
        """Return the rate of a pipeline over that of its steps as separate calls."""
        repository = self.folder / "repository"
        for index in range(3):
            shutil.copytree(MODELS / "echo", repository / f"echo{index}")
        (repository / "chain").mkdir()
        (repository / "chain" / "model.yaml").write_text(chain("echo", 3))
        body, seconds = self.row[0]["input"].tobytes(), max(1, round(self.seconds))
        with running_server(repository) as url:
            paths = [f"/models/echo{index}/predict" for index in range(3)]
            rates = [
                tuple(
                    run_wrk(url, body, 32, seconds, paths=each).rate
                    for each in (["/models/chain/predict"], paths, paths[:1])
                )
                for _ in range(rounds)
            ]
        called = median([chained for chained, _, _ in rates])
        times = median([3 * chained / calls for chained, calls, _ in rates])
        alone = median([3 * chained / calls for chained, _, calls in rates])
        return [
            row("requests/s of three steps over HTTP", f"{called:,.0f}", ""),
            row("over three separate calls", f"{times:.2f}", "at least 2"),
            row("over three separate calls of one and the same model", f"{alone:.2f}", ""),
        ]


if __name__ == "__main__":
    main()
