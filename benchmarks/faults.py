"""What faults of one model cost itself and another one of the same server.

Two models stand in one server, the `victim` and the `other`. Both sleep, so that cores do not
matter, in batches up to 64 rows:

    seconds of a batch = 0.010 + 0.0003 * rows
    capacity           = 64 / (0.010 + 0.0003 * 64) = 2,192 rows/s

The `other` is asked for half of that, one row a request, in an open loop at random (Poisson) times.
The first value of a row tells the victim how to fail (`models/faulty`). Two kinds of faults need
two kinds of load:

| fault | load of the victim |
|---|---|
| the batch raises, in a thread | a closed loop of 256 clients, so that batches are full |
| the process hangs or ends | an open loop at half of capacity, and a row at fault every 1.25 s |

The second load is open because clients of a closed loop would ask for less while the process is
away. Clients that send healthy rows are called innocent. The other's throughput and p99 are ratios
to those beside a healthy victim under the same load.

Cases alternate within a round, and the table has medians over the valid rounds. A run whose
generator lagged its own schedule says nothing: the run is left out and counted, and makes the exit
status 3.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server

BATCH = 64
CAPACITY = BATCH / (10e-3 + 0.3e-3 * BATCH)
"""Rows/s that each of the models can do in full batches."""

HEALTHY, RAISES, HANGS, CRASHES, LOSES_ROW, GIVES_NAN = range(6)
"""The first value of a row, for `models/faulty`."""

CLIENTS = 4 * BATCH
"""Clients of the closed loop: while one batch is searched for the row at fault, others are full."""

POISONED = 24
"""Clients that send rows at fault where every batch is to have one such row. Their requests wait
longer than others, so more than one in 64 is needed.
"""

FAULTS_PER_S = 0.8
"""Rows at fault a second in the open loop: the victim hangs for 1 s, is loaded again, and serves
for a while.
"""

CONNECTIONS = 2048
"""Connections of an open loop: more than requests come while the victim hangs and is loaded."""

WARMUP_S = 0.5
"""Seconds before the other is measured, in which the victim has its load already."""

MARGIN_S = 0.25
"""Seconds by which the victim's load is longer than what is measured beside the victim."""

SPARE_START_S = 2.5
"""Seconds in which a spare process imports PyTorch, after the start and after each end of a
process. No case is measured meanwhile.
"""

RERUNS = ("isolate", "retry", "memory")
"""Flush reasons of batches that are not fresh."""

FAILED = "failed"
"""Key of the number of batches that failed, beside the keys of flush reasons."""


class Case(NamedTuple):
    """What the victim has to bear.

    Attributes:
        name: name of the case.
        victim: model that is the victim; empty if there is none.
        fault: first value of the rows at fault.
        faulty: clients of the closed loop that send rows at fault; 0 stands for the open loop.
        beside: name of the case of the same load whose victim is healthy.
    """

    name: str
    victim: str
    fault: int
    faulty: int
    beside: str = "healthy"


