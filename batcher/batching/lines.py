"""The order within a level: that of arrival, or smaller requests first.

Both kinds of line are maps from a part to None that iterate in the order in which parts are served,
and lose any of them at constant cost. Arrival order is an `OrderedDict` itself, so that nothing is
paid for what is not asked for.

Smaller first, a part counts as if it had come later by a step for each doubling of its rows. So it
is overtaken by smaller ones only if they came within a bounded time after it. Refused: shortest
first, under which a large request may wait for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, MutableMapping
from heapq import merge

from batcher.batching.part import Part


class SizedLine(MutableMapping[Part, None]):
    """Parts of one level, smaller ones first.

    A line in order of arrival for each size class (1, 2, 3..4, 5..8, ... rows).
    """

    __slots__ = ("_classes", "_rows", "_step")

    def __init__(self, step: float) -> None:
        """Let a part count as come `step` seconds later for each doubling of its rows."""
        self._step = step
        self._classes: dict[int, OrderedDict[Part, None]] = {}
        self._rows: dict[int, int] = {}

    def __len__(self) -> int:
        """How many parts wait."""
        return sum(map(len, self._classes.values()))

    def __getitem__(self, part: Part) -> None:
        """Return what stands beside `part`: nothing. Raises KeyError if it does not wait here."""
        return self._classes[_size_class(part.rows)][part]

    def __iter__(self) -> Iterator[Part]:
        """Iterate in the order in which they are served.

        Of two that are even, the smaller is first.
        """
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

    def rows_before(self, rows: int, now: float) -> int:
        """Return about how many rows are served before a part of `rows` rows that comes `now`.

        Of a larger class those that came long enough ago, as many as there are if they came evenly.
        """
        own = _size_class(rows)
        before = 0.0
        for size, line in self._classes.items():
            ahead = (size - own) * self._step
            waited = now - next(iter(line)).arrival
            if ahead <= 0:
                before += self._rows[size]
            elif ahead < waited:
                before += self._rows[size] * (1 - ahead / waited)
        return round(before)

    def _turn(self, part: Part) -> float:
        return part.arrival + self._step * _size_class(part.rows)


Line = MutableMapping[Part, None]


def fronts(line: Line) -> Iterable[Part]:
    """Return parts of `line`, which is not empty, among which is its oldest."""
    return line.fronts() if isinstance(line, SizedLine) else (next(iter(line)),)


def _size_class(rows: int) -> int:
    return (rows - 1).bit_length()
