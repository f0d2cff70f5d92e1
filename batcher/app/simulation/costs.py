"""How long simulated batches take: a straight line, or a table of measured sizes.

Where rows are padded, a row of the batch has as many elements as the longest one, and a batch takes

    seconds = beta + rows * (alpha + gamma * elements of a row)

or what was measured with rows of some lengths, and between two lengths a straight line.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

from batcher.app.simulation.reading import (
    Column,
    duration,
    number,
    numbers_of_file,
    split_pairs,
)
from batcher.errors import ConfigError

EXPECTED = (
    "expected a line such as 4ms+0.25ms (a batch, and each row; +1us for each element of a padded "
    "row), sizes such as 1=2ms,8=3ms,32=8ms, or a file of lines rows,seconds[,elements]"
)

COLUMNS = (Column("rows", 1, is_whole=True), Column("seconds", 0), Column("elements", 0))
"""Numbers of a line of a file."""

TERMS = 3
"""Terms of a line: a batch, each row, each element."""


class BatchCost(Protocol):
    """How long a batch takes on average."""

    @property
    def has_elements(self) -> bool:
        """Whether that depends on the elements of a row."""

    def seconds(self, rows: float, elements: float = 0.0) -> float:
        """Return the mean seconds of a batch of `rows` rows, each of so many `elements`.

        Elements are those of the longest row, with its padding; 0 where rows are not padded.
        """


class AffineCost(NamedTuple):
    """seconds = beta + rows * (alpha + gamma * elements).

    Attributes:
        beta: seconds that each batch takes.
        alpha: seconds that each row adds.
        gamma: seconds that each element adds, padding included.
    """

    beta: float
    alpha: float
    gamma: float = 0.0

    @property
    def has_elements(self) -> bool:
        """Whether elements add anything."""
        return self.gamma > 0

    def seconds(self, rows: float, elements: float = 0.0) -> float:
        """Return the mean seconds of a batch of `rows` rows, each of so many `elements`."""
        return self.beta + rows * (self.alpha + self.gamma * elements)


class TableCost:
    """Measured sizes, with straight lines between them; the elements of a row don't matter.

    Smaller batches than the smallest size take as long as that one. The line through the two
    largest sizes goes on beyond the largest, where it rises.
    """

    has_elements = False

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

    def seconds(self, rows: float, elements: float = 0.0) -> float:
        """Return the mean seconds of a batch of `rows` rows, whatever their `elements`."""
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


class GridCost:
    """Measured sizes of rows of some lengths, with straight lines between the lengths.

    Shorter rows than the shortest take as long as that one. The line through the two longest goes
    on beyond the longest, where it rises.
    """

    has_elements = True

    def __init__(self, tables: Mapping[float, TableCost]) -> None:
        """Take `tables`, at least one, by the elements of a row."""
        self.tables = dict(sorted(tables.items()))
        self._lengths = list(self.tables)
        self._costs = list(self.tables.values())

    def seconds(self, rows: float, elements: float = 0.0) -> float:
        """Return the mean seconds of a batch of `rows` rows, each of so many `elements`."""
        lengths, costs = self._lengths, self._costs
        place = bisect_left(lengths, elements)
        if place == 0 or len(lengths) == 1:
            return costs[0].seconds(rows)
        if place == len(lengths):
            return self._beyond(rows, elements)
        low, high = lengths[place - 1], lengths[place]
        less, more = costs[place - 1].seconds(rows), costs[place].seconds(rows)
        return less + (more - less) * (elements - low) / (high - low)

    def _beyond(self, rows: float, elements: float) -> float:
        less, more = (cost.seconds(rows) for cost in self._costs[-2:])
        low, high = self._lengths[-2:]
        return more + max(more - less, 0.0) * (elements - high) / (high - low)


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
        times = [duration(part) for part in text.split("+")]
        if len(times) > TERMS:
            raise ConfigError(f"{EXPECTED}; got {text!r}")
        cost = AffineCost(*times)
        if cost.seconds(1, 1) <= 0:
            raise ConfigError(f"{EXPECTED}, above 0; got {text!r}")
        return cost
    if not Path(text).is_file():
        raise ConfigError(f"{EXPECTED}; got {text!r}, and there is no such file")
    return _of_file(Path(text))


def _of_file(path: Path) -> BatchCost:
    lines = list(numbers_of_file(path, COLUMNS, 2))
    lengths = sorted({elements for *_, elements in lines if elements is not None})
    if not lengths:
        return TableCost((rows, seconds) for rows, seconds, _ in lines)
    if any(elements is None for *_, elements in lines):
        raise ConfigError(f"{path}: expected elements in each line or in none; got both")
    return GridCost(
        {
            length: TableCost((rows, seconds) for rows, seconds, own in lines if own == length)
            for length in lengths
        }
    )


def _second(pair: tuple[float, float]) -> float:
    return pair[1]
