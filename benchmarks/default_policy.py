"""The default policy beside the best of simpler rules, simulated.

Models, where a batch of b rows takes beta + alpha * b, and a batch holds B rows:

    A    4 ms   + 0.25 ms * b    B = 32
    B    2 ms   + 0.02 ms * b    B = 64
    C    0.6 ms + 0.01 ms * b    B = 64

Open loads are Poisson, in parts of the rate in full batches. Closed loads are clients that each
wait for their answer and are back 0.1 ms later. A request costs the loop nothing, or 38 us, or 38
us times a factor that changes with every batch, as on a machine with other work. Several instances
of a model, each on a device of its own, have as much more to do under an open load.

| column | what |
|---|---|
| `mean / never`, `p99 / never` | latency over that of a policy that never waits |
| `mean / threshold` | mean latency over that of the best number of rows to wait for |
| `rate / never` | rows/s over those of a policy that never waits |
| `rate / wait` | rows/s over those of the best fixed wait after a batch |
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product, repeat
from statistics import fmean
from typing import Any

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.searching import search
from batcher.app.simulation.simulation import simulate
from benchmarks.reporting import write_results

MODELS = {
    "A": (AffineCost(4e-3, 0.25e-3), 32),
    "B": (AffineCost(2e-3, 0.02e-3), 64),
    "C": (AffineCost(0.6e-3, 0.01e-3), 64),
}
LOADS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
INSTANCES = (2, 4, 8)
CLIENTS = (8, 16, 32, 48, 64)
SEEDS = (1, 2, 3)
"""Of the requests to several instances: p99 of one run is known to some 5 % at high load."""

LOOPS = ((0.0, 0.0), (38e-6, 0.0), (38e-6, 0.3))
"""Seconds of the loop for each request, as measured over HTTP on two shared cores, and the
deviation of the logarithm of their factor.
"""

REMARKS = (
    "Models: A takes 4 ms + 0.25 ms a row in batches up to 32, B 2 ms + 0.02 ms and C 0.6 ms + "
    "0.01 ms in batches up to 64. Closed loads: so many clients, back 0.1 ms after their answers.",
    "`never`: the default with `max_delay_ms: 0`. `threshold`, `wait`: the best number of rows to "
    "wait for, and the best fixed wait after a batch, found by a search over each load.",
)


def main() -> None:
    """Simulate, write the results, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=TABLES)
    options = parser.parse_args()
    for table in options.tables:
        title, rows_of = TABLES[table]
        name = f"default_policy_{table}"
        print(write_results(name, title, list(rows_of(options.requests)), REMARKS))


def instances_rows(requests: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of open loads on several instances, by a process for each core.

    It is the largest of the tables: 55 million requests.
    """
    of_rows = list(product(MODELS, INSTANCES, LOADS))
    models, instances, loads = zip(*of_rows, strict=True)
    with ProcessPoolExecutor() as pool:
        yield from pool.map(instances_row, models, instances, loads, repeat(requests))


def open_rows(requests: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of open loads."""
    for model in MODELS:
        for load in LOADS:
            yield open_row(model, load, requests)


def closed_rows(requests: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of clients that wait for their answers."""
    for model in MODELS:
        for clients in CLIENTS:
            for loop in LOOPS:
                yield closed_row(model, clients, *loop, requests)


def scenario(
    model: str,
    load: str,
    requests: int,
    loop_cost: float = 0.0,
    loop_noise: float = 0.0,
    devices: int = 1,
) -> Scenario:
    """Return the scenario of a load; the half of the requests that comes first does not count."""
    cost, size = MODELS[model]
    return Scenario(
        cost=cost,
        load=read_load(load),
        settings={"max_batch_size": size},
        requests=requests * devices,
        devices=devices,
        noise=0.02,
        loop_cost=loop_cost,
        loop_noise=loop_noise,
        warmup=0.5,
    )


def open_row(model: str, load: float, requests: int) -> dict[str, Any]:
    """Return the row of an open load."""
    run = scenario(model, f"poisson:{load}", requests)
    default = simulate(run, read_candidate("eager"))
    never = simulate(run, read_candidate("eager:0ms"))
    best = search(run, "best-threshold", "early")
    return {
        "model": model,
        "load": load,
        "mean / never": round(default.latency.mean / never.latency.mean, 3),
        "p99 / never": round(default.latency.p99 / never.latency.p99, 3),
        "mean / threshold": round(default.latency.mean / best.latency.mean, 3),
        "threshold": best.policy.partition("=")[2],
    }


def instances_row(model: str, instances: int, load: float, requests: int) -> dict[str, Any]:
    """Return the row of an open load on several instances."""
    run = scenario(model, f"poisson:{load}", requests, devices=instances)
    runs = [replace(run, seed=seed) for seed in SEEDS]
    default = [simulate(run, read_candidate("eager")).latency for run in runs]
    never = [simulate(run, read_candidate("eager:0ms")).latency for run in runs]
    mean, p99 = fmean(each.mean for each in default), fmean(each.p99 for each in default)
    return {
        "model": model,
        "instances": instances,
        "load": load,
        "mean ms": round(mean * 1e3, 2),
        "p99 ms": round(p99 * 1e3, 2),
        "mean / never": round(mean / fmean(each.mean for each in never), 3),
        "p99 / never": round(p99 / fmean(each.p99 for each in never), 3),
    }


def closed_row(
    model: str, clients: int, loop_cost: float, loop_noise: float, requests: int
) -> dict[str, Any]:
    """Return the row of so many clients."""
    run = scenario(model, f"closed:{clients},think=0.1ms", requests, loop_cost, loop_noise)
    default = simulate(run, read_candidate("eager"))
    never = simulate(run, read_candidate("eager:0ms"))
    best = search(run, "best-fixed-wait", "early")
    return {
        "model": model,
        "clients": clients,
        "loop us": round(loop_cost * 1e6),
        "loop noise": loop_noise,
        "rows/batch": round(default.mean_batch, 1),
        "rate / never": round(default.answered / never.answered, 2),
        "rate / wait": round(default.answered / best.answered, 2),
        "wait": best.policy.partition("=")[2],
    }


TABLES = {
    "instances": (
        "The default policy with several instances, simulated: latency over no waits",
        instances_rows,
    ),
    "open": (
        "The default policy under open loads, simulated: latency over that of simpler rules",
        open_rows,
    ),
    "closed": (
        "The default policy with clients that wait for answers, simulated: rows/s over others",
        closed_rows,
    ),
}
"""Titles of the tables, and what makes their rows."""

if __name__ == "__main__":
    main()
