"""What is still answered in time when more is asked than can be done: goodput over offered load.

The model sleeps, in batches up to 32 rows:

    seconds of a batch = 0.010 + 0.0003 * rows
    capacity           = 32 / (0.010 + 0.0003 * 32) = 1,632 rows/s
    goodput            = answers 200 within 40 ms of their scheduled time, a second / capacity

The offered load is 0.5 to 4 times capacity, one row a request, in an open loop over HTTP at random
(Poisson) times. Four servers run the same model in the same run:

| server | what it drops |
|---|---|
| `batcher` | this server: requests that would be late, at the door or in the queue |
| `expired_only` | this server without admission and foresight: requests whose deadline has passed |
| `no_drop` | this server without deadlines: nothing |
| `mosec` | nothing; it has no deadlines |

Beside the goodput of `batcher` stands what the simulator says of the same policy: with batches that
take as long as the server has learnt and a loop that takes the measured time for a request, and
with a server that costs nothing.

Servers alternate within a factor, and factors within a round. The table has medians over the valid
rounds. A run whose generator lagged its own schedule says nothing: the run is left out and counted,
and makes the exit status 3.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from batcher.app.charts import line_chart
from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost, BatchCost
from batcher.app.simulation.distributions import constant
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate
from benchmarks.http import Target, check_answers, running
from benchmarks.load import LoadOptions, LoadResult, report_invalid, run_load
from benchmarks.reporting import RESULTS, ROOT, write_results
from benchmarks.serving import MODELS, Served, server_process
from benchmarks.simulated import learnt_cost, loop_seconds
from benchmarks.wrk import OCTETS

MODEL = "overload"
BATCH = 32
COST = AffineCost(10e-3, 0.3e-3)
CAPACITY = BATCH / COST.seconds(BATCH)
"""Rows/s that the model can do in full batches."""

DEADLINE_MS = 40.0
"""Time of two full batches: the one that runs when a request comes, and the request's own."""

CONNECTIONS = 4608
"""More than the 4,096 rows that may wait at the server that drops nothing, so that all requests do
reach that server.
"""

FEW_CONNECTIONS = 256
"""Connections while the loop's time for a request is measured, of which their making is no part."""

WARMUP_S = 1.0
"""Seconds before measuring: 25 deadlines, after which a queue that does settle has settled."""

SIMULATED_S = 10.0
"""Seconds of load that are simulated: goodput is then known to half a percent."""

SERVERS = ("batcher", "expired_only", "no_drop", "mosec")
WITH_DEADLINE = ("batcher", "expired_only")
"""Servers that are told the deadline; for the others it only decides what counts as goodput."""

REMARKS = (
    f"Capacity is {CAPACITY:,.0f} rows/s. `goodput`: answers 200 within {DEADLINE_MS:g} ms of the "
    "time that their request was scheduled for, as a share of it. `200/s` counts all answers 200, "
    "however late.",
    "`batcher`: this server as `serve.py` runs it, `X-Timeout-Ms: 40`. `expired_only`: it too, but "
    "nothing is refused at the door and nothing estimated. `no_drop`: that, without deadlines; its "
    "queue is full at 4,096 rows. `mosec`: batches up to 32, 5 ms, no deadlines; its queue is full "
    "at 1,024 requests (its default).",
    "`refused/s`: 429, 503 and 504. `errors`: requests without an answer, and other statuses. "
    "Times count from the schedule.",
    "`simulated`: what the simulator says of the policy, with batches that take as long as the "
    "server has learnt, and a loop that takes the measured time for a request. `ideal`: the same "
    "with batches as long as the model sleeps, and a loop that takes no time. `over …`: "
    "`goodput` over it.",
    "`left out`: rounds in which the generator lagged its own schedule (p99 above 2 ms).",
)


