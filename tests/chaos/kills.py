"""Kills of workers in processes, and how long they cost."""

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
"""Most processes of one worker: that which runs the model, and a spare that will."""

BACK_SECONDS = 60.0
"""More for a new worker is a failure."""


def kill(processes: Iterable[int]) -> None:
    """Kill `processes`, unless they have ended by themselves."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def seconds_without(ledger: Ledger, model: str, killed: Iterable[int]) -> float:
    """Kill `killed`, and return after how many seconds a request to `model` was answered that was sent since."""
    kill(killed)
    began, before = time.monotonic(), ledger.outcomes(model)["200"] + ledger.pending
    until(lambda: ledger.outcomes(model)["200"] > before, BACK_SECONDS)
    return time.monotonic() - began


def load_seconds(server: Process, model: str) -> float:
    """Return how long a model took to load at the start, as the server told.

    The start of its process is part of it.
    """
    found = re.search(rf"^model {model}/1: ready \((\S+) s\)$", server.errors, re.MULTILINE)
    assert found, server.errors
    return float(found[1])
