"""Hostile clients, one kind after the other, and what two small requests every 50 ms notice of it.

    python benchmarks/hostile.py --kinds 'json|csv' --seconds 5

Each kind gets a server of its own at its defaults. While the clients of the kind do their worst
again and again, a process of its own asks for `/livez` and a small inference every 50 ms, and the
memory of the server's processes is added up every 20 ms. A kind is within bounds if

- p99 of each small request is at most P99_MS and the slowest at most WORST_MS, counted from the
  time at which the request was due, and each was answered 200;
- memory grows by at most MAX_GROWTH_BYTES, and is back within BACK_SHARE of where it began within
  BACK_S after the last clients left.

A machine that others use needs `--tries`: a kind that is out of bounds is tried again, and the
table says which try its row is of.

What the kinds do stands in `hostile_kinds/`. Exit status: 0, or 1 if any kind is out of bounds.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import orjson

from benchmarks.hostile_kinds.attacking import Attackers
from benchmarks.hostile_kinds.kind import Kind, Target
from benchmarks.hostile_kinds.memory import Peak, memory_of
from benchmarks.hostile_kinds.repository import SETTINGS, warm_up, write_models
from benchmarks.hostile_kinds.table import all_kinds
from benchmarks.reporting import ROOT, Row, table, write_results
from benchmarks.serving import Running, server_process

P99_MS, WORST_MS = 170, 500
MAX_GROWTH_BYTES = 1 << 30
BACK_SHARE = 0.1
BACK_S = 15.0
"""Seconds for memory to come back: the heap is trimmed once a second, and answers that nobody
reads are given up after a while.
"""
SETTLE_S = 2.0
"""Seconds between the warm-up and the first look at memory: the heap is trimmed meanwhile."""
CALM_S = 1.0
"""Seconds of small requests before and after the hostile ones."""
MIB = 1 << 20


def main() -> int:
    """Try the kinds that the arguments choose, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", default="", help="regular expression that a name contains")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each kind, at least once")
    parser.add_argument("--tries", type=int, default=1, help="of a kind that is out of bounds")
    parser.add_argument("--name", default=None, help="write results/NAME.md and NAME.json")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args()
    kinds = [kind for kind in all_kinds() if re.search(options.kinds, kind.name)]
    if options.list:
        print(*(kind.name for kind in kinds), sep="\n")
        return 0
    if not kinds:
        parser.error(f"--kinds: expected part of a name of --list; got {options.kinds!r}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        for kind in kinds:
            rows.append(best_of(kind, Path(folder), options.seconds, options.tries))
            print(table(rows[-1:]).splitlines()[-1] if rows[1:] else table(rows), flush=True)
    failed = [row["kind"] for row in rows if row["out of bounds"]]
    if options.name:
        write_results(options.name, "Small requests beside hostile clients", rows, remarks(rows))
    print(f"{len(rows) - len(failed)} of {len(rows)} kinds within bounds", *failed, sep="\n- ")
    return 1 if failed else 0


def remarks(rows: list[Row]) -> list[str]:
    """Return what stands below the table."""
    good = sum(not row["out of bounds"] for row in rows)
    return [
        f"{good} of {len(rows)} kinds within bounds: p99 {P99_MS} ms, worst {WORST_MS} ms, "
        f"{MAX_GROWTH_BYTES // MIB} MiB more, back within {BACK_SHARE:.0%}.",
        "`got`: statuses that the hostile clients got, and how often. `up`: the most MiB of "
        "memory above the start. `left`: MiB above the start in the end.",
    ]


def best_of(kind: Kind, models: Path, seconds: float, tries: int) -> Row:
    """Return the row of the first try of `kind` that is within bounds, or of the last try."""
    for number in range(1, tries + 1):
        row = measured(kind, models, seconds) | {"try": number}
        if not row["out of bounds"]:
            break
    return row


def measured(kind: Kind, models: Path, seconds: float) -> Row:
    """Return the row of one kind, tried on a server of its own."""
    attackers = Attackers(kind)
    try:
        with server_process(models, *SETTINGS) as server:
            target = _target(server)
            warm_up(target)
            attackers.wait_ready()
            time.sleep(SETTLE_S)
            return _attacked(kind, attackers, server, target, seconds)
    except (RuntimeError, EOFError) as err:
        return _broken(kind, err)
    finally:
        attackers.end()


def _target(server: Running) -> Target:
    address = urlsplit(server.http)
    assert server.grpc is not None
    return Target(address.hostname or "", address.port or 0, int(server.grpc.rpartition(":")[2]))


def _attacked(
    kind: Kind, attackers: Attackers, server: Running, target: Target, seconds: float
) -> Row:
    start = memory_of(server.pid)
    probes = _start_probes(target)
    time.sleep(CALM_S)
    peak = Peak(server.pid)
    peak.start()
    began = time.monotonic()
    got = attackers.attack(target, seconds)
    took = time.monotonic() - began
    time.sleep(CALM_S)
    found = orjson.loads(probes.communicate()[0])
    highest = peak.stop()
    return _row(kind, found, got, took, (start, highest, _settled(server.pid, start)))


def _start_probes(target: Target) -> subprocess.Popen[bytes]:
    script = ROOT / "benchmarks" / "hostile_kinds" / "probing.py"
    command = [sys.executable, str(script), target.host, str(target.port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _settled(pid: int, start: int) -> int:
    """Return the memory once it is back, or what is held after BACK_S."""
    end = time.monotonic() + BACK_S
    held = memory_of(pid)
    while held > start * (1 + BACK_SHARE) and time.monotonic() < end:
        time.sleep(0.2)
        held = memory_of(pid)
    return held


def _row(
    kind: Kind,
    found: dict[str, Any],
    got: dict[str, int],
    took: float,
    memory: tuple[int, int, int],
) -> Row:
    """Return the figures of one kind, and in which of them it is out of bounds."""
    start, highest, after = memory
    row: dict[str, Any] = {"kind": kind.name, "s": round(took, 1)}
    out: list[str] = []
    for name in ("livez", "small"):
        p50, p99, worst = _percentiles(found[name]["latencies"])
        row |= {f"{name} p50 ms": p50, f"{name} p99 ms": p99, f"{name} worst ms": worst}
        out += [f"{name} p99"] * (p99 > P99_MS) + [f"{name} worst"] * (worst > WORST_MS)
        out += [f"{name} {status}" for status in sorted(set(found[name]["failures"]))]
    out += ["memory"] * (highest - start > MAX_GROWTH_BYTES)
    out += ["memory after"] * (after > start * (1 + BACK_SHARE))
    row |= {
        "lag p99 ms": _percentiles(found["lags"])[1],
        "start MiB": start // MIB,
        "up MiB": (highest - start) // MIB,
        "left MiB": (after - start) // MIB,
        "got": ", ".join(f"{status} x{count}" for status, count in sorted(got.items())),
        "out of bounds": ", ".join(out),
    }
    return row


def _percentiles(seconds: list[float]) -> tuple[float, float, float]:
    """Return median, p99 and the largest in ms, each an observed value."""
    ordered = sorted(seconds)
    ranks = (len(ordered) // 2, max(-(-len(ordered) * 99 // 100) - 1, 0), len(ordered) - 1)
    p50, p99, worst = (round(ordered[rank] * 1e3, 1) for rank in ranks)
    return p50, p99, worst


def _broken(kind: Kind, error: Exception) -> Row:
    text = f"{type(error).__name__}: {error}"
    figures = ("p50 ms", "p99 ms", "worst ms")
    names = [f"{name} {figure}" for name in ("livez", "small") for figure in figures]
    others = ("lag p99 ms", "start MiB", "up MiB", "left MiB", "got")
    return {
        "kind": kind.name,
        "s": "",
        **dict.fromkeys((*names, *others), ""),
        "out of bounds": text,
    }


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
