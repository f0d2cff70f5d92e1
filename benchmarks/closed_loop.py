"""Clients that each wait for their answer: the learned wait beside no wait, timers, and Mosec.

The model sleeps 2 ms a batch and 0.05 ms a row. Clients are wrk's connections, each with one
request on its way. Servers alternate within a round:

| server | when a batch is sent |
|---|---|
| `learned` | this server's default: at once, but for clients that are found to return |
| `never` | this server without a wait (`max_delay_ms: 0`) |
| `delay 1`, `2`, `5` | policy `delay`: 64 rows, or so many ms after the oldest arrival |
| `all`, `half`, `quarter` | when that part of the clients waits, and the model is free |
| `mosec` | up to 64 rows, 5 ms |

The table has the medians over the rounds of requests/s, and of `learned` over each other server
within a round. Two measurements of one server differ by some percent, as much as is to be told, so
`learned` and the best of the simpler ways are then measured in more pairs, one after the other.
`simulated` is what the simulator says of `learned`: with batches that take as long as the server
has learnt, and with the processor time that a request took of the loop and of wrk.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from batcher.app.simulation.candidates import read_candidate
from batcher.app.simulation.loads import closed
from batcher.app.simulation.scenario import Scenario
from batcher.app.simulation.simulation import simulate
from benchmarks.http import WIDTHS, running
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, Served, server_process
from benchmarks.simulated import learnt_cost, loop_seconds
from benchmarks.wrk import require_wrk, run_wrk

MODEL = "fixed_cost"
OURS = {
    "learned": ("defaults.policy=eager",),
    "never": ("defaults.max_delay_ms=0",),
    **{
        f"delay {wait}": ("defaults.policy=delay", f"defaults.max_delay_ms={wait}")
        for wait in (1, 2, 5)
    },
}
"""Settings of this server under each name."""

PARTS = {"all": 1, "half": 2, "quarter": 4}
"""Clients over the rows that a fixed size waits for, under each name."""

LONGEST_WAIT_MS = 20
"""Wait of a fixed size for clients that are late."""

SIMULATED_REQUESTS = 10_000
"""Requests of a simulation, of which the second half counts."""

BEST_OF = ("never", *PARTS)
"""The simpler ways of which `over best` takes the best one."""

REMARKS = (
    "`learned` is the default; `never` sends whatever is there when the model is free; `delay` "
    "waits for 64 rows up to so many ms after the oldest arrival; `mosec` has batches up to 64, "
    "5 ms. `all`, `half`, `quarter` wait for that part of the clients, up to 20 ms.",
    "`over best`: over that of `never`, `all`, `half`, `quarter` whose median is the best, median "
    "over the pairs of measurements that follow each other. "
    "`simulated`: requests/s of `learned` in the simulator, with the seconds of batches that the "
    "server has learnt, and the processor time of the loop and of wrk for a request; `over "
    "simulated`: `learned` over it.",
    "`over …`: requests/s of `learned` over those of the other server, median over the rounds of "
    "the ratio within a round.",
)


def main() -> None:
    """Measure, write the results, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", nargs="*", type=int, default=[8, 16, 32, 48, 64])
    parser.add_argument("--servers", nargs="*", default=[*OURS, "mosec"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--pairs", type=int, default=20, help="with the best of the simpler ways")
    options = parser.parse_args()
    require_wrk()
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name)) for name in options.servers}
        rows = [row_of(clients, servers, options) for clients in options.clients]
    title = "Requests/s of clients that each wait for their answer"
    print(write_results("closed_loop", title, rows, REMARKS))


