"""Parts in the order in which they are served: levels in their shares, within a level by its line.

It must find the next batch in time proportional to that batch, drop any request at once wherever it
stands, keep requests of different shapes apart and levels of priority in their shares. So each part
stands in two lines: in that of its level over all shapes, which says whose turn it is, and in that
of its level within its shape, from which a batch is filled. Both allow removal anywhere at constant
cost.

Levels interleave by stride scheduling: each level has a clock that advances by rows / weight when
it is served, and the level whose clock is furthest behind is next. Any positive weight gets its
share, so nothing starves. Strict levels were refused for that reason.

Shares age: a part that waited w when it is served advances the clock by 1 + w / ageing times less.
Who waits as long as the others gets the share of its weight; who waits longer gets more, so that of
weights as uneven as 1000 to 1 none lets a request wait out of all proportion. Refused: letting an
old part pass as one of the level above, which takes the steps of the levels for those of waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from math import ceil, inf

from batcher.batching.lines import Line, SizedLine, fronts
from batcher.batching.part import Part


class _Group:
    __slots__ = ("lines", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.lines: dict[int, Line] = {}


class Levels:
    """Parts that wait for their turn.

    Attributes:
        rows: of all parts.
        nbytes: of all parts.
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
            smaller_first: seconds by which a part counts as come later for each doubling of its
                rows.
        """
        self.rows = 0
        self.nbytes = 0
        self._weight = weight
        self._ageing = ageing
        self._smaller_first = smaller_first
        self._levels: dict[int, Line] = {}
        self._level_rows: dict[int, int] = {}
        self._groups: dict[Hashable, _Group] = {}
        self._clocks: dict[int, float] = {}
        self._weights: dict[int, float] = {}

    def __len__(self) -> int:
        """How many parts wait."""
        return sum(len(line) for line in self._levels.values())

    def __iter__(self) -> Iterator[Part]:
        """Iterate over what waits, level by level."""
        return self.in_turn()

    def in_turn(self) -> Iterator[Part]:
        """Iterate over what waits for a turn of its own, level by level."""
        return chain.from_iterable(self._levels.values())

    def add(self, part: Part) -> None:
        """Let `part` wait."""
        group = self._groups.get(part.group)
        if group is None:
            group = self._groups[part.group] = _Group()
        line = self._levels.get(part.level)
        if line is None:
            line = self._open_level(part.level)
        inner = group.lines.get(part.level)
        if inner is None:
            inner = group.lines[part.level] = self._new_line()
        line[part] = inner[part] = None
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
        """Take out `parts`, which `pack` returned for `now`: of one group. Charge their levels."""
        if not parts:
            return
        group = self._groups[parts[0].group]
        taken = nbytes = level = 0
        clock = 0.0
        for part in parts:
            if part.level != level:
                if level:
                    self._clocks[level] = clock
                level = part.level
                line, inner, clock = self._levels[level], group.lines[level], self._clocks[level]
            del line[part], inner[part]
            self._level_rows[level] -= part.rows
            taken += part.rows
            nbytes += part.nbytes
            clock += self._charge(part, now)
        self._clocks[level] = clock
        group.rows -= taken
        self.rows -= taken
        self.nbytes -= nbytes
        self._sweep(parts[0].group, group)

    def head(self) -> Part | None:
        """Return the part whose turn it is, None if nothing waits."""
        if not self._levels:
            return None
        return next(iter(self._levels[self._next_level(self._levels, self._clocks)]))

    def rows_before(self, level: int, rows: int, now: float) -> int:
        """Return about how many rows are served before `rows` more of `level` that come `now`.

        Its level's, others' shares.
        """
        line = self._levels.get(level)
        own = (
            line.rows_before(rows, now)
            if isinstance(line, SizedLine)
            else self._level_rows.get(level, 0)
        )
        if self.rows == self._level_rows.get(level, 0):
            return own
        weight = self._weight(level)
        others = ((other, waiting) for other, waiting in self._level_rows.items() if other != level)
        return own + sum(
            min(waiting, ceil((own + 1) * self._weight(other) / weight))
            for other, waiting in others
        )

    def group_rows(self, group: Hashable) -> int:
        """Return how many rows of `group` wait."""
        found = self._groups.get(group)
        return found.rows if found else 0

    def group_of_at_least(self, rows: int) -> Hashable | None:
        """Return the group whose turn it is among those with at least `rows` rows.

        None if there is none.
        """
        full = (key for key, group in self._groups.items() if group.rows >= rows)
        return min(full, key=self._turn, default=None)

    def oldest(self) -> Part | None:
        """Return the part that has waited longest, None if nothing waits."""
        heads = chain.from_iterable(map(fronts, self._levels.values()))
        return min(heads, key=lambda part: part.arrival, default=None)

    def _turn(self, key: Hashable) -> tuple[float, int, float]:
        lines = self._groups[key].lines
        return min(
            (self._clocks[level], level, next(iter(line)).arrival) for level, line in lines.items()
        )

    def pack(self, group: Hashable, max_rows: int, now: float) -> list[Part]:
        """Return, without taking them, the next parts of `group` that fit into `max_rows`."""
        return self.pack_in_time(group, max_rows, now, -inf)[0]

    def pack_in_time(
        self, group: Hashable, max_rows: int, now: float, until: float, at_least_one: bool = False
    ) -> tuple[list[Part], list[Part]]:
        """Return, taking none, what `pack` does of parts that can wait `until` then, and those in their way that cannot.

        Order is kept: the first part that does not fit ends the batch, so a large request is never
        overtaken for ever. With `at_least_one` it stands alone: it has become too large for any
        batch, since memory was short.
        """
        lines = self._groups[group].lines
        order = (
            self._interleaved(lines, now, until) if len(lines) > 1 else next(iter(lines.values()))
        )
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

    def _interleaved(self, lines: Mapping[int, Line], now: float, until: float) -> Iterator[Part]:
        """Yield the parts of several levels as their weights, and how long they waited, would have them served.

        Those that cannot wait `until` then are not served: their levels are not charged for them.
        """
        rest = {level: iter(line) for level, line in lines.items()}
        clocks = dict(self._clocks)
        while rest:
            level = self._next_level(rest, clocks)
            part = next(rest[level], None)
            if part is None:
                del rest[level]
            else:
                if part.deadline >= until:
                    clocks[level] += self._charge(part, now)
                yield part

    def check_invariants(self) -> None:
        """Assert that the counters equal what stands in the lines; for tests, after every step."""
        parts = [part for line in self._levels.values() for part in line]
        inner = [
            part
            for group in self._groups.values()
            for line in group.lines.values()
            for part in line
        ]
        assert set(parts) == set(inner), "both lines hold the same parts"
        assert len(parts) == len(inner) == len(set(parts)), "each part stands once"
        assert self.rows == sum(part.rows for part in parts)
        assert self.nbytes == sum(part.nbytes for part in parts)
        for level, rows in self._level_rows.items():
            assert rows == sum(part.rows for part in self._levels.get(level, ()))
        for key, group in self._groups.items():
            assert group.rows == sum(part.rows for line in group.lines.values() for part in line)
            assert all(part.group == key for line in group.lines.values() for part in line)
            assert all(group.lines.values()), "no empty line is kept"

    def _charge(self, part: Part, now: float) -> float:
        """Return by how much serving `part` advances the clock of its level."""
        waited = max(now - part.arrival, 0.0)  # the clock may have been set back
        return part.rows / (self._weights[part.level] * (1.0 + waited / self._ageing))

    def _sweep(self, key: Hashable, group: _Group) -> None:
        """Drop lines and groups that have become empty, so that no shape is remembered for ever."""
        for level in [level for level, line in group.lines.items() if not line]:
            del group.lines[level]
            if not self._levels[level]:
                del self._levels[level]
        if not group.lines:
            del self._groups[key]

    def _open_level(self, level: int) -> Line:
        now = min(
            (self._clocks[busy] for busy in self._levels),
            default=max(self._clocks.values(), default=0.0),
        )
        self._clocks[level] = max(
            self._clocks.get(level, now), now
        )  # a level that was away has saved up nothing
        self._weights[level] = self._weight(level)
        line = self._levels[level] = self._new_line()
        return line

    def _new_line(self) -> Line:
        return SizedLine(self._smaller_first) if self._smaller_first else OrderedDict()

    @staticmethod
    def _next_level(lines: Mapping[int, object], clocks: Mapping[int, float]) -> int:
        return min(lines, key=lambda level: (clocks[level], level))
