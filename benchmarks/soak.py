"""All faults of `tests/chaos` at once, for half an hour: requests, memory and descriptors.

    python benchmarks/soak.py --minutes 30

Trouble comes in spells. After each spell the server is left alone until nothing waits, and its
memory and descriptors are measured. The first fifth of the spells is warm-up, in which allocators
and caches fill. The end is compared with the end of the warm-up, and every request is accounted
for.

Exit status: 0, or 1 if a request was not answered rightly, or if the server holds more at the end
than `MAX_GROWTH_BYTES` and `MAX_NEW_DESCRIPTORS` allow.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Run as a script: the root of the imports is the parent of this directory.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.reporting import write_results
from tests.chaos.clients import under_load
from tests.chaos.ledger import Ledger, Load
from tests.chaos.servers import children, descriptors, is_quiet, serving
from tests.chaos.troubles import IMPATIENT, KINDS, MIB, make_trouble
from tests.end_to_end.processes import Process, until

SPELL_S = 20.0
"""Seconds of trouble between two measurements."""

MAX_GROWTH_BYTES = 32 * MIB
"""Bytes of memory that the server may hold more at the end: about an eighth of what a server with
PyTorch in it begins with.
"""

MAX_NEW_DESCRIPTORS = 0
"""Descriptors that the server may have open more at the end."""

KILL_INTERVAL_S = 2.0
"""Seconds between two kills of a worker."""

PROCESSES = ("crashing", "exiting", "hanging")

MODELS = ("ok", "slow", "large", "poisoned", "broken", "short", "nan", "unloadable", *PROCESSES)
IN_PROCESSES = tuple(f"models.{name}.worker=process" for name in PROCESSES)
SETTINGS = (*IMPATIENT, *IN_PROCESSES, "strict_start=false", "defaults.watchdog_s=1")

LOADS = (
    Load("ok", 16),
    Load("ok", 4, identified=True),
    Load("ok", 2, pipelined=8),
    Load("large", 2, identified=True),
    Load("slow", 64, rate=2000, timeout_ms=300, identified=True),  # twice what it can do
    Load("poisoned", 31, identified=True),
    Load("poisoned", 1, marked=True, rate=20),  # each leaves a traceback in the log
    Load("broken", 2, rate=20),
    Load("short", 2, rate=20, identified=True),
    Load("nan", 4, marked=True, rate=20),
    Load("unloadable", 2, rate=20),
    *(Load(name, 4, rate=100, identified=True) for name in PROCESSES),
    *(Load(name, 1, marked=True, rate=0.1) for name in PROCESSES),
)


def main() -> int:
    """Make trouble as long as the arguments say, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0)
    minutes = parser.parse_args().minutes
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the clients are all in this process
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), *MODELS, settings=SETTINGS) as server,
    ):
        rows = _soak(server, minutes * 60)
    begin, end = rows[len(rows) // 5], rows[-1]
    grown, opened = end["RSS MiB"] - begin["RSS MiB"], end["descriptors"] - begin["descriptors"]
    held = grown * MIB <= MAX_GROWTH_BYTES and opened <= MAX_NEW_DESCRIPTORS
    remarks = (
        "Every request was answered once, with its own answer or its own error: "
        f"{sum(row['sent'] for row in rows):,}.",
        f"From minute {begin['minute']}, after the warm-up, to the end memory grew by {grown} MiB "
        f"(allowed: {MAX_GROWTH_BYTES // MIB}) and open descriptors by {opened} (allowed: "
        f"{MAX_NEW_DESCRIPTORS}).",
        f"A worker in a process was killed every {KILL_INTERVAL_S:g} s, and there was a SIGHUP in "
        "each spell.",
    )
    print(write_results("soak", "All faults at once, again and again", rows, remarks))
    return 0 if held else 1


def _soak(server: Process, seconds: float) -> list[dict[str, float]]:
    """Return what was counted and measured after each spell."""
    rows = []
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        ledger = _spell(server)
        outcomes = sum((ledger.outcomes(name) for name in MODELS), Counter[str]())
        rows.append(
            {
                "minute": round((time.monotonic() - began) / 60, 1),
                "sent": ledger.sent,
                "200": outcomes["200"],
                **{f"{kind}xx": _of_kind(outcomes, kind) for kind in "45"},
                "RSS MiB": server.resident() // MIB,
                "descriptors": descriptors(server.pid),
            }
        )
        print(rows[-1], flush=True)
    return rows


def _of_kind(outcomes: Counter[str], kind: str) -> int:
    return sum(count for outcome, count in outcomes.items() if outcome.startswith(kind))


def _spell(server: Process) -> Ledger:
    """Make trouble of every kind for a while, and wait until nothing of it is left."""
    with under_load(server, *LOADS) as ledger, ThreadPoolExecutor(1) as pool:
        trouble = pool.submit(make_trouble, server, KINDS, SPELL_S)
        _disturb(server, SPELL_S)
        trouble.result()
    assert set(ledger.outcomes("ok")) == {"200"}, ledger.outcomes("ok")
    until(lambda: is_quiet(server) and len(children(server.pid)) >= len(PROCESSES), seconds=60)
    time.sleep(1)  # until the connection that asked is closed
    return ledger


def _disturb(server: Process, seconds: float) -> None:
    """Ask for a reload and kill one worker after the other for a while."""
    end = time.monotonic() + seconds
    server.signal(signal.SIGHUP)
    while time.monotonic() < end:
        if workers := children(server.pid):
            os.kill(random.choice(workers), signal.SIGKILL)
        time.sleep(KILL_INTERVAL_S)


if __name__ == "__main__":
    sys.exit(main())
