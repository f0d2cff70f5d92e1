"""How long a batch takes: learnt from the batches that ran, for each shape, seeded by warm-up.

The time of a batch of b rows is close to a straight line in b, but compiled sizes and caches make
steps. So no line is fitted over all sizes. Sizes are kept in classes (1, 2, 3..4, 5..8, ... rows),
each with a moving mean of its rows and its seconds:

    mean = mean + 0.1 * (observation - mean)

Between two classes the estimate is a straight line, which goes on beyond the largest class.
Example: 2 rows take 3 ms and 4 rows take 5 ms: then 3 rows take 4 ms, and 8 rows take 9 ms. Below
the smallest class nothing is known, and an unknown size costs 0 s: a size has to be tried to be
learnt.

Warm-up tells of no shape, so what it shows counts for all shapes together. Beyond the largest class
of a shape, time grows as that of all shapes does, if that is less than the line says. Example: a
row takes 2 ms and 64 rows take 5 ms over all shapes, and of one shape only batches of one row have
run, in 3 ms each. Then 64 rows of that shape take 3 ms * 5 / 2 = 7.5 ms, and not 64 * 3 ms.

A single slow batch (another process, a page fault) must not have requests refused. So an
observation counts as at most twice the expected time, and as at least half of it: a lasting change
is learnt within a few batches, while one batch that took ten times as long moves the mean by a
tenth.

The margin is the time by which answers leave later than estimated, such that nine of ten leave
within estimate + margin.

Refused: one regression line over all sizes. Under steady load every batch has one size, and the
slope of the line is then noise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from math import inf

from batcher.core.run_sizes import ANY_ROWS

OBSERVATION_WEIGHT = 0.1
"""Weight of a new observation in a mean: about the last twenty batches count."""

MAX_SURPRISE = 2.0
"""Times the expected seconds that an observation counts as at most; at least, the inverse."""

MARGIN_STEP_SHARE = 0.02
"""Part of a batch's time by which the margin moves."""

MAX_MARGIN_SHARE = 0.1
"""Part of a batch's time up to which the margin grows."""

MAX_SHAPES = 64
"""Shapes whose own times are kept; the shape that was seen longest ago is forgotten first."""

LengthTimings = Mapping[tuple[int, int], float]
"""Seconds of batches by their rows and the elements of a row, padding included."""

NO_TIMINGS: LengthTimings = {}


class SizeClass:
    """Batches of about one size.

    Attributes:
        rows: mean rows.
        seconds: mean seconds.
    """

    __slots__ = ("rows", "seconds")

    def __init__(self, rows: float, seconds: float) -> None:
        """Start with one batch."""
        self.rows = rows
        self.seconds = seconds

    def add(self, rows: int, seconds: float) -> None:
        """Count one more batch."""
        expected = self.seconds * rows / self.rows
        believed = seconds
        if expected > 0:
            believed = min(max(seconds, expected / MAX_SURPRISE), expected * MAX_SURPRISE)
        self.rows += OBSERVATION_WEIGHT * (rows - self.rows)
        self.seconds += OBSERVATION_WEIGHT * (believed - self.seconds)


