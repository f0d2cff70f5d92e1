"""Killing workers in processes, and how long each kill keeps a model from answering."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from tests.chaos.ledger import Ledger
from tests.end_to_end.processes import Process, until

CHILDREN = 2
"""Processes of one worker: the process that runs the model, and its spare."""

RESTART_LIMIT_S = 60.0
"""Seconds for a new worker; more is a failure."""


def kill(processes: Iterable[int]) -> None:
    """Kill `processes`, unless they have ended by themselves."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def seconds_without(ledger: Ledger, model: str, processes: Iterable[int]) -> float:
    """Kill `processes`, and return the seconds until `model` answers a request sent since then."""
    kill(processes)
    began, before = time.monotonic(), ledger.outcomes(model)["200"] + ledger.pending
    until(lambda: ledger.outcomes(model)["200"] > before, RESTART_LIMIT_S)
    return time.monotonic() - began


def load_seconds(server: Process, model: str) -> float:
    """Return the seconds that a model took to load at the start, as the server's log says.

    The start of the model's process is part of them.
    """
    line = rf"\] model {model}/1: ready, loaded in (\S+) s$"
    found = re.search(line, server.errors, re.MULTILINE)
    assert found, server.errors
    return float(found[1])
