"""Rows/s of one and of four actors of Ray, for a model of 20 ms.

The cluster is one node on this machine, with room for four actors. The model sleeps, so the actors
share the cores without harm to each other: what is measured is whether the server keeps them all
busy. wrk has 16 requests in flight for each actor and a batch has 4 rows, so that there is always a
next batch. One actor and four take turns; each row of the table has the median of its rounds.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.reporting import write_results
from benchmarks.serving import server_process
from benchmarks.wrk import OCTETS, Measured, require_wrk, run_wrk

ACTORS = 4
BATCH_ROWS = 4
IN_FLIGHT = 4 * BATCH_ROWS
"""Requests in flight for each actor: of the batch that runs, of the next, and as many more."""

MODEL = """
import time


class Model:
    def predict(self, inputs):
        time.sleep(0.02)
        return {"y": inputs["x"]}
"""

DEFINITION = """
format: python
class: code:Model
inputs: [{name: x, dtype: FP32, shape: [784]}]
outputs: [{name: y, dtype: FP32, shape: [784]}]
"""


@contextmanager
def cluster() -> Iterator[str]:
    """Yield the address of a cluster of one node."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": ACTORS, "object_store_memory": 80 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        yield made.address
    finally:
        made.shutdown()


def written(folder: Path) -> Path:
    """Write the model into a repository in `folder`, and return the repository."""
    version = folder / "sleep" / "1"
    version.mkdir(parents=True)
    (version / "code.py").write_text(MODEL)
    (version / "model.yaml").write_text(DEFINITION)
    return folder


def measured(models: Path, instances: int, seconds: int, worker: str) -> Measured:
    """Return what wrk measured on so many instances."""
    body = np.zeros(784, np.float32).tobytes()
    settings = {"worker": worker, "instances": instances, "max_batch_size": BATCH_ROWS}
    pairs = [f"defaults.{name}={value}" for name, value in settings.items()]
    with server_process(models, *pairs) as server:
        url = f"{server.http}/models/sleep/predict"
        run_wrk(url, body, IN_FLIGHT * instances, 1, OCTETS)
        return run_wrk(url, body, IN_FLIGHT * instances, seconds, OCTETS)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    options = parser.parse_args()
    require_wrk()
    kinds = [("thread", 1), ("ray", 1), ("ray", ACTORS)]
    found: dict[tuple[str, int], list[Measured]] = {kind: [] for kind in kinds}
    with cluster() as address, TemporaryDirectory() as folder:
        os.environ["RAY_ADDRESS"] = address
        models = written(Path(folder))
        for _ in range(options.rounds):
            for (worker, instances), ones in found.items():
                ones.append(measured(models, instances, options.seconds, worker))
    base = median(one.rate for one in found["ray", 1])
    rows = [row(kind, ones, base) for kind, ones in found.items()]
    print(write_results("ray_actors", "Actors of Ray, for a model of 20 ms", rows))


def row(kind: tuple[str, int], ones: list[Measured], base: float) -> dict[str, Any]:
    """Return the row of one worker and number of instances; `base` is the rate of one actor."""
    rate = median(one.rate for one in ones)
    return {
        "worker": kind[0],
        "instances": kind[1],
        "rows/s": round(rate),
        "p50 ms": round(median(one.p50 for one in ones), 1),
        "p99 ms": round(median(one.p99 for one in ones), 1),
        "times one actor": round(rate / base, 2),
        "errors": sum(one.errors for one in ones),
    }


if __name__ == "__main__":
    main()
