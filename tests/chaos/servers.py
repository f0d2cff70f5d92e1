"""A server with models that fail, and how long it is troubled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def shared_memory(pid: int) -> list[str]:
    """Return what the process `pid` holds open that lives in memory and may be shared."""
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(os.readlink(file))
    return sorted(target for target in found if target.startswith(("/memfd:", "/dev/shm/")))


def _state_and_parent(pid: int) -> tuple[str, int]:
    """Return a process's state, `Z` if it has ended, and who started it."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "Z", 0
    return state, int(parent)


def is_running(pid: int) -> bool:
    """Return whether the process `pid` has not ended."""
    return _state_and_parent(pid)[0] != "Z"


def children(pid: int) -> set[int]:
    """Return the processes that the process `pid` started and that have not ended."""
    known = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return {child for child in known if _state_and_parent(child)[1] == pid and is_running(child)}


def is_quiet(server: Process) -> bool:
    """Return whether nothing waits, nothing runs and no client is connected."""
    busy = ("batcher_queue_rows", "batcher_queue_bytes", "batcher_in_flight_rows")
    return sum(map(server.metric, busy)) == 0 and server.metric("batcher_connections") <= 1  # that which asks
