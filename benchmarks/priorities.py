"""What a low level gets beside a flood of the highest, and what a flood of bulk costs the others.

The model sleeps 10 ms a batch and 0.3 ms a row, in batches up to 32, so its capacity is 1,632
rows/s. Requests have one row and come over HTTP.

`shares`: clients of levels 1 and 3, together more than the device can serve, send their next
request whenever they have an answer. The clients are 4 to 1, as the weights of the levels are, so
both wait alike and ageing changes nothing. The answered rows should be 4 to 1, too.

`half load`: requests of level 1 come at random (Poisson) times at half of capacity, without and
with a flood of bulk from clients that send whenever they have an answer. The p99 of level 1 should
hardly rise.

Floods come from generators of their own. Runs without and with bulk alternate, and the table has
medians over the valid rounds. A run whose generator lagged its own schedule says nothing: the run
is left out and counted, and makes the exit status 3.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np

from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server

MODEL = "overload"
BATCH = 32
CAPACITY = BATCH / (10e-3 + 0.3e-3 * BATCH)
"""Rows/s that the model can do in full batches."""

CLIENTS = {"1": 8 * BATCH, "3": 2 * BATCH, "bulk": 8 * BATCH}
"""Clients of a flood by priority. Several batches of each flood always wait; the clients of the
levels are as the weights of the levels.
"""

WARMUP_S = 2.0
"""Seconds before measuring: longer than `bulk_after_ms`, after which a flood of bulk has no longer
the device to itself.
"""

MARGIN_S = 0.5
"""Seconds by which a flood begins earlier and ends later than the load measured beside the
flood.
"""

REMARKS = (
    f"Capacity is {CAPACITY:,.0f} rows/s. Times count from the schedule in `half load`, from "
    "sending in `shares`.",
    f"`shares`: closed loop, {CLIENTS['1']} clients of level 1 (weight 4) and {CLIENTS['3']} of "
    "level 3 (weight 1).",
    f"`half load`: level 1 at half of capacity, alone, or beside {CLIENTS['bulk']} clients of "
    "bulk.",
    "`left out`: rounds in which the generator lagged its own schedule (p99 above 2 ms).",
)


def main() -> int:
    """Measure, write the results, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run open loops under SCHED_FIFO (needs the privilege)",
    )
    options = parser.parse_args()
    found: dict[tuple[str, str], list[LoadResult]] = {}
    with running_server(MODELS, f"models.{MODEL}.max_batch_size={BATCH}") as address:
        url = f"{address}/models/{MODEL}/predict"
        for seed in range(options.rounds):
            for run in (
                shares(url, options),
                half_load(url, options, seed, False),
                half_load(url, options, seed, True),
            ):
                for who, result in run.items():
                    found.setdefault(who, []).append(result)
                    print(summary(who, [result]), result.invalid_reason or "", flush=True)
    rows = [summary(who, results) for who, results in found.items()]
    print(write_results("priorities", "Levels and bulk beside each other", rows, REMARKS))
    return report_invalid([result for results in found.values() for result in results])


def shares(url: str, options: argparse.Namespace) -> dict[tuple[str, str], LoadResult]:
    """Return what levels 1 and 3 get when both ask for more than there is."""
    loads = {("shares", level): flood(url, level, options.seconds) for level in ("1", "3")}
    return together(loads)


def half_load(
    url: str, options: argparse.Namespace, seed: int, with_bulk: bool
) -> dict[tuple[str, str], LoadResult]:
    """Return the results of level 1 at half of capacity, alone or with the flood of bulk beside."""
    own = LoadOptions(
        url=url,
        body=body(),
        headers=(("X-Priority", "1"),),
        rate=CAPACITY / 2,
        duration=options.seconds,
        warmup=WARMUP_S,
        seed=seed,
        realtime=options.realtime,
    )
    if not with_bulk:
        return together({("half load", "1, alone"): own})
    return together(
        {
            ("half load", "1, with bulk"): own,
            ("half load", "bulk"): flood(url, "bulk", options.seconds + MARGIN_S),
        }
    )


def flood(url: str, priority: str, seconds: float) -> LoadOptions:
    """Return the load of clients that send their next request whenever they have an answer."""
    headers = (("X-Priority", priority),)
    return LoadOptions(
        url=url,
        closed=True,
        body=body(),
        headers=headers,
        duration=seconds,
        warmup=WARMUP_S - MARGIN_S,
        connections=CLIENTS[priority],
    )


def body() -> bytes:
    """Return one row."""
    return np.random.default_rng(0).random(64, dtype=np.float32).tobytes()


def together(loads: dict[tuple[str, str], LoadOptions]) -> dict[tuple[str, str], LoadResult]:
    """Run all `loads` at the same time."""
    with ThreadPoolExecutor(len(loads)) as pool:
        return dict(zip(loads, pool.map(run_load, loads.values()), strict=True))


def summary(who: tuple[str, str], results: Sequence[LoadResult]) -> dict[str, Any]:
    """Return the medians over the valid results, or over all if no result is valid.

    The column `left out` tells which.
    """
    valid = [result for result in results if result.valid]
    rounds = valid or results
    return {
        "load": who[0],
        "priority": who[1],
        "200/s": median(result.achieved_rate_200 for result in rounds),
        "share of capacity": round(
            median(result.achieved_rate_200 for result in rounds) / CAPACITY, 3
        ),
        "p50 ms": median(result.latency_200_ms["p50"] for result in rounds),
        "p99 ms": median(result.latency_200_ms["p99"] for result in rounds),
        "errors": sum(result.scheduled - result.statuses.get("200", 0) for result in rounds),
        "left out": f"{len(results) - len(valid)} of {len(results)}",
    }


if __name__ == "__main__":
    sys.exit(main())
