"""The process in which hostile clients live: they must not take time from the probes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from benchmarks.hostile_kinds.kind import Attack, Kind, Target

_PREPARE_LIMIT_S = 300.0
_CONTEXT = multiprocessing.get_context("fork")  # what prepares a kind need not be pickled


class Attackers:
    """The clients of one kind, in a process of their own that gives way to all others."""

    def __init__(self, kind: Kind) -> None:
        """Start the process, which prepares what it will send."""
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_live, args=(kind, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_ready(self) -> None:
        """Wait until everything to be sent is made."""
        if not self._pipe.poll(_PREPARE_LIMIT_S):
            raise RuntimeError("the hostile clients were not ready in time")
        self._pipe.recv()

    def attack(self, target: Target, seconds: float) -> dict[str, int]:
        """Attack `target` for `seconds`, each client at least once; return the counted results."""
        self._pipe.send((target, seconds))
        found: dict[str, int] = self._pipe.recv()
        self._process.join()
        return found

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _live(kind: Kind, pipe: Connection) -> None:
    os.nice(19)
    attack = kind.prepare()
    pipe.send("ready")
    target, seconds = pipe.recv()
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(kind.clients) as pool:
        counts = list(pool.map(lambda _: _repeat(attack, target, end), range(kind.clients)))
    pipe.send(dict(sum(counts, Counter[str]())))


def _repeat(attack: Attack, target: Target, end: float) -> Counter[str]:
    found = Counter([attack(target)])
    while time.monotonic() < end:
        found[attack(target)] += 1
    return found
