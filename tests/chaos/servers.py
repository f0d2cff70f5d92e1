"""A server with models that fail, and how long it is troubled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.processes import ROOT, Process, started

SECONDS = float(os.environ.get("CHAOS_SECONDS", "5"))
"""How long each kind of trouble lasts: `make chaos` has a minute, where every commit is tested a few seconds must do."""

MODELS = ROOT / "tests" / "chaos" / "models"


@contextmanager
def serving(folder: Path, *models: str, settings: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a server of `models` with `settings`, each `KEY=VALUE`; its standard error is kept in `folder`."""
    pairs = (f"model_repository={MODELS}", f"load_at_start=[{', '.join(models)}]", *settings)
    with started(folder, *(part for pair in pairs for part in ("--set", pair))) as process:
        yield process


def descriptors(pid: int) -> int:
    """Return how many files the process `pid` has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> set[int]:
    """Return the processes that the process `pid` started and that have not ended."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = re.sub(r"^.*\) ", "", stat.read_text(), flags=re.DOTALL).split()[:2]
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        if int(parent) == pid and state != "Z":
            found.add(int(stat.parent.name))
    return found


def is_quiet(server: Process) -> bool:
    """Return whether nothing waits, nothing runs and no client is connected."""
    busy = ("batcher_queue_rows", "batcher_queue_bytes", "batcher_in_flight_rows")
    return sum(map(server.metric, busy)) == 0 and server.metric("batcher_connections") <= 1  # that which asks
