"""The interpreter lock and the form of a model: throughput and tail of one network in every form.

A forward pass of many operators takes the interpreter lock for each operator, and beside the model
an event loop holds the lock nearly always. Each form of the network is served over HTTP at several
switch intervals. A switch interval is how long a thread may keep the lock that another thread
wants.

Servers alternate within a round, and the table has medians over the rounds. `echo` takes and gives
bodies of the same size and computes nothing.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import torch

from benchmarks.deep.deep import Deep
from benchmarks.reporting import ROOT, write_results
from benchmarks.serving import running_server
from benchmarks.wrk import Measured, require_wrk, run_wrk

FORMS = ("eager", "export", "torchscript", "aoti")
TENSORS = (
    "inputs: [{name: input, dtype: FP32, shape: [784]}]\noutputs: [{name: output, dtype: FP32, "
    "shape: [64]}]\n"
)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", nargs="*", default=list(FORMS), choices=FORMS)
    parser.add_argument("--intervals", nargs="*", type=float, default=[0.2, 1.0, 5.0], help="in ms")
    parser.add_argument("--connections", nargs="*", type=int, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--name", default="gil", help="of the result's files")
    options = parser.parse_args()
    require_wrk()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        print(
            write_results(
                options.name,
                "The interpreter lock: one deep network in every form",
                run(options, Path(folder), stack),
                REMARKS,
            )
        )


REMARKS = (
    "Linear(784, 64), then 50 times Linear(64, 64) and ReLU; one torch thread; client (wrk, closed "
    "loop), event loop and model share the cores.",
    "`of echo`: requests/s over those of `echo` at the same interval, median over the rounds of "
    "the ratio within a round. "
    "`off eager`: largest difference of an answer from that of the eager form.",
)


def run(options: argparse.Namespace, folder: Path, stack: ExitStack) -> list[dict[str, Any]]:
    """Return a row for each form, interval and number of connections."""
    rows = np.random.default_rng(0).random((8, 784), dtype=np.float32)
    servers = {}
    for form in ("echo", *options.forms):
        repository = make_repository(folder / form, form)
        for interval in options.intervals:
            settings = [f"switch_interval_ms={interval}", "defaults.torch_threads=1"]
            settings += ["defaults.compile=aoti"] if form == "aoti" else []
            address = stack.enter_context(running_server(repository, *settings))
            servers[form, interval] = f"{address}/models/deep/predict"
    with torch.inference_mode():
        expected = Deep().eval()(torch.from_numpy(rows)).numpy()
    off = {key: float(np.abs(answer(url, rows) - expected).max()) for key, url in servers.items()}
    table = []
    for connections in options.connections:
        rounds: list[dict[tuple[str, float], Measured]] = [
            {
                key: run_wrk(url, rows[0].tobytes(), connections, options.seconds)
                for key, url in servers.items()
            }
            for _ in range(options.rounds)
        ]
        table += [summary(key, connections, rounds, off[key]) for key in servers]
        print(*table[-len(servers) :], sep="\n", flush=True)
    return table


def summary(
    key: tuple[str, float],
    connections: int,
    rounds: list[dict[tuple[str, float], Measured]],
    off: float,
) -> dict[str, Any]:
    """Return the medians of one form at one interval."""
    form, interval = key
    p50, p99 = (median(getattr(found[key], name) for found in rounds) for name in ("p50", "p99"))
    return {
        "connections": connections,
        "form": form,
        "interval ms": interval,
        "requests/s": round(median(found[key].rate for found in rounds)),
        "p50 ms": p50,
        "p99 ms": p99,
        "p99/p50": round(p99 / p50, 2),
        "of echo": round(
            median(found[key].rate / found["echo", interval].rate for found in rounds), 3
        ),
        "off eager": "" if form == "echo" else f"{off:.1e}",
        "errors": sum(found[key].errors for found in rounds),
    }


def make_repository(folder: Path, form: str) -> Path:
    """Write the deep network, or the echo, as a model repository, and return its folder."""
    version = folder / "deep" / "1"
    version.mkdir(parents=True)
    module, batch = Deep().eval(), torch.zeros(2, 784)
    if form == "export":
        program = torch.export.export(
            module, (batch,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
        torch.export.save(program, version / "model.pt2")
        text = "format: export\nfile: model.pt2\n"
    elif form == "torchscript":
        torch.jit.script(module).save(str(version / "model.pt"))
        text = "format: torchscript\nfile: model.pt\n"
    else:
        name = "first" if form == "echo" else "deep"
        shutil.copy(ROOT / "benchmarks" / "deep" / f"{name}.py", version)
        text = f"format: python\nclass: {name}:{name.title()}\n"
    (version / "model.yaml").write_text(text + TENSORS)
    return folder


def answer(url: str, rows: np.ndarray) -> np.ndarray:
    """Return what `url` answers to `rows`."""
    request = Request(url, rows.tobytes(), {"Content-Type": "application/octet-stream"})
    with urlopen(request, timeout=20) as found:
        return np.frombuffer(found.read(), np.float32).reshape(len(rows), -1)


if __name__ == "__main__":
    main()