def arguments() -> argparse.Namespace:
    """Return what was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--factors",
        nargs="*",
        type=float,
        default=[0.5, 0.8, 1.0, 1.3, 2.0, 4.0],
        help="of capacity",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--servers", nargs="*", default=list(SERVERS), choices=SERVERS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run the generator under SCHED_FIFO (needs the privilege)",
    )
    return parser.parse_args()


def main() -> int:
    """Measure, write the results and the plot, print the table; return the exit status."""
    options = arguments()
    body = np.random.default_rng(0).random(64, dtype=np.float32).tobytes()
    found: dict[tuple[float, str], list[LoadResult]] = {}
    with ExitStack() as stack:
        servers = {server: stack.enter_context(serving(server)) for server in options.servers}
        check_answers({name: Target(each.url, body, OCTETS) for name, each in servers.items()})
        for number in range(options.rounds):
            for factor in options.factors:
                for server, each in servers.items():
                    load = load_options(server, each.url, body, factor, options, seed=number)
                    result = run_load(load)
                    found.setdefault((factor, server), []).append(result)
                    print(
                        summary(factor, server, [result]), result.invalid_reason or "", flush=True
                    )
        costs = {
            factor: measured_cost(servers["batcher"], body, factor, options)
            for factor in options.factors
            if "batcher" in servers
        }
    rows = [
        summary(factor, server, results) | beside(factor, server, results, costs)
        for (factor, server), results in found.items()
    ]
    print(
        write_results(
            "overload",
            f"In-deadline goodput over offered load, deadline {DEADLINE_MS:g} ms",
            rows,
            REMARKS,
        )
    )
    (RESULTS / "overload.svg").write_text(plot(rows, options.servers), encoding="utf-8")
    return report_invalid([result for results in found.values() for result in results])


class Cost(NamedTuple):
    """What was measured of this server.

    Attributes:
        batch: seconds of a batch.
        loop: seconds of the loop for a request.
    """

    batch: BatchCost
    loop: float


@contextmanager
def serving(server: str) -> Iterator[Served]:
    """Run `server` in a process of its own, and give the URL that answers for the model."""
    if server == "mosec":
        with running(server, MODEL, PEER_BATCH=str(BATCH)) as url:
            yield Served(url, None)
        return
    script = ROOT / ("serve.py" if server == "batcher" else "benchmarks/peers/dropping_server.py")
    with server_process(MODELS, f"models.{MODEL}.max_batch_size={BATCH}", script=script) as process:
        yield Served(f"{process.http}/models/{MODEL}/predict", process)


def measured_cost(server: Served, body: bytes, factor: float, options: argparse.Namespace) -> Cost:
    """Return what batches take under a load, and what a request takes of the loop."""
    assert server.process is not None
    load = load_options("batcher", server.url, body, factor, options, seed=0)
    load = replace(load, connections=FEW_CONNECTIONS)
    pid = server.process.pid
    before = loop_seconds(pid)
    requests = run_load(load).offered_rate * (options.seconds + WARMUP_S)
    return Cost(learnt_cost(server.process, MODEL), (loop_seconds(pid) - before) / requests)


def beside(
    factor: float, server: str, results: Sequence[LoadResult], costs: Mapping[float, Cost]
) -> dict[str, Any]:
    """Return the columns that hold `goodput` against the simulator; dashes for other servers."""
    if server != "batcher":
        return dict.fromkeys(("simulated", "over simulated", "ideal", "over ideal"), "-")
    goodput = summary(factor, server, results)["goodput"]
    simulated = simulated_goodput(factor, costs[factor])
    ideal = simulated_goodput(factor, Cost(COST, 0.0))
    return {
        "simulated": round(simulated, 3),
        "over simulated": round(goodput / simulated, 3),
        "ideal": round(ideal, 3),
        "over ideal": round(goodput / ideal, 3),
    }


def simulated_goodput(factor: float, cost: Cost) -> float:
    """Return the goodput that the simulator finds, as a share of capacity."""
    rate = factor * CAPACITY
    run = Scenario(
        cost=cost.batch,
        load=read_load(f"poisson:{rate:.1f}/s"),
        settings={"max_batch_size": BATCH},
        requests=int(rate * (SIMULATED_S + WARMUP_S)),
        deadline=constant(DEADLINE_MS / 1e3),
        loop_cost=cost.loop,
        warmup=WARMUP_S / (SIMULATED_S + WARMUP_S),
    )
    return simulate(run, read_candidate("eager")).goodput / CAPACITY


def load_options(
    server: str, url: str, body: bytes, factor: float, options: argparse.Namespace, seed: int
) -> LoadOptions:
    """Return the load of one measurement; every server gets the same schedule."""
    return LoadOptions(
        url=url,
        body=body,
        headers=(("X-Timeout-Ms", f"{DEADLINE_MS:g}"),) if server in WITH_DEADLINE else (),
        rate=factor * CAPACITY,
        duration=options.seconds,
        warmup=WARMUP_S,
        connections=CONNECTIONS,
        deadline_ms=DEADLINE_MS,
        seed=seed,
        realtime=options.realtime,
    )


def summary(factor: float, server: str, results: Sequence[LoadResult]) -> dict[str, Any]:
    """Return the medians over the valid results, or over all if no result is valid.

    The column `left out` tells which.
    """
    valid = [result for result in results if result.valid]
    rounds = valid or results
    return {
        "offered": factor,
        "server": server,
        "offered/s": median(result.offered_rate for result in rounds),
        "200/s": median(result.achieved_rate_200 for result in rounds),
        "goodput": round(median(result.on_time_rate for result in rounds) / CAPACITY, 3),
        "p50 ms": middle([result.latency_200_ms.get("p50") for result in rounds]),
        "p99 ms": middle([result.latency_200_ms.get("p99") for result in rounds]),
        "refused/s": round(
            median(refused(result) for result in rounds) / rounds[0].configuration["duration"], 1
        ),
        "p50 of refusals ms": middle([result.latency_refused_ms.get("p50") for result in rounds]),
        "errors": sum(
            result.scheduled - result.statuses.get("200", 0) - refused(result) for result in rounds
        ),
        "own lag p99 ms": median(result.lag_ms.get("p99", 0.0) for result in rounds),
        "left out": f"{len(results) - len(valid)} of {len(results)}",
    }


def refused(result: LoadResult) -> int:
    """Return how many requests were refused: the statuses that say `not now`."""
    return sum(result.statuses.get(status, 0) for status in ("429", "503", "504"))


def middle(times: Sequence[float | None]) -> float | str:
    """Return the median of the times that there are, or a dash."""
    there = [time for time in times if time is not None]
    return median(there) if there else "-"


def plot(rows: Sequence[dict[str, Any]], servers: Sequence[str]) -> str:
    """Return the plot of goodput over offered load, a line for each server."""
    lines = {
        server: [(row["offered"], row["goodput"]) for row in rows if row["server"] == server]
        for server in servers
    }
    title = f"Answers within {DEADLINE_MS:g} ms"
    return line_chart(
        title,
        "offered load, as a share of capacity",
        "goodput, as a share of capacity",
        lines,
        top=1.0,
    )


if __name__ == "__main__":
    sys.exit(main())
