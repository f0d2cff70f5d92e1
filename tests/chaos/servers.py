"""Servers with models that fail, and how long trouble lasts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.end_to_end.processes import ROOT, Process, started

SECONDS = float(os.environ.get("CHAOS_SECONDS", "3"))
"""Seconds of each kind of trouble: a minute in `make chaos`, a few seconds in `make test`."""

MODELS = ROOT / "tests" / "chaos" / "models"


@contextmanager
def serving(folder: Path, *models: str, settings: tuple[str, ...] = ()) -> Iterator[Process]:
    """Run a server of `models` with `settings`, each `KEY=VALUE`.

    Its standard error is kept in `folder`.
    """
    pairs = (f"model_repository={MODELS}", f"load_at_start=[{', '.join(models)}]", *settings)
    with started(folder, *(part for pair in pairs for part in ("--set", pair))) as process:
        yield process


def descriptors(pid: int) -> int:
    """Return how many files the process `pid` has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared_memory(pid: int) -> list[str]:
    """Return the files in memory, which may be shared, that the process `pid` has open."""
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found.append(os.readlink(file))
    return sorted(target for target in found if target.startswith(("/memfd:", "/dev/shm/")))


class _Status(NamedTuple):
    """What the kernel says of a process.

    Attributes:
        state: a letter; `Z` if the process has ended.
        parent: id of the process that started this one; 0 if it is unknown.
        began: time of the start, in the kernel's ticks.
    """

    state: str
    parent: int
    began: int


def _status(pid: int) -> _Status:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return _Status("Z", 0, 0)
    return _Status(fields[0], int(fields[1]), int(fields[19]))


def is_running(pid: int) -> bool:
    """Return whether the process `pid` has not ended."""
    return _status(pid).state != "Z"


def children(pid: int) -> list[int]:
    """Return the children of the process `pid` that have not ended, the oldest first.

    The pump of its outputs is not one of them: a server has it whatever its models are.
    """
    known = {int(name): _status(int(name)) for name in os.listdir("/proc") if name.isdecimal()}
    found = [
        child
        for child, status in known.items()
        if status.parent == pid and status.state != "Z" and not _is_pump(child)
    ]
    return sorted(found, key=lambda child: known[child].began)


def _is_pump(pid: int) -> bool:
    """Return whether the process `pid` passes on what a server writes."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"outputs/pump.py" in command


def is_quiet(server: Process) -> bool:
    """Return whether nothing waits, nothing runs and no client is connected."""
    busy = ("batcher_queue_rows", "batcher_queue_bytes", "batcher_in_flight_rows")
    # one connection is the one that asks for metrics
    return sum(map(server.metric, busy)) == 0 and server.metric("batcher_connections") <= 1
