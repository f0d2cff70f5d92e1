"""What the simulator says of a server that is being measured.

A benchmark that shows both beside each other gives the simulator what was found in the same run:

| of the server | found by |
|---|---|
| seconds of a batch, by its rows | `GET /v2/models/NAME/batching`: what the server has learnt |
| seconds of the loop for a request | processor seconds of the loop's thread over the requests |
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.request import urlopen

import orjson

from batcher.app.simulation.costs import TableCost
from benchmarks.serving import Running


def learnt_cost(server: Running, model: str) -> TableCost:
    """Return what `server` has learnt of how long batches of `model` take."""
    with urlopen(f"{server.http}/v2/models/{model}/batching") as answer:
        document = orjson.loads(answer.read())
    version = document["versions"][-1] if "versions" in document else document
    return TableCost((each["rows"], each["ms"] / 1e3) for each in version["batch_ms"])


def loop_seconds(pid: int | None) -> float:
    """Return for how many seconds the loop of the server `pid` has had a core; 0 for no server.

    The loop is the main thread of the server's process.
    """
    if pid is None:
        return 0.0
    # behind the name in parentheses, which may hold spaces; user and system time are 14th and 15th
    text = Path(f"/proc/{pid}/task/{pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
