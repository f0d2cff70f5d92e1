"""How long a batch of padded rows takes: learnt as a plane over its rows and its elements.

    seconds = base + per_row * rows + per_element * rows * elements of a padded row

The plane is fitted to the means of batches of about one size: sizes are kept in classes of rows and
of elements (1, 2, 3..4, 5..8, ...), and what a class says is worth half as much after 200 more
batches. Errors count by their share of the time, so that small batches are fitted as well as large
ones, and no term is negative.

Between two explanations that fit alike, such as the rows or the elements of batches whose rows have
one length, the elements are taken: longer rows do cost more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from batcher.batching.cost import (
    MAX_SURPRISE,
    NO_TIMINGS,
    OBSERVATION_WEIGHT,
    CostModel,
    LengthTimings,
)
from batcher.core.padding import RaggedGroup

HALF_LIFE = 200.0
"""Batches after which what a class says is worth half: a lasting change is learnt by then."""

RIDGE = (1e-7, 1e-4, 1e-7)
"""By how much each term is drawn to zero, as a share; most the time for a row alone."""

OWN_BASE_SHARE = 0.5
"""Share of the time of a batch that counts as its base while batches of one size alone are known.

Without a base each length would get a batch of its own, and nothing else would be learnt.
"""

_TERMS = ((0, 1, 2), (0, 2), (0, 1), (1, 2), (2,), (1,), (0,))
"""Sets of terms that may be above zero."""


class _SizeClass:
    """Batches of about one size: mean rows, mean elements of all rows, mean seconds."""

    __slots__ = ("elements", "last", "rows", "seconds")

    def __init__(self, rows: float, elements: float, seconds: float, last: int) -> None:
        self.rows = rows
        self.elements = elements
        self.seconds = seconds
        self.last = last


class Plane:
    """Seconds of a batch by its rows and the elements of a row.

    Attributes:
        base: seconds of a batch, however small.
        per_row: seconds of a row, however short.
        per_element: seconds of an element.
    """

    def __init__(self) -> None:
        """Start knowing nothing: every batch takes 0 s."""
        self.base = 0.0
        self.per_row = 0.0
        self.per_element = 0.0
        self._classes: dict[tuple[int, int], _SizeClass] = {}
        self._batches = 0

    def seconds(self, rows: int, elements: float) -> float:
        """Return the estimate for `rows` rows of `elements` elements each."""
        return self.base + rows * self.slope(elements)

    def slope(self, elements: float) -> float:
        """Return the seconds that one more row of `elements` elements adds to a batch."""
        return self.per_row + self.per_element * elements

    def add(self, rows: int, elements: int, seconds: float) -> None:
        """Learn from a batch of `rows` rows of `elements` elements each."""
        self._batches += 1
        key = ((rows - 1).bit_length(), max(elements - 1, 0).bit_length())
        found = self._classes.get(key)
        if found is None:
            self._classes[key] = _SizeClass(rows, rows * elements, seconds, self._batches)
        else:
            self._move(found, rows, elements, seconds)
        # The first batches teach most; later ones change little each.
        if self._batches <= 64 or self._batches % 8 == 0:
            self._fit()

    def _move(self, mean: _SizeClass, rows: int, elements: int, seconds: float) -> None:
        """Move the means of a class towards one more batch."""
        known = self.seconds(round(mean.rows), mean.elements / mean.rows)
        scale = self.seconds(rows, elements) / known if known > 0 else 1.0
        expected = mean.seconds * scale
        believed = min(max(seconds, expected / MAX_SURPRISE), expected * MAX_SURPRISE)
        mean.rows += OBSERVATION_WEIGHT * (rows - mean.rows)
        mean.elements += OBSERVATION_WEIGHT * (rows * elements - mean.elements)
        mean.seconds += OBSERVATION_WEIGHT * (believed - mean.seconds)
        mean.last = self._batches

    def _fit(self) -> None:
        """Find the plane of the least squares of relative errors, without negative terms."""
        known = [each for each in self._classes.values() if each.seconds > 0]
        if len(known) < 2:
            self._guess(known)
            return
        squares, products = self._normal_equations(known)
        best = 0.0
        for terms in _TERMS:
            found = _solved(squares, products, terms)
            gain = 0.0
            for index in range(len(found)):
                gain += found[index] * products[terms[index]]
            if found and min(found) >= 0.0 and gain > best:
                best = gain
                values = dict(zip(terms, found, strict=True))
                self.base = values.get(0, 0.0)
                self.per_row = values.get(1, 0.0)
                self.per_element = values.get(2, 0.0)

    def _normal_equations(self, known: list[_SizeClass]) -> tuple[list[list[float]], list[float]]:
        """Return the sums of squares and of products of the fit."""
        squares, products = [[0.0, 0.0, 0.0] for _ in range(3)], [0.0, 0.0, 0.0]
        for each in known:
            worth = 0.5 ** ((self._batches - each.last) / HALF_LIFE)
            row = [1.0 / each.seconds, each.rows / each.seconds, each.elements / each.seconds]
            for high in range(3):
                products[high] += worth * row[high]
                for low in range(3):
                    squares[high][low] += worth * row[high] * row[low]
        for term in range(3):
            squares[term][term] *= 1.0 + RIDGE[term]
        return squares, products

    def _guess(self, known: list[_SizeClass]) -> None:
        """Take a plane that batches of one size alone do not contradict."""
        for each in known:
            self.base, self.per_row = OWN_BASE_SHARE * each.seconds, 0.0
            self.per_element = (1 - OWN_BASE_SHARE) * each.seconds / max(each.elements, 1.0)


def _solved(
    squares: list[list[float]], products: list[float], terms: tuple[int, ...]
) -> list[float]:
    """Solve the normal equations of `terms` alone; return nothing where they have no solution."""
    rows = [[*[squares[high][low] for low in terms], products[high]] for high in terms]
    count = len(rows)
    for step in range(count):
        pivot = rows[step][step]
        if pivot <= 0.0:
            return []
        rows[step] = [value / pivot for value in rows[step]]
        for other in range(count):
            if other != step:
                factor = rows[other][step]
                rows[other] = [
                    value - factor * own for value, own in zip(rows[other], rows[step], strict=True)
                ]
    return [row[count] for row in rows]


class RaggedCostModel(CostModel):
    """How long batches of a model take whose rows are padded. Reactor thread.

    Attributes:
        plane: seconds by rows and elements.
    """

    def __init__(self) -> None:
        """Start knowing nothing."""
        super().__init__()
        self.plane = Plane()
        self._mean_elements = 0.0  # of a row, of late

    def seed(
        self, timings: Iterable[tuple[int, float]], length_timings: LengthTimings = NO_TIMINGS
    ) -> None:
        """Learn from warm-up: rows and seconds of batches, and seconds by the length of rows."""
        super().seed(timings)
        for (rows, elements), seconds in length_timings.items():
            self.plane.add(rows, elements, seconds)
            # The length of warm-up's own rows is run first: more like requests than the others.
            self._mean_elements = self._mean_elements or float(elements)

    def add(self, rows: int, group: Hashable, seconds: float, late: float = 0.0) -> None:
        """Learn from a batch of `rows` rows of the padded shape `group`."""
        if not isinstance(group, RaggedGroup):
            super().add(rows, group, seconds, late)
            return
        super().add(rows, (), seconds, late)
        self.plane.add(rows, group.elements, seconds)
        if not self._mean_elements:
            self._mean_elements = float(group.elements)
        self._mean_elements += OBSERVATION_WEIGHT * (group.elements - self._mean_elements)

    def seconds(self, rows: int, group: Hashable = ()) -> float:
        """Return how long a batch of `rows` rows of `group` is likely to keep its worker.

        Rows of a group without a length have the mean length of late.
        """
        if not isinstance(group, RaggedGroup):
            return super().seconds(rows, group)
        return self.plane.seconds(rows, group.elements or self._mean_elements)
