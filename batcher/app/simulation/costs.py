"""How long simulated batches take: a straight line, or a table of measured sizes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from batcher.app.simulation.reading import duration, number, numbers_of_file, split_pairs
from batcher.errors import ConfigError

EXPECTED = (
    "expected a line such as 4ms+0.25ms (a batch, and each row), sizes such as 1=2ms,8=3ms,32=8ms, "
    "or a file of lines rows,seconds"
)


class BatchCost(Protocol):
    """How long a batch takes on average."""

    def seconds(self, rows: float) -> float:
        """Return the mean seconds of a batch of `rows` rows."""


class AffineCost(NamedTuple):
    """seconds = beta + alpha * rows.

    Attributes:
        beta: seconds that each batch takes.
        alpha: seconds that each row adds.
    """

    beta: float
    alpha: float

    def seconds(self, rows: float) -> float:
        """Return the mean seconds of a batch of `rows` rows."""
        return self.beta + self.alpha * rows


class TableCost:
    """Measured sizes, with straight lines between them.

    Smaller batches than the smallest size take as long as that one. The line through the two
    largest sizes goes on beyond the largest, where it rises.
    """

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        """Take `points`, pairs of rows and seconds.

        Raises:
            ConfigError: there is no point, or one that is not positive.
        """
        self.points = sorted(points)
        if not self.points or self.points[0][0] <= 0 or min(self.points, key=_second)[1] <= 0:
            raise ConfigError(
                f"expected sizes with rows and seconds above 0; got {self.points[:3] or 'none'}"
            )
        self._rows = [rows for rows, _ in self.points]

    def seconds(self, rows: float) -> float:
        """Return the mean seconds of a batch of `rows` rows."""
        points, above = self.points, bisect_left(self._rows, rows)
        if above == 0:
            return points[0][1]
        if above == len(points):
            return self._beyond(rows)
        (low, low_seconds), (high, high_seconds) = points[above - 1], points[above]
        return low_seconds + (high_seconds - low_seconds) * (rows - low) / (high - low)

    def _beyond(self, rows: float) -> float:
        last, seconds = self.points[-1]
        if len(self.points) == 1:
            return seconds * rows / last
        before, less = self.points[-2]
        slope = max(seconds - less, 0.0) / (last - before) if last > before else 0.0
        return seconds + slope * (rows - last)


class Noise:
    """Factors of mean 1 by which batches differ from the mean time: log-normal.

    A sum of many small delays is no model of a batch's time: a batch is late by a factor, and never
    faster than nothing.
    """

    def __init__(self, deviation: float, seed: int) -> None:
        """Draw factors whose logarithms have the standard deviation `deviation`."""
        self._deviation = deviation
        self._random = Random(seed)

    def factor(self) -> float:
        """Return the next factor; 1 without noise."""
        if not self._deviation:
            return 1.0
        return self._random.lognormvariate(-(self._deviation**2) / 2, self._deviation)


def read_cost(text: str) -> BatchCost:
    """Return the cost that `text` says.

    Raises:
        ConfigError: `text` is no cost.
    """
    if "=" in text:
        pairs = split_pairs(text, f"{EXPECTED}; got {text!r}")
        return TableCost((number(rows, "rows"), duration(time)) for rows, time in pairs)
    if "+" in text and not Path(text).is_file():
        beta, _, alpha = text.partition("+")
        cost = AffineCost(duration(beta), duration(alpha))
        if cost.seconds(1) <= 0:
            raise ConfigError(f"{EXPECTED}, above 0; got {text!r}")
        return cost
    if not Path(text).is_file():
        raise ConfigError(f"{EXPECTED}; got {text!r}, and there is no such file")
    return TableCost(
        (rows, seconds) for rows, seconds, *_ in numbers_of_file(Path(text), ("rows", "seconds"), 2)
    )


def _second(pair: tuple[float, float]) -> float:
    return pair[1]
