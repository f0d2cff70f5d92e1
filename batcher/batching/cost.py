"""How long a batch takes: learnt online from those that ran, for each shape, seeded by warm-up.

The time of a batch of b rows is close to affine in b, but compiled sizes and caches make steps, so
nothing is fitted: sizes are kept in classes (1, 2, 3..4, 5..8, ...), each with a moving mean of
rows and seconds, and between two classes it is a straight line, which goes on beyond the largest;
below the smallest nothing is known, and what is unknown costs nothing: it has to be tried to be
learnt. One batch that took ten times as long (another process, a page fault) must not shut the
door: an observation counts as at most twice what was expected, so that a lasting change is learnt
in a few batches and a single one hardly moves anything.

Refused: one regression line over all sizes. Under steady load every batch has one size, and its
slope is then noise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

GAIN = 0.1
"""Weight of a new observation: the last twenty batches or so count."""

MOST = 2.0
"""An observation counts as at most so many times what was expected, and as at least that fraction
of it.
"""

STEP = 0.02
WIDEST = 0.1
"""Parts of a batch's time: by which the margin moves, and how wide it becomes."""

SHAPES = 64
"""Shapes whose own times are kept; the one that was seen longest ago is forgotten first."""


class SizeClass:
    """Batches of about one size.

    Attributes:
        rows: mean rows.
        seconds: mean seconds.
    """

    __slots__ = ("rows", "seconds")

    def __init__(self, rows: float, seconds: float) -> None:
        """Begin with one batch."""
        self.rows = rows
        self.seconds = seconds

    def add(self, rows: int, seconds: float) -> None:
        """Count one more."""
        expected = self.seconds * rows / self.rows
        within = min(max(seconds, expected / MOST), expected * MOST) if expected > 0 else seconds
        self.rows += GAIN * (rows - self.rows)
        self.seconds += GAIN * (within - self.seconds)


class Curve:
    """Seconds by rows, for one shape."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self._classes: dict[int, SizeClass] = {}

    def add(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        key = (rows - 1).bit_length()
        found = self._classes.get(key)
        if found is None:
            self._classes[key] = SizeClass(rows, seconds)
            self._classes = dict(sorted(self._classes.items()))
        else:
            found.add(rows, seconds)

    def learnt(self) -> list[tuple[float, float]]:
        """Return mean rows and mean seconds of each class of sizes, ascending."""
        return [(found.rows, found.seconds) for found in self._classes.values()]

    def seconds(self, rows: int) -> float:
        """Return the estimate for a batch of `rows` rows; 0 while nothing is known."""
        classes = list(self._classes.values())
        if not classes or ((rows - 1).bit_length() < next(iter(self._classes))):
            return 0.0
        high = next(
            (index for index, found in enumerate(classes) if found.rows >= rows), len(classes) - 1
        )
        if len(classes) == 1:
            return classes[0].seconds * max(rows / classes[0].rows, 1.0)
        return _on_line(classes[max(high - 1, 0)], classes[max(high, 1)], rows)


def _on_line(low: SizeClass, high: SizeClass, rows: int) -> float:
    """Return the seconds at `rows` on the line through two classes.

    Larger batches take no less than smaller ones.
    """
    slope = (
        max(high.seconds - low.seconds, 0.0) / (high.rows - low.rows)
        if high.rows > low.rows
        else 0.0
    )
    return max(high.seconds + slope * (rows - high.rows), 0.0)


class CostModel:
    """What is known of one model's batches.

    Seconds by rows and shape, and how much later than that answers leave.
    """

    def __init__(self) -> None:
        """Start knowing nothing: every estimate is 0, and nothing is refused for it."""
        self.margin = 0.0
        self._all = Curve()
        self._shapes: OrderedDict[Hashable, Curve] = OrderedDict()

    def seed(self, timings: Iterable[tuple[int, float]]) -> None:
        """Learn from warm-up: rows and seconds of batches."""
        for rows, seconds in timings:
            self._all.add(rows, seconds)

    def add(self, rows: int, group: Hashable, seconds: float, late: float = 0.0) -> None:
        """Learn from a batch of `rows` rows of the shape `group`.

        Args:
            rows: of the batch.
            group: its shape.
            seconds: that the worker took for it.
            late: seconds after those at which it was delivered.
        """
        self._learn_margin(late + seconds - self.seconds(rows, group), seconds)
        self._all.add(rows, seconds)
        if group == ():
            return
        curve = self._shapes.get(group)
        if curve is None:
            curve = self._shapes[group] = Curve()
            if len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
        curve.add(rows, seconds)
        self._shapes.move_to_end(group)

    def seconds(self, rows: int, group: Hashable = ()) -> float:
        """Return how long a batch of `rows` rows of the shape `group` is likely to keep the worker."""
        curve = self._shapes.get(group, self._all) if self._shapes else self._all
        return curve.seconds(rows)

    def learnt(self) -> list[tuple[float, float]]:
        """Return mean rows and mean seconds of batches of all shapes, by classes of sizes, ascending."""
        return self._all.learnt()

    def finish(self, rows: int, group: Hashable = ()) -> float:
        """Return within how many seconds such a batch, begun now, is answered nine times of ten."""
        seconds = self.seconds(rows, group)
        return seconds + self.margin if seconds else 0.0

    def _learn_margin(self, late: float, seconds: float) -> None:
        """Move towards the ninth decile of how late batches are, by steps in proportion to what they take, up to a part of it.

        A margin that follows single late batches far would keep out the very batches by which it
        could come down.
        """
        step = STEP * seconds
        margin = self.margin + (0.9 if late > self.margin else -0.1) * step
        self.margin = (
            min(max(margin, 0.0), WIDEST * seconds) if margin > self.margin else max(margin, 0.0)
        )
