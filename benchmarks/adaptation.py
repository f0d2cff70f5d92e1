"""How fast the default policy learns to wait for clients, and stops, simulated.

Models are those of `default_policy.py`. Clients each wait for their answer and are back 0.1 ms
later. The same requests go to the default, and to the best fixed wait or to no wait.

The table `adaptation_closed` has answers/s over those of the best fixed wait: from the 201st batch
after the start on, and from the 201st batch after batches have begun to take three times as long.

In `adaptation_open` clients leave after 2 s, and requests at random follow. The table has the p99
of a second's requests over that without waits: the worst of the first two seconds, and of the four
after these.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import numpy as np
from numpy.typing import NDArray

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.costs import AffineCost
from batcher.app.simulation.loads import read_load
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import Run
from benchmarks.default_policy import MODELS
from benchmarks.reporting import write_results

Floats = NDArray[np.float64]

CLIENTS = (8, 32, 64)
LOADS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
LEARNING = 200
"""Batches after which a wait counts as learnt."""

ROWS = 3000
"""Requests over which rates are compared: some 50 batches of 64 clients."""

SLOWER = 3
"""Times as long as before that batches take from the change on."""

LEAVE_S = 2
"""Seconds after which clients leave: 160 batches of the slowest model."""

SETTLED_S = 2
"""Seconds after the change within which p99 may be worse."""

SECONDS = 6
"""Seconds of requests at random that are looked at."""

REMARKS = (
    "Models: A takes 4 ms + 0.25 ms a row in batches up to 32, B 2 ms + 0.02 ms and C 0.6 ms + "
    "0.01 ms in batches up to 64.",
    "`wait`: the best fixed wait after a batch before and after the change, found by trying.",
)


def main() -> None:
    """Simulate, write the results, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    closed = [closed_row(model, clients) for model in MODELS for clients in CLIENTS]
    title = "Answers/s of the default over the best fixed wait, 200 batches after a change"
    print(write_results("adaptation_closed", title, closed, REMARKS))
    opened = [open_row(model, load) for model in MODELS for load in LOADS]
    title = "p99 of the default over no waits, after clients that return have left"
    print(write_results("adaptation_open", title, opened, REMARKS[:1]))


def closed_row(model: str, clients: int) -> dict[str, Any]:
    """Return the row of so many clients."""
    cost, size = MODELS[model]
    slower = AffineCost(SLOWER * cost.beta, SLOWER * cost.alpha)
    # no batch holds more rows than there are clients
    batches = LEARNING + max(2 * ROWS // min(clients, size), LEARNING)
    change = batches * cost.seconds(min(clients, size))
    scenario = Scenario(
        cost=cost,
        load=read_load(f"closed:{clients},think=0.1ms"),
        settings={"max_batch_size": size},
        requests=4 * batches * min(clients, size),
        noise=0.02,
        later_costs=((change, slower),),
    )
    ends = ends_of(scenario, "eager")
    windows = [window(ends, 0.0, clients), window(ends, change, clients)]
    rates = [rate(ends, *each) for each in windows]
    best, waits = [0.0, 0.0], ["", ""]
    for wait in (0.0, 0.11, 0.13, 0.16, 0.2, 0.4):
        fixed = ends_of(scenario, f"fixed-wait:{wait}ms")
        for index, each in enumerate(windows):
            if (found := rate(fixed, *each)) > best[index]:
                best[index], waits[index] = found, f"{wait} ms"
    return {
        "model": model,
        "clients": clients,
        "after start": round(rates[0] / best[0], 3),
        "wait": waits[0],
        "after change": round(rates[1] / best[1], 3),
        "wait then": waits[1],
    }


def ends_of(scenario: Scenario, policy: str) -> Floats:
    """Return when the requests of a run were answered, in order."""
    run = Run(scenario, read_candidate(policy))
    run.run()
    ends: Floats = np.sort(run.record.times()[1])
    return ends


def window(ends: Floats, change: float, clients: int) -> tuple[float, float]:
    """Return the time from the 201st batch after `change` on in which `ROWS` rows are answered."""
    # all requests of a batch are answered at one time, since the loop costs nothing here
    batches = np.unique(ends[ends > change])
    begin = float(batches[LEARNING])
    later = ends[ends > begin]
    return begin, float(later[min(max(ROWS, 20 * clients), len(later) - 1)])


def rate(ends: Floats, begin: float, end: float) -> float:
    """Return answers/s between two times."""
    return float(((ends > begin) & (ends <= end)).sum() / (end - begin))


def open_row(model: str, load: float) -> dict[str, Any]:
    """Return the row of an open load that follows clients."""
    cost, size = MODELS[model]
    capacity = size / cost.seconds(size)
    scenario = Scenario(
        cost=cost,
        load=read_load(f"closed:32,think=0.1ms@0s..{LEAVE_S}s+poisson:{load}@{LEAVE_S}s.."),
        settings={"max_batch_size": size},
        requests=int(capacity * (LEAVE_S + load * (SECONDS + 1))),
        noise=0.02,
    )
    found, never = (p99_by_second(scenario, policy) for policy in ("eager", "eager:0ms"))
    ratios = [mine / other for mine, other in zip(found, never, strict=True)]
    return {
        "model": model,
        "load": load,
        "first seconds": round(max(ratios[:SETTLED_S]), 3),
        "worst later": round(max(ratios[SETTLED_S:]), 3),
    }


def p99_by_second(scenario: Scenario, policy: str) -> list[float]:
    """Return the p99 of latency of the requests of each second since the clients have left."""
    run = Run(scenario, read_candidate(policy))
    run.run()
    sent, ended = run.record.times()
    seconds = np.floor(sent - LEAVE_S)
    return [
        float(np.percentile((ended - sent)[seconds == second], 99)) for second in range(SECONDS)
    ]


if __name__ == "__main__":
    main()