@contextmanager
def serving(name: str, clients: int = 0) -> Iterator[Served]:
    """Run the server `name`, for so many clients where it waits for a part of them."""
    if name in OURS or name in PARTS:
        settings = OURS[name] if name in OURS else fixed_size(clients // PARTS[name])
        with server_process(MODELS, *settings) as process:
            yield Served(f"{process.http}/models/{MODEL}/predict", process)
    else:
        with running(name, MODEL) as url:
            yield Served(url, None)


def fixed_size(rows: int) -> tuple[str, ...]:
    """Return the settings of a server that sends batches of `rows` rows."""
    delay = ("defaults.policy=delay", f"defaults.max_delay_ms={LONGEST_WAIT_MS}")
    return (*delay, f"defaults.preferred_batch_sizes=[{rows}]")


def row_of(clients: int, servers: dict[str, Served], options: argparse.Namespace) -> dict[str, Any]:
    """Return the row for so many clients."""
    with ExitStack() as stack:
        fixed = {name: stack.enter_context(serving(name, clients)) for name in PARTS}
        row = measure(clients, servers | fixed, options)
    print(row, flush=True)
    return row


def measure(
    clients: int, servers: dict[str, Served], options: argparse.Namespace
) -> dict[str, Any]:
    """Return what was measured of each server, and what is simulated of the first."""
    rounds, simulated = by_turns(clients, servers, options)
    first, *others = servers
    row: dict[str, Any] = {"clients": clients}
    row |= {name: round(median(rates[name] for rates in rounds)) for name in servers}
    row |= {
        f"over {name}": round(median(rates[first] / rates[name] for rates in rounds), 2)
        for name in others
        if name not in PARTS
    }
    best = max((name for name in BEST_OF if name in servers), key=lambda name: row[name])
    pair = servers[first], servers[best]
    pairs = [ratio_of(pair, clients, options.seconds, bool(n % 2)) for n in range(options.pairs)]
    return row | {
        "over best": round(median(pairs), 2),
        "simulated": round(simulated),
        "over simulated": round(row[first] / simulated, 2),
    }


def by_turns(
    clients: int, servers: dict[str, Served], options: argparse.Namespace
) -> tuple[list[dict[str, float]], float]:
    """Return the requests/s of each server in each round, and those simulated of the first."""
    rounds: list[dict[str, float]] = []
    expected: list[float] = []
    names = list(servers)
    for number in range(options.rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        order = reversed(turned) if number % 2 else turned  # none runs after the same one always
        found = {name: run(servers[name], clients, options.seconds) for name in order}
        rounds.append({name: each.rate for name, each in found.items()})
        expected.append(simulated_rate(servers[names[0]], found[names[0]], clients))
    return rounds, median(expected)


def ratio_of(
    servers: tuple[Served, Served], clients: int, seconds: int, second_first: bool
) -> float:
    """Return the requests/s of the first server over those of the second, one after the other."""
    order = servers[::-1] if second_first else servers
    rates = [run(server, clients, seconds).rate for server in order]
    return rates[1] / rates[0] if second_first else rates[0] / rates[1]


class Found(NamedTuple):
    """One measurement.

    Attributes:
        rate: requests/s.
        loop: processor seconds of the server's loop for a request; 0 for a server of others.
        client: processor seconds of wrk for a request.
    """

    rate: float
    loop: float
    client: float


def run(server: Served, clients: int, seconds: int) -> Found:
    """Return the figures of one measurement."""
    body = np.random.default_rng(0).random(WIDTHS[MODEL], dtype=np.float32).tobytes()
    pid = server.process.pid if server.process is not None else None
    loop_before, client_before = loop_seconds(pid), processor_seconds_of_children()
    found = run_wrk(server.url, body, clients, seconds)
    if found.errors:
        raise SystemExit(f"expected no failed requests; got some of {server.url}")
    requests = found.rate * seconds
    loop = (loop_seconds(pid) - loop_before) / requests
    return Found(found.rate, loop, (processor_seconds_of_children() - client_before) / requests)


def simulated_rate(server: Served, found: Found, clients: int) -> float:
    """Return the requests/s that the simulator finds with the times that were `found`."""
    assert server.process is not None
    scenario = Scenario(
        cost=learnt_cost(server.process, MODEL),
        load=closed(clients),
        settings={"max_batch_size": 64},
        requests=SIMULATED_REQUESTS,
        noise=0.02,
        loop_cost=found.loop,
        client_cost=found.client,
        warmup=0.5,
    )
    return simulate(scenario, read_candidate("eager")).answered


def processor_seconds_of_children() -> float:
    """Return the processor seconds of the programs that this one has run and seen end."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
