"""What a call costs through each form of the client, beside calls that are written by hand.

One server with a model that gives its input back answers all of them, by the binary form of the
Open Inference Protocol. Two loads:

    5,000 at once    as `asyncio.gather` of 5,000 calls, or 5,000 threads, at most 100 connections
    64 at a time     64 tasks or threads, each with one call after the other

Every client runs in a process of its own, on one core; the server has another. Clients alternate
within a round, and the table has medians over the rounds. Each answer is compared with its input.

`bytes alone` is the most that Python allows: an asyncio protocol that sends bytes made before, and
counts the bytes that come back. wrk is the most that the server allows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

if __package__ in (None, ""):  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import orjson

from benchmarks.client_calls import (
    CLIENTS,
    CONNECTIONS,
    ONLY_AT_A_TIME,
    ROUTE,
    WORKERS,
    written_by_hand,
)
from benchmarks.reporting import write_results
from benchmarks.serving import server_process
from benchmarks.wrk import require_wrk, run_wrk

AT_ONCE = 5_000


def measured(name: str, address: str, load: str, calls: int, core: int | None) -> dict[str, Any]:
    """Return the figures of one client, in a process of its own."""
    command = [sys.executable, __file__, "--one", name, address, load, str(calls)]
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    output = subprocess.run(command, preexec_fn=pin, capture_output=True, text=True, check=True)
    found: dict[str, Any] = orjson.loads(output.stdout)
    return found


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20_000, help="of the load 64 at a time")
    parser.add_argument("--one", nargs=4, metavar=("CLIENT", "ADDRESS", "LOAD", "CALLS"))
    arguments = parser.parse_args()
    if arguments.one:
        name, address, load, calls = arguments.one
        run, client = CLIENTS[name]
        print(orjson.dumps(run(client, address, load, int(calls))).decode())
        return
    require_wrk()
    cores = sorted(os.sched_getaffinity(0))
    of_server, of_client = (cores[0], cores[1]) if len(cores) > 1 else (None, None)
    with server_process() as server:
        if of_server is not None:
            os.sched_setaffinity(server.pid, {of_server})
        rows = rounds(server.http, arguments.rounds, arguments.calls, of_client)
    print(
        write_results(
            "clients",
            "What a call costs through each form of the client",
            rows,
            [
                f"At most {CONNECTIONS} connections; one row of 64 floats each way.",
                "`to aiohttp` is the rate by that of the hand-written call of aiohttp on asyncio.",
                "`CPU us` is the processor time of the client's process for a call.",
                "`wrk` is one thread of wrk with 64 connections, in C; `bytes alone` is what "
                "remains in Python without building requests and reading answers.",
                "Memory is what the peak of the process grew by.",
            ],
        )
    )


def rounds(address: str, number: int, calls: int, core: int | None) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    pairs = [("at once", name, AT_ONCE) for name in CLIENTS if name not in ONLY_AT_A_TIME]
    pairs += [("at a time", name, calls) for name in CLIENTS]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    wrk = []
    for _ in range(number):
        for load, name, total in pairs:
            total = min(total, 2_000) if name == "httpx" else total
            found.setdefault((load, name), []).append(measured(name, address, load, total, core))
        body, headers = written_by_hand()
        wrk.append(run_wrk(address + ROUTE, body, WORKERS, 2, headers).rate)
    rows = []
    for (load, name), figures in found.items():
        middle = {key: median(figure[key] for figure in figures) for key in figures[0]}
        aiohttp = median(figure["rate"] for figure in found[load, "aiohttp"])
        rows.append(
            {
                "load": "5,000 at once" if load == "at once" else "64 at a time",
                "client": name,
                "calls/s": round(middle["rate"]),
                "to aiohttp": round(middle["rate"] / aiohttp, 2),
                "to wrk": round(middle["rate"] / median(wrk), 2),
                "CPU us": round(middle["cpu"], 1),
                "connections": max(figure["connections"] for figure in figures),
                "memory MiB": round(middle["memory"]),
                "wrong": sum(figure["wrong"] for figure in figures),
            }
        )
    return [*rows, {**dict.fromkeys(rows[0], ""), **_wrk_row(median(wrk))}]


def _wrk_row(rate: float) -> dict[str, Any]:
    return {"load": "64 at a time", "client": "wrk", "calls/s": round(rate), "to wrk": 1.0}


if __name__ == "__main__":
    main()
