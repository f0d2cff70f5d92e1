"""What tests of the load generator share: time and connections in memory, and tallies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, cast

from benchmarks.load import LoadOptions, LoadResult
from benchmarks.loadgen.report import conclude
from benchmarks.loadgen.tally import ErrorKind, Tally
from benchmarks.loadgen.traffic import OpenLoop

URL = "http://127.0.0.1:8080/predict"


class Clock:
    """Time that moves only by assignment."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A connection that remembers the requests that it was to send."""

    def __init__(self) -> None:
        self.open = True
        self.due: list[float] = []

    def send(self, due: float, now: float) -> None:
        self.due.append(due)


def take(number: int, times: Iterator[float]) -> list[float]:
    return list(itertools.islice(times, number))


def open_loop(*due: float, end: float = math.inf) -> tuple[OpenLoop, Tally, Clock]:
    clock, tally = Clock(), Tally(0.0, end)
    traffic = OpenLoop(itertools.chain(due, itertools.repeat(math.inf)), clock)
    traffic.start(0.0, tally)
    return traffic, tally, clock


def settled(**counts: int) -> Tally:
    """Return the tally of a window of 2 s.

    `answered` counts answers 200 within the window; other names count failures of that kind.
    """
    tally = Tally(10.0, 12.0)
    for kind, count in counts.items():
        for _ in range(count):
            tally.taken_up(11.0, 11.0005)
            if kind not in ("connect", "wait_timeout"):
                tally.sent(11.0, 0.0)
            if kind == "answered":
                tally.answered(11.0, 200, 11.25)
            else:
                tally.failed(11.0, cast(ErrorKind, kind))
    return tally


def result_of(tally: Tally, max_lag_ms: float = 2.0, **options: Any) -> LoadResult:
    return conclude(tally, LoadOptions(URL, **options).describe(), max_lag_ms, 0.25)
