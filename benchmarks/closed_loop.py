"""Clients that each wait for their answer: the learned wait beside no wait, timers, and Mosec.

The model sleeps 2 ms a batch and 0.05 ms a row. Clients are wrk's connections, each with one
request on its way. Servers alternate within a round:

| server | when a batch is sent |
|---|---|
| `learned` | this server's default: at once, but for clients that are found to return |
| `never` | this server without a wait (`max_delay_ms: 0`) |
| `delay 1`, `2`, `5` | policy `delay`: 64 rows, or so many ms after the oldest arrival |
| `mosec` | up to 64 rows, 5 ms |

The table has the medians over the rounds of requests/s, and of `learned` over each other server
within a round.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import numpy as np

from benchmarks.http import WIDTHS, running
from benchmarks.reporting import write_results
from benchmarks.serving import MODELS, running_server
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

REMARKS = (
    "`learned` is the default; `never` sends whatever is there when the model is free; `delay` "
    "waits for 64 rows up to so many ms after the oldest arrival; `mosec` has batches up to 64, "
    "5 ms.",
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
    options = parser.parse_args()
    require_wrk()
    body = np.random.default_rng(0).random(WIDTHS[MODEL], dtype=np.float32).tobytes()
    with ExitStack() as stack:
        urls = {name: stack.enter_context(serving(name)) for name in options.servers}
        rows = [measure(clients, urls, body, options) for clients in options.clients]
    title = "Requests/s of clients that each wait for their answer"
    print(write_results("closed_loop", title, rows, REMARKS))


@contextmanager
def serving(name: str) -> Iterator[str]:
    """Run the server `name`, and give the URL that answers for the model."""
    if name in OURS:
        with running_server(MODELS, *OURS[name]) as address:
            yield f"{address}/models/{MODEL}/predict"
    else:
        with running(name, MODEL) as url:
            yield url


def measure(
    clients: int, urls: dict[str, str], body: bytes, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the row for so many clients."""
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        found = {name: run_wrk(url, body, clients, options.seconds) for name, url in urls.items()}
        if failed := [name for name, each in found.items() if each.errors]:
            raise SystemExit(f"expected no failed requests; got some of {', '.join(failed)}")
        rounds.append({name: each.rate for name, each in found.items()})
    first, *others = urls
    row: dict[str, Any] = {"clients": clients}
    row |= {name: round(median(rates[name] for rates in rounds)) for name in urls}
    row |= {
        f"over {name}": round(median(rates[first] / rates[name] for rates in rounds), 2)
        for name in others
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
