"""Which level of priority is served next: stride scheduling, with shares that grow by waiting.

Each level has a clock. Serving rows of a level advances its clock, and the level whose clock is
furthest behind is next; of two that are even, the higher priority (the lower number) is:

    clock = clock + rows / (weight * (1 + waited / ageing))

`weight` is the share of the level, `waited` the seconds since the part arrived, and `ageing` the
seconds after which the share of a part counts twice.

Example without waits: level 1 has weight 4, level 2 weight 1, and all parts have one row. One row
advances the clock of level 1 by 0.25 and that of level 2 by 1. So the levels are served in the
order 1, 2, 1, 1, 1, 1, 2, 1, 1, 1, 1, ...: four rows to one.

Example of ageing: with ageing = 10 s a part of level 2 that waited 30 s advances the clock by
1 / (1 * (1 + 3)) = 0.25, as a fresh part of level 1 does: such parts share the batches evenly.

Every positive weight gets its share, so nothing starves; strict levels were refused for that
reason. Parts that waited equally long keep the shares of their weights. Without ageing, weights as
uneven as 1000 to 1 would let requests wait out of all proportion. Refused: to let an old part pass
for a part of the level above, which takes the number of a level for a measure of time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from math import ceil

from batcher.batching.part import Part


class StrideClocks:
    """The clocks of all levels of one queue.

    Attributes:
        clocks: by level, the rows that were served, divided by weights as above.
    """

    def __init__(self, weight: Callable[[int], float], ageing: float) -> None:
        """Start with no level.

        Args:
            weight: gives the share of a level, above 0.
            ageing: seconds of waiting after which a part's share counts twice; may be infinite.
        """
        self.clocks: dict[int, float] = {}
        self._weight = weight
        self._weights: dict[int, float] = {}
        self._ageing = ageing

    def start(self, level: int, busy: Collection[int]) -> None:
        """Let `level`, of which nothing waited, take turns with the `busy` levels.

        The clock catches up with the clock that is furthest behind: a level of which nothing waited
        has saved up no turns.
        """
        clocks = self.clocks
        now = min(clocks[each] for each in busy) if busy else max(clocks.values(), default=0.0)
        clocks[level] = max(clocks.get(level, now), now)
        self._weights[level] = self._weight(level)

    def stride(self, part: Part, now: float) -> float:
        """Return by how much serving `part` advances the clock of its level."""
        waited = max(now - part.arrival, 0.0)  # the clock may have been set back
        return part.rows / (self._weights[part.level] * (1.0 + waited / self._ageing))

    def rows_of_others(self, rows: int, level: int, waiting: Mapping[int, int]) -> int:
        """Return about how many rows of other levels are served until `rows` of `level` are.

        `waiting` says how many rows of each level wait. The shares of the weights decide, ageing
        left out: rows_of_others = sum of min(waiting, rows * weight of other / weight).
        """
        weight = self._weight(level)
        others = ((other, most) for other, most in waiting.items() if other != level)
        return sum(min(most, ceil(rows * self._weight(other) / weight)) for other, most in others)


def next_level(levels: Iterable[int], clocks: Mapping[int, float]) -> int:
    """Return which of `levels`, at least one, is furthest behind by `clocks`."""
    return min(levels, key=lambda level: (clocks[level], level))
