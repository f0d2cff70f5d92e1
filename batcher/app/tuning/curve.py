"""l(b): how long a batch of b rows takes, measured on the loaded model.

Batches of 1, 2, 4, ... rows run, up to the present `max_batch_size` and beyond. A size is the end

    if a row costs clearly more in it, and in the size before, than in a smaller batch,
    if it gains next to nothing beyond the present `max_batch_size`,
    if it takes longer than the deadline, or than there is time for,
    if it does not fit into the memory, or the model takes no batch of that size.

Other programs disturb single runs, and a machine gets slower when it gets warm. So sizes take
turns, several rounds of them, and the median of all runs counts. A size is known when the median is
likely to be off by less than one percent. The rounds end when all sizes are known, or at the end of
the time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf, log, sqrt
from statistics import median
from typing import NamedTuple

Run = Callable[[int], Awaitable[float | None]]
"""Runs a batch of so many rows, and returns its seconds; None if it did not run as one batch."""

COSTLIER = 1.25
"""Times the least cost of a row from which larger batches are not worth running. Between the two a
row may still be cheaper in a batch twice as large, as at the edge of a cache."""

GAIN = 0.97
"""Share of the cost of a row below which a batch twice as large is worth being measured beyond the
present largest size."""

FIRST_RUNS, MOST_RUNS = 3, 40
"""Runs of a size in the first round, and in all."""

VISIT_S = 0.05
"""Seconds that a size has in one round, for as many runs as fit: rounds of fast sizes are short."""

GOOD_ERROR = 0.01
"""Likely error of a median, as a share, that is good enough: choosing overlooks as much."""

DEVIATIONS = 1.4826
"""Standard deviations in a median absolute deviation, of a normal distribution."""


class Limits(NamedTuple):
    """What bounds the sizes.

    Attributes:
        present: rows of the largest batch as the model is run now.
        most: rows of the largest batch that can be run.
        deadline: seconds that a batch may take; None for any number.
        longest: seconds of a batch beyond which there is no time for larger ones.
    """

    present: int
    most: int
    deadline: float | None = None
    longest: float = inf


class Timing(NamedTuple):
    """The runs of one size.

    Attributes:
        rows: rows of the batch.
        runs: seconds of each run.
    """

    rows: int
    runs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Median seconds."""
        return median(self.runs)

    @property
    def row_seconds(self) -> float:
        """Median seconds of a row."""
        return self.seconds / self.rows

    @property
    def least_row_seconds(self) -> float:
        """Seconds of a row in the fastest run, which nothing has disturbed."""
        return min(self.runs) / self.rows

    @property
    def deviation(self) -> float:
        """Deviation of the logarithm of the seconds, without regard to single slow runs."""
        middle = self.seconds
        return DEVIATIONS * median(abs(log(run / middle)) for run in self.runs)

    @property
    def is_known(self) -> bool:
        """Whether further runs would hardly move the median."""
        count = len(self.runs)
        return count >= MOST_RUNS or (
            count > FIRST_RUNS and self.deviation / sqrt(count) < GOOD_ERROR
        )


class Curve(NamedTuple):
    """The sizes that were measured.

    Attributes:
        timings: one for each size, ascending.
        end: why no larger size was measured.
    """

    timings: tuple[Timing, ...]
    end: str

    @property
    def points(self) -> list[tuple[float, float]]:
        """Rows and seconds of each size."""
        return [(timing.rows, timing.seconds) for timing in self.timings]

    @property
    def sizes(self) -> list[int]:
        """Rows of each size."""
        return [timing.rows for timing in self.timings]

    @property
    def deviation(self) -> float:
        """Deviation of the logarithm of a batch's seconds, middle of all sizes."""
        return median(timing.deviation for timing in self.timings)

    def at(self, rows: int) -> Timing | None:
        """Return the runs of a size; None if it was not measured."""
        return next((timing for timing in self.timings if timing.rows == rows), None)


async def measured(
    run: Run, limits: Limits, clock: Callable[[], float], left: Callable[[], float]
) -> Curve:
    """Return the curve of the model that `run` runs.

    Args:
        run: runs a batch.
        limits: bound the sizes.
        clock: the time, in seconds.
        left: seconds that are left. One round is always made.
    """
    runs: dict[int, list[float]] = {}
    end = await _first_round(run, limits, clock, runs)
    while left() and not all(timing.is_known for timing in _timings(runs)):
        for timing in _timings(runs):
            if left() and not timing.is_known:
                runs[timing.rows] += await _visited(run, timing.rows, clock) or []
    return Curve(tuple(_timings(runs)), end)


async def _first_round(
    run: Run, limits: Limits, clock: Callable[[], float], runs: dict[int, list[float]]
) -> str:
    """Put the first runs of each size into `runs`; return why no larger size was measured."""
    for size in _sizes(limits):
        found = await _visited(run, size, clock, FIRST_RUNS)
        if found is None:
            return f"a batch of {size} rows does not run as one: memory, or the model, sets the end"
        runs[size] = found
        if reason := _reason_to_end(_timings(runs), limits):
            return reason
    return f"no larger batch than {limits.most} rows was tried"


def _sizes(limits: Limits) -> list[int]:
    powers = [1 << power for power in range(limits.most.bit_length())]
    return sorted({*powers, limits.present})


def _timings(runs: dict[int, list[float]]) -> list[Timing]:
    return [Timing(rows, tuple(seconds)) for rows, seconds in sorted(runs.items())]


async def _visited(
    run: Run, rows: int, clock: Callable[[], float], least: int = 1
) -> list[float] | None:
    """Return the seconds of some runs of a size; None if it does not run as one batch."""
    found: list[float] = []
    if least > 1 and await run(rows) is None:  # the first run pays for what is made once
        return None
    began = clock()
    while len(found) < least or clock() - began < VISIT_S:
        seconds = await run(rows)
        if seconds is None:
            return None
        found.append(seconds)
        if len(found) == MOST_RUNS:
            break
    return found


def _reason_to_end(timings: list[Timing], limits: Limits) -> str:
    """Return why no larger size is worth being measured; empty if one may be."""
    last, before = timings[-1], timings[:-1]
    if limits.deadline is not None and last.seconds > limits.deadline:
        return f"a batch of {last.rows} rows takes longer than the deadline"
    # The fastest run: something else on the machine may hold up one batch, not all of them.
    if min(last.runs) > limits.longest:
        return f"there is no time for larger batches than {last.rows}"
    if not before:
        return ""
    cheapest = min(before, key=lambda timing: timing.least_row_seconds)
    if all(each.least_row_seconds > COSTLIER * cheapest.least_row_seconds for each in timings[-2:]):
        return f"a row costs more in batches of {last.rows} than in one of {cheapest.rows}"
    if last.rows > limits.present and last.least_row_seconds > GAIN * cheapest.least_row_seconds:
        return f"a row costs as much in a batch of {last.rows} as in one of {cheapest.rows}"
    return ""