class Curve:
    """Seconds by rows, for one shape."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._classes: dict[int, SizeClass] = {}

    def add(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        key = (rows - 1).bit_length()
        size_class = self._classes.get(key)
        if size_class is None:
            self._classes[key] = SizeClass(rows, seconds)
            self._classes = dict(sorted(self._classes.items()))
        else:
            size_class.add(rows, seconds)

    def size_classes(self) -> list[tuple[float, float]]:
        """Return mean rows and mean seconds of each class of sizes, ascending."""
        return [(each.rows, each.seconds) for each in self._classes.values()]

    def seconds(self, rows: int, others: Curve | None = None) -> float:
        """Return the estimate for a batch of `rows` rows; 0 while nothing is known.

        Beyond the largest class, time grows no faster than that of `others`.
        """
        classes = list(self._classes.values())
        if not classes or ((rows - 1).bit_length() < next(iter(self._classes))):
            return 0.0
        high = next(
            (index for index, each in enumerate(classes) if each.rows >= rows), len(classes) - 1
        )
        if len(classes) == 1:
            # one point makes no line: more rows take as many times longer, fewer no less
            seconds = classes[0].seconds * max(rows / classes[0].rows, 1.0)
        else:
            seconds = _on_line(classes[max(high - 1, 0)], classes[max(high, 1)], rows)
        largest = classes[-1]
        if others is None or (rows - 1).bit_length() <= next(reversed(self._classes)):
            return seconds
        return min(seconds, largest.seconds * others.growth(round(largest.rows), rows))

    def growth(self, few: int, many: int) -> float:
        """Return how many times longer `many` rows take than `few`; infinity if that is unknown."""
        seconds = self.seconds(few)
        return max(self.seconds(many) / seconds, 1.0) if seconds else inf


def _on_line(low: SizeClass, high: SizeClass, rows: int) -> float:
    """Return the seconds at `rows` on the line through two classes, which never falls."""
    slope = 0.0
    if high.rows > low.rows:
        slope = max(high.seconds - low.seconds, 0.0) / (high.rows - low.rows)
    return max(high.seconds + slope * (rows - high.rows), 0.0)


class CostModel:
    """How long one model's batches take, by rows and shape. Reactor thread.

    Attributes:
        run_sizes: with how many rows batches run.
        margin: seconds by which answers leave later than estimated, at most, in nine of ten cases.
    """

    def __init__(self) -> None:
        """Start knowing nothing: every estimate is 0, so nothing is refused for it."""
        self.margin = 0.0
        self.run_sizes = ANY_ROWS
        self._all = Curve()
        # the shape that was seen longest ago first
        self._shapes: OrderedDict[Hashable, Curve] = OrderedDict()

    def seed(
        self, timings: Iterable[tuple[int, float]], length_timings: LengthTimings = NO_TIMINGS
    ) -> None:
        """Learn from warm-up: rows and seconds of batches.

        `length_timings` are for models whose rows are padded (`ragged_cost`).
        """
        for rows, seconds in timings:
            self._all.add(self._run_as(rows), seconds)

    def add(self, rows: int, group: Hashable, seconds: float, late: float = 0.0) -> None:
        """Learn from a batch of `rows` rows of the shape `group`.

        Args:
            rows: rows of the batch.
            group: the shape; the empty tuple for a model whose rows have one shape.
            seconds: time that the worker took for the batch.
            late: seconds from then until the batch was delivered.
        """
        rows = self._run_as(rows)
        self._learn_margin(late + seconds - self.seconds(rows, group), seconds)
        self._all.add(rows, seconds)
        if group == ():
            return
        curve = self._shapes.get(group)
        if curve is None:
            curve = self._shapes[group] = Curve()
            if len(self._shapes) > MAX_SHAPES:
                self._shapes.popitem(last=False)
        curve.add(rows, seconds)
        self._shapes.move_to_end(group)

    def seconds(self, rows: int, group: Hashable = ()) -> float:
        """Return how long a batch of `rows` rows of `group` is likely to keep its worker."""
        curve = self._shapes.get(group) if self._shapes else None
        rows = self._run_as(rows)
        return self._all.seconds(rows) if curve is None else curve.seconds(rows, self._all)

    def size_classes(self) -> list[tuple[float, float]]:
        """Return mean rows and mean seconds of each class of sizes, over all shapes, ascending."""
        return self._all.size_classes()

    @property
    def shape_count(self) -> int:
        """Shapes whose own times are kept: 0 where rows have one shape."""
        return len(self._shapes)

    def finish(self, rows: int, group: Hashable = ()) -> float:
        """Return within how many seconds a batch that begins now is answered, nine times of ten."""
        seconds = self.seconds(rows, group)
        return seconds + self.margin if seconds else 0.0

    def _run_as(self, rows: int) -> int:
        """Return the rows that a batch of `rows` rows runs with."""
        return rows if self.run_sizes is ANY_ROWS else self.run_sizes.runs_as(rows)

    def _learn_margin(self, late: float, seconds: float) -> None:
        """Move the margin towards the ninth decile of `late`.

        Up by 0.9 steps, down by 0.1: the two are in balance where one batch in ten is later. A step
        is a part of the batch's time, and so is the limit: a margin that followed single late
        batches far would refuse the very requests whose batches could bring it down again.
        """
        step = MARGIN_STEP_SHARE * seconds
        margin = self.margin + (0.9 if late > self.margin else -0.1) * step
        if margin > self.margin:
            margin = min(margin, MAX_MARGIN_SHARE * seconds)
        self.margin = max(margin, 0.0)
