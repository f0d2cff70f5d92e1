"""The parts that wait, in the order in which they are served: over levels by their shares.

`Levels` must

- find the next batch in time proportional to the size of that batch;
- remove any part, wherever the part stands, at constant cost;
- keep requests of different shapes apart, since a batch holds one shape;
- give each level of priority its share (`stride`);
- keep the order of arrival within a level, or smaller requests first (`lines`).

So each part stands in two lines. The line of its level, over all shapes, says which part has the
turn. The line of its level within its shape is what a batch is filled from. Both lines allow a
removal anywhere.

    level 1:   a1  b1  a2               the turn: a1, so the batch is filled from shape a
    level 2:   b2  a3

    shape a:   level 1: a1  a2          the batch takes a1, a2 and a3 as the shares of levels 1
               level 2: a3              and 2 have it
    shape b:   level 1: b1
               level 2: b2
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from math import inf

from batcher.batching.lines import Line, SizedLine, fronts
from batcher.batching.part import Part
from batcher.batching.stride import StrideClocks, next_level


class _Group:
    """The parts of one shape.

    Attributes:
        rows: rows of all of them.
        lines: by level, in the order in which they are served; no line is empty.
    """

    __slots__ = ("lines", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.lines: dict[int, Line] = {}


class Levels:
    """Parts that wait for their turn.

    Attributes:
        rows: rows of all parts.
        nbytes: bytes of inputs of all parts.
    """

    def __init__(
        self,
        weight: Callable[[int], float] = lambda level: 1.0,
        ageing: float = inf,
        smaller_first: float = 0.0,
    ) -> None:
        """Hold nothing yet.

        Args:
            weight: gives the share of a level.
            ageing: seconds of waiting after which a level's share counts twice.
            smaller_first: seconds by which a part counts as arrived later, for each doubling of its
                rows; 0 keeps the order of arrival.
        """
        self.rows = 0
        self.nbytes = 0
        self._smaller_first = smaller_first
        self._stride = StrideClocks(weight, ageing)
        self._clocks = self._stride.clocks
        self._levels: dict[int, Line] = {}
        self._level_rows: dict[int, int] = {}
        self._groups: dict[Hashable, _Group] = {}

    def __len__(self) -> int:
        """How many parts wait."""
        return sum(len(line) for line in self._levels.values())

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parts that wait, level by level."""
        return self.in_turn()

    def in_turn(self) -> Iterator[Part]:
        """Iterate over the parts that wait for a turn of their own, level by level."""
        return chain.from_iterable(self._levels.values())

    def add(self, part: Part) -> None:
        """Let `part` wait."""
        group = self._groups.get(part.group)
        if group is None:
            group = self._groups[part.group] = _Group()
        line = self._levels.get(part.level)
        if line is None:
            # before the level counts as busy, or its own old clock would set the time
            self._stride.start(part.level, self._levels)
            line = self._levels[part.level] = self._new_line()
        group_line = group.lines.get(part.level)
        if group_line is None:
            group_line = group.lines[part.level] = self._new_line()
        line[part] = group_line[part] = None
        self._level_rows[part.level] = self._level_rows.get(part.level, 0) + part.rows
        group.rows += part.rows
        self.rows += part.rows
        self.nbytes += part.nbytes

    def remove(self, part: Part) -> bool:
        """Take `part` out, wherever it stands; return whether it was there."""
        line = self._levels.get(part.level)
        if line is None or part not in line:
            return False
        group = self._groups[part.group]
        del line[part], group.lines[part.level][part]
        self._level_rows[part.level] -= part.rows
        group.rows -= part.rows
        self.rows -= part.rows
        self.nbytes -= part.nbytes
        self._sweep(part.group, group)
        return True

    def take(self, parts: Sequence[Part], now: float) -> None:
        """Take out `parts`, of one group, as `pack` returned them, and advance their clocks."""
        if not parts:
            return
        group = self._groups[parts[0].group]
        taken = nbytes = level = 0
        clock = 0.0
        for part in parts:
            # parts of one level mostly follow one another, so look-ups are made once for them all
            if part.level != level:
                if level:
                    self._clocks[level] = clock
                level = part.level
                line, group_line = self._levels[level], group.lines[level]
                clock = self._clocks[level]
            del line[part], group_line[part]
            self._level_rows[level] -= part.rows
            taken += part.rows
            nbytes += part.nbytes
            clock += self._stride.stride(part, now)
        self._clocks[level] = clock
        group.rows -= taken
        self.rows -= taken
        self.nbytes -= nbytes
        self._sweep(parts[0].group, group)

    def head(self) -> Part | None:
        """Return the part whose turn it is, None if nothing waits."""
        if not self._levels:
            return None
        return next(iter(self._levels[next_level(self._levels, self._clocks)]))

    def rows_ahead(self, level: int, rows: int, now: float) -> int:
        """Return about how many rows are served before `rows` more of `level` that come `now`.

        rows_ahead = own + rows_of_others, where own are the rows of the same level that are served
        first. Example: weights 4 and 1, and 10 rows wait in each level. Before the 11th row of
        level 1 come the 10 of that level and min(10, 11 * 1 / 4) of level 2, rounded up: 13 rows.
        """
        waiting = self._level_rows.get(level, 0)
        line = self._levels.get(level)
        own = line.rows_ahead(rows, now) if isinstance(line, SizedLine) else waiting
        # the common case: no other level waits
        if self.rows == waiting:
            return own
        return own + self._stride.rows_of_others(own + 1, level, self._level_rows)

    def group_rows(self, group: Hashable) -> int:
        """Return how many rows of `group` wait."""
        found = self._groups.get(group)
        return found.rows if found else 0

    def group_of_at_least(self, rows: int) -> Hashable | None:
        """Return the group whose turn it is among those with at least `rows` rows, None if none."""
        full = (key for key, group in self._groups.items() if group.rows >= rows)
        return min(full, key=self._turn, default=None)

    def oldest(self) -> Part | None:
        """Return the part that has waited longest, None if nothing waits."""
        heads = chain.from_iterable(map(fronts, self._levels.values()))
        return min(heads, key=lambda part: part.arrival, default=None)

    def pack(self, group: Hashable, max_rows: int, now: float) -> list[Part]:
        """Return, without taking them, the next parts of `group` that fit into `max_rows`."""
        return self.pack_in_time(group, max_rows, now, -inf)[0]

    def pack_in_time(
        self, group: Hashable, max_rows: int, now: float, until: float, at_least_one: bool = False
    ) -> tuple[list[Part], list[Part]]:
        """Return, taking none, the parts that `pack` gives, and those whose deadline is too early.

        Parts with a deadline before `until` are left out of the first list. Order is kept: the
        first part that does not fit ends the batch, so a large request is not overtaken for ever.
        With `at_least_one` a part too large for any batch stands alone: memory has become short.
        """
        lines = self._groups[group].lines
        several = len(lines) > 1
        order = self._interleaved(lines, now, until) if several else next(iter(lines.values()))
        packed: list[Part] = []
        late: list[Part] = []
        for part in order:
            if part.rows > max_rows and (packed or not at_least_one):
                break
            if part.deadline < until:
                late.append(part)
                continue
            packed.append(part)
            max_rows -= part.rows
            if max_rows <= 0:
                break
        return packed, late

    def check_invariants(self) -> None:
        """Assert that the counters equal what stands in the lines; for tests, after every step."""
        parts = list(self.in_turn())
        grouped = [
            part
            for group in self._groups.values()
            for line in group.lines.values()
            for part in line
        ]
        assert set(parts) == set(grouped), "both lines hold the same parts"
        assert len(parts) == len(grouped) == len(set(parts)), "each part stands once"
        assert self.rows == sum(part.rows for part in parts)
        assert self.nbytes == sum(part.nbytes for part in parts)
        for level, rows in self._level_rows.items():
            assert rows == sum(part.rows for part in self._levels.get(level, ()))
        for key, group in self._groups.items():
            assert group.rows == sum(part.rows for line in group.lines.values() for part in line)
            assert all(part.group == key for line in group.lines.values() for part in line)
            assert all(group.lines.values()), "no empty line is kept"

    def _interleaved(self, lines: Mapping[int, Line], now: float, until: float) -> Iterator[Part]:
        """Yield the parts of several levels in the order that the clocks will have.

        Parts with a deadline before `until` will not be served, so they advance no clock.
        """
        rest = {level: iter(line) for level, line in lines.items()}
        # copies: nothing is taken here, and the batch may still be refused
        clocks = dict(self._clocks)
        while rest:
            level = next_level(rest, clocks)
            part = next(rest[level], None)
            if part is None:
                del rest[level]
            else:
                if part.deadline >= until:
                    clocks[level] += self._stride.stride(part, now)
                yield part

    def _turn(self, key: Hashable) -> tuple[float, int, float]:
        """Return by what groups are compared: the clock of their next level, and their oldest."""
        lines = self._groups[key].lines
        return min(
            (self._clocks[level], level, next(iter(line)).arrival) for level, line in lines.items()
        )

    def _sweep(self, key: Hashable, group: _Group) -> None:
        """Drop lines and groups that have become empty, so that no shape is remembered for ever."""
        for level in [level for level, line in group.lines.items() if not line]:
            del group.lines[level]
            if not self._levels[level]:
                del self._levels[level]
        if not group.lines:
            del self._groups[key]

    def _new_line(self) -> Line:
        return SizedLine(self._smaller_first) if self._smaller_first else OrderedDict()