CASES = (
    Case("healthy", "victim", HEALTHY, POISONED),
    Case("absent", "", HEALTHY, 0),
    Case("one poisoned client", "victim", RAISES, 1),
    Case("poisoned", "victim", RAISES, POISONED),
    Case("poisoned, `isolate: false`", "unisolated", RAISES, CLIENTS // BATCH),
    Case("broken", "victim", RAISES, CLIENTS),
    Case("broken, `isolate: false`", "unisolated", RAISES, CLIENTS),
    Case("63 rows for 64", "victim", LOSES_ROW, POISONED),
    Case("NaN, `finite_outputs`", "finite", GIVES_NAN, CLIENTS // BATCH),
    Case("healthy, process", "process", HEALTHY, 0, "healthy, process"),
    Case("hanging, process", "process", HANGS, 0, "healthy, process"),
    Case("crashing, process", "process", CRASHES, 0, "healthy, process"),
)

VICTIMS = ("victim", "unisolated", "finite", "process")
SETTINGS = (
    f"load_at_start=[other, {', '.join(VICTIMS)}]",
    f"models.other.path={MODELS / 'faulty'}",
    *(f"models.{victim}.path={MODELS / 'faulty'}" for victim in VICTIMS),
    f"defaults.max_batch_size={BATCH}",
    "models.unisolated.isolate=false",
    "models.finite.finite_outputs=true",
    "models.process.worker=process",
    "models.process.watchdog_s=1",
)

REMARKS = (
    f"Capacity is {CAPACITY:,.0f} rows/s for each model. The other: open loop at half of it; "
    "ratios are to what it has beside the healthy victim under the same load (`healthy, process` "
    "for processes).",
    f"The victim: {CLIENTS} clients in a closed loop. `poisoned`, `63 rows for 64`: {POISONED} of "
    "them send rows at fault, about one in each fresh batch. Where nothing is run again "
    f"{CLIENTS // BATCH} do, one in {BATCH}; of a `broken` one all.",
    "A process: an open loop at half of capacity, and a row at fault every "
    f"{1 / FAULTS_PER_S:g} s, with `watchdog_s: 1`.",
    "The victim's counts are sums over the rounds, and include the other's warm-up. `timeout`: no "
    "answer within 5 s. Where nothing of a batch has run within 14 runs, what is left of it fails "
    "together.",
    "`innocent failed`: requests without a row at fault that were not answered with 200. "
    "`guilty`: those with one.",
    "`runs again`: batches that were not fresh, for each fresh one with a row at fault (the lesser "
    "of such rows and of fresh batches); one at fault needs 12. `failed runs` are "
    "`batcher_failed_batches_total`.",
    "`left out`: rounds in which the generator lagged its own schedule (p99 above 2 ms).",
)


class Round(NamedTuple):
    """What one round of a case found.

    Attributes:
        other: load of the model beside the victim.
        innocent: the victim's requests without a row at fault; None if there are none.
        guilty: the victim's requests with a row at fault; None if there are none.
        batches: batches that the victim ran by flush reason, and how many of them `FAILED`.
    """

    other: LoadResult
    innocent: LoadResult | None
    guilty: LoadResult | None
    batches: Counter[str]


def main() -> int:
    """Measure, write the results, print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.25, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run open loops under SCHED_FIFO (needs the privilege)",
    )
    options = parser.parse_args()
    found: dict[str, list[Round]] = {case.name: [] for case in CASES}
    with running_server(MODELS, *SETTINGS) as address:
        time.sleep(SPARE_START_S)
        for seed in range(options.rounds):
            for case in CASES:
                found[case.name].append(measure(address, case, options, seed))
                print(summary(case, found[case.name][-1:], found[case.beside][-1:]), flush=True)
                if case.fault in (HANGS, CRASHES):
                    await_ready(address)
                    time.sleep(SPARE_START_S)
    rows = [summary(case, found[case.name], found[case.beside]) for case in CASES]
    print(
        write_results("faults", "What faults of one model cost itself and another", rows, REMARKS)
    )
    return report_invalid([result.other for rounds in found.values() for result in rounds])


def await_ready(address: str) -> None:
    """Wait until every model serves again."""
    while True:
        try:
            urlopen(f"{address}/readyz", timeout=20).close()
            return
        except HTTPError as err:
            err.close()
        time.sleep(0.1)


def measure(address: str, case: Case, options: argparse.Namespace, seed: int) -> Round:
    """Run one round of `case`: the other's load and the victim's at the same time."""
    loads = loads_of(address, case, options, seed)
    before = batches_run(read_metrics(address), case.victim)
    with ThreadPoolExecutor(len(loads)) as pool:
        results = dict(zip(loads, pool.map(run_load, loads.values()), strict=True))
    batches = batches_run(read_metrics(address), case.victim)
    batches.subtract(before)
    return Round(results["other"], results.get("innocent"), results.get("guilty"), batches)


def loads_of(
    address: str, case: Case, options: argparse.Namespace, seed: int
) -> dict[str, LoadOptions]:
    """Return the load of the other, and the victim's loads without and with rows at fault."""

    def load(model: str, value: int, warmup: float, seconds: float, **how: Any) -> LoadOptions:
        url = f"{address}/models/{model}/predict"
        return LoadOptions(url, body=row(value), warmup=warmup, duration=seconds, **how)

    at_half = {
        "rate": CAPACITY / 2,
        "connections": CONNECTIONS,
        "seed": seed,
        "realtime": options.realtime,
    }
    loads = {"other": load("other", HEALTHY, WARMUP_S, options.seconds, **at_half)}
    seconds = WARMUP_S + options.seconds + MARGIN_S
    if case.faulty:
        loads["guilty"] = load(
            case.victim, case.fault, 0, seconds, closed=True, connections=case.faulty
        )
        if case.faulty < CLIENTS:
            loads["innocent"] = load(
                case.victim, HEALTHY, 0, seconds, closed=True, connections=CLIENTS - case.faulty
            )
    elif case.victim:
        loads["guilty"] = load(
            case.victim,
            case.fault,
            0,
            seconds,
            schedule="constant",
            rate=FAULTS_PER_S,
            connections=16,
        )
        loads["innocent"] = load(case.victim, HEALTHY, 0, seconds, **at_half)
    return loads


def row(value: int) -> bytes:
    """Return one row, which begins with `value`."""
    return np.array([value, *[0.5] * 63], np.float32).tobytes()


def read_metrics(address: str) -> str:
    """Return the server's metrics as text."""
    with urlopen(f"{address}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def batches_run(metrics: str, model: str) -> Counter[str]:
    """Return how many batches of `model` were started by flush reason, and how many `failed`."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.labels.get("model") != model:
                continue
            if sample.name == "batcher_batch_flush_total":
                counts[sample.labels["reason"]] += int(sample.value)
            elif sample.name == "batcher_failed_batches_total":
                counts[FAILED] += int(sample.value)
    return counts


def summary(case: Case, rounds: Sequence[Round], healthy: Sequence[Round]) -> dict[str, Any]:
    """Return medians over valid rounds for the other, beside `healthy`, and the victim's sums."""
    rate, p99 = of_other(rounds)
    healthy_rate, healthy_p99 = of_other(healthy)
    innocent, guilty = (
        answers(result)
        for result in zip(*((found.innocent, found.guilty) for found in rounds), strict=True)
    )
    batches = sum((found.batches for found in rounds), Counter[str]())
    return {
        "victim": case.name,
        "other 200/s": rate,
        "ratio": round(rate / healthy_rate, 3),
        "other p99 ms": p99,
        "p99 ratio": round(p99 / healthy_p99, 2),
        "innocent failed": f"{innocent.total() - innocent['200']:,} of {innocent.total():,}",
        "innocent": shown(innocent),
        "guilty": shown(guilty),
        "fresh batches": fresh(batches),
        "runs again": reruns(case, batches, guilty.total()),
        "failed runs": batches[FAILED],
        "left out": f"{sum(not found.other.valid for found in rounds)} of {len(rounds)}",
    }


def of_other(rounds: Sequence[Round]) -> tuple[float, float]:
    """Return the medians of the other's answers 200 a second and of their p99 in ms.

    Rounds that are not valid count only if no round is.
    """
    results = [found.other for found in rounds if found.other.valid] or [
        found.other for found in rounds
    ]
    return median(result.achieved_rate_200 for result in results), median(
        result.latency_200_ms["p99"] for result in results
    )


def answers(results: Sequence[LoadResult | None]) -> Counter[str]:
    """Return how many requests of all `results` ended how: by status, or by kind of error."""
    ends: Counter[str] = Counter()
    for result in results:
        if result is not None:
            ends.update({**result.statuses, **result.errors})
    return +ends


def fresh(batches: Counter[str]) -> int:
    """Return how many batches were not run again."""
    return sum(count for reason, count in batches.items() if reason not in (*RERUNS, FAILED))


def reruns(case: Case, batches: Counter[str], guilty: int) -> float | str:
    """Return the reruns for each fresh batch with a row at fault; a dash in cases without faults.

    `guilty` is the number of requests with a row at fault.
    """
    if not case.fault:
        return "-"
    return round(sum(batches[reason] for reason in RERUNS) / max(min(guilty, fresh(batches)), 1), 1)


def shown(ends: Mapping[str, int]) -> str:
    """Return `ends` in words."""
    return ", ".join(f"{count:,} {how}" for how, count in sorted(ends.items())) or "-"


if __name__ == "__main__":
    sys.exit(main())
