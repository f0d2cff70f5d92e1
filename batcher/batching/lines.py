"""The order within a level: the order of arrival, or smaller requests first.

Both kinds of line are maps from a part to None. A line iterates in the order in which parts are
served, and loses any part at constant cost. The order of arrival is an `OrderedDict` itself, so a
model that does not ask for smaller requests first pays nothing for the choice.

With smaller requests first, a part counts as if it had arrived later:

    turn = arrival + step * (number of doublings from 1 row to its rows)

Example: step = 10 ms. A part of 8 rows (3 doublings) that arrived at 0 ms has its turn at 30 ms, so
single rows that arrive within 30 ms overtake it, and later ones do not. Refused: shortest first,
under which a large request may wait for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping
from heapq import merge

from batcher.batching.part import Part


class SizedLine(MutableMapping[Part, None]):
    """Parts of one level, smaller ones first.

    Inside stands one line in order of arrival for each size class (1, 2, 3..4, 5..8, ... rows).
    """

    __slots__ = ("_classes", "_rows", "_step")

    def __init__(self, step: float) -> None:
        """Let a part count as arrived `step` seconds later for each doubling of its rows."""
        self._step = step
        self._classes: dict[int, OrderedDict[Part, None]] = {}
        self._rows: dict[int, int] = {}  # by size class

    def __len__(self) -> int:
        """How many parts wait."""
        return sum(map(len, self._classes.values()))

    def __getitem__(self, part: Part) -> None:
        """Return None, or raise KeyError if `part` does not wait here."""
        return self._classes[_size_class(part.rows)][part]

    def __iter__(self) -> Iterator[Part]:
        """Iterate in the order in which parts are served; of two that are even, smaller first."""
        return merge(*(self._classes[size] for size in sorted(self._classes)), key=self._turn)

    def __setitem__(self, part: Part, nothing: None) -> None:
        """Let `part` wait."""
        size = _size_class(part.rows)
        line = self._classes.get(size)
        if line is None:
            line = self._classes[size] = OrderedDict()
        line[part] = nothing
        self._rows[size] = self._rows.get(size, 0) + part.rows

    def __delitem__(self, part: Part) -> None:
        """Let `part`, which waits, go."""
        size = _size_class(part.rows)
        line = self._classes[size]
        del line[part]
        self._rows[size] -= part.rows
        if not line:
            del self._classes[size]

    def fronts(self) -> Iterable[Part]:
        """Return the oldest part of each size class."""
        return [next(iter(line)) for line in self._classes.values()]

    def rows_ahead(self, rows: int, now: float) -> int:
        """Return about how many rows are served before a part of `rows` rows that comes `now`.

        Of a larger size class, only parts that arrived long enough ago are. How many those are is
        estimated as if the parts of the class had arrived evenly over time.
        """
        own = _size_class(rows)
        ahead = 0.0
        for size, line in self._classes.items():
            lead = (size - own) * self._step  # seconds that the larger class has to be older
            waited = now - next(iter(line)).arrival
            if lead <= 0:
                ahead += self._rows[size]
            elif lead < waited:
                ahead += self._rows[size] * (1 - lead / waited)
        return round(ahead)

    def _turn(self, part: Part) -> float:
        return part.arrival + self._step * _size_class(part.rows)


Line = MutableMapping[Part, None]


def fronts(line: Line) -> Iterable[Part]:
    """Return parts of `line`, which is not empty, among which is its oldest."""
    return line.fronts() if isinstance(line, SizedLine) else (next(iter(line)),)


def _size_class(rows: int) -> int:
    """Return how often 1 has to be doubled to reach `rows`."""
    return (rows - 1).bit_length()
