"""The bounded queue in which requests wait, one by one, until a batch is built at the moment a worker can start it.

It must find the next batch in time proportional to that batch, drop any request at once wherever it stands, keep requests
of different shapes apart and levels of priority in their shares. So each part stands in two ordered maps: in the line of
its level over all shapes, which says whose turn it is, and in the line of its level within its shape, from which a batch
is filled. Both allow removal anywhere at constant cost.

Levels interleave by stride scheduling: each level has a clock that advances by rows / weight when it is served, and the
level whose clock is furthest behind is next. Any positive weight gets its share, so nothing starves. Strict levels were
refused for that reason.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from itertools import chain
from math import ceil

from batcher.errors import QueueFull, TooLarge
from batcher.spec import Array

Line = OrderedDict["Part", None]


class Part:
    """Rows of one request that stay together: a whole request, or a piece of one larger than a batch.

    Attributes:
        inputs: name to array of shape (rows, *row shape).
        rows: its rows.
        nbytes: bytes of its inputs.
        group: shape key; a batch holds one group only.
        level: priority, 1 the highest.
        arrival: when it was queued, in seconds.
        deadline: when it is worthless, in seconds.
        owner: whatever the scheduler wants back with it.
    """

    __slots__ = ("arrival", "deadline", "group", "inputs", "level", "nbytes", "owner", "rows")

    def __init__(
        self,
        inputs: Mapping[str, Array],
        rows: int,
        nbytes: int,
        group: Hashable,
        level: int,
        arrival: float,
        deadline: float,
        owner: object = None,
    ) -> None:
        """Store the attributes; they are not changed afterwards."""
        self.inputs = inputs
        self.rows = rows
        self.nbytes = nbytes
        self.group = group
        self.level = level
        self.arrival = arrival
        self.deadline = deadline
        self.owner = owner


class _Group:
    __slots__ = ("lines", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.lines: dict[int, Line] = {}


class BatchQueue:
    """Parts that wait, bounded in rows and bytes.

    A part is in the queue from `add` until `remove`; it is never handed out twice.
    """

    def __init__(self, max_rows: int, max_bytes: int, weight: Callable[[int], float] = lambda level: 1.0) -> None:
        """Bound the queue by `max_rows` and `max_bytes`; `weight` gives the share of a level."""
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.nbytes = 0
        self._weight = weight
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
        return chain.from_iterable(self._levels.values())

    def check_room(self, rows: int, nbytes: int) -> None:
        """Check that a request of `rows` and `nbytes` has room.

        Raises:
            TooLarge: it would not fit into the empty queue.
            QueueFull: it does not fit now.
        """
        if rows > self.max_rows or nbytes > self.max_bytes:
            raise TooLarge(
                f"expected at most {self.max_rows} rows and {self.max_bytes} bytes, what the queue can ever hold; "
                f"got {rows} rows and {nbytes} bytes",
            )
        if self.rows + rows > self.max_rows or self.nbytes + nbytes > self.max_bytes:
            raise QueueFull(
                f"the queue is full: {self.rows} of {self.max_rows} rows, {self.nbytes} of {self.max_bytes} bytes",
            )

    def add(self, part: Part) -> None:
        """Queue `part`; the caller has checked that there is room."""
        group = self._groups.get(part.group)
        if group is None:
            group = self._groups[part.group] = _Group()
        line = self._levels.get(part.level)
        if line is None:
            line = self._open_level(part.level)
        inner = group.lines.get(part.level)
        if inner is None:
            inner = group.lines[part.level] = OrderedDict()
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

    def take(self, parts: Sequence[Part]) -> None:
        """Take out `parts`, which `pack` returned: of one group, and each the first of its line. Charge their levels."""
        if not parts:
            return
        group = self._groups[parts[0].group]
        taken = nbytes = level = 0
        for part in parts:
            if part.level != level:
                level = part.level
                line, inner, weight = self._levels[level], group.lines[level], self._weights[level]
            del line[part], inner[part]
            self._level_rows[level] -= part.rows
            taken += part.rows
            nbytes += part.nbytes
            self._clocks[level] += part.rows / weight
        group.rows -= taken
        self.rows -= taken
        self.nbytes -= nbytes
        self._sweep(parts[0].group, group)

    def head(self) -> Part | None:
        """Return the part whose turn it is, None if nothing waits."""
        if not self._levels:
            return None
        return next(iter(self._levels[self._next_level(self._levels, self._clocks)]))

    def rows_before(self, level: int) -> int:
        """Return about how many rows are served before one that is queued now at `level`: its level's, and others' shares."""
        own = self._level_rows.get(level, 0)
        if self.rows == own:
            return own
        weight = self._weight(level)
        others = ((other, rows) for other, rows in self._level_rows.items() if other != level)
        return own + sum(min(rows, ceil((own + 1) * self._weight(other) / weight)) for other, rows in others)

    def group_rows(self, group: Hashable) -> int:
        """Return how many rows of `group` wait."""
        found = self._groups.get(group)
        return found.rows if found else 0

    def group_of_at_least(self, rows: int) -> Hashable | None:
        """Return the group whose turn it is among those with at least `rows` rows; None if there is none."""
        full = (key for key, group in self._groups.items() if group.rows >= rows)
        return min(full, key=self._turn, default=None)

    def oldest(self) -> Part | None:
        """Return the part that has waited longest, None if nothing waits."""
        heads = (next(iter(line)) for line in self._levels.values())
        return min(heads, key=lambda part: part.arrival, default=None)

    def _turn(self, key: Hashable) -> tuple[float, int, float]:
        lines = self._groups[key].lines
        return min((self._clocks[level], level, next(iter(line)).arrival) for level, line in lines.items())

    def pack(self, group: Hashable, max_rows: int, skip: Collection[Part] = ()) -> list[Part]:
        """Return, without taking them, the next parts of `group` that fit into `max_rows`, leaving out `skip`.

        Order is kept: the first part that does not fit ends the batch, so a large request is never overtaken for ever. One that
        has become too large for any batch, since memory was short, stands alone.
        """
        lines = self._groups[group].lines
        order = self._interleaved(lines, skip) if len(lines) > 1 else next(iter(lines.values()))
        packed: list[Part] = []
        for part in order:
            if skip and part in skip:
                continue
            max_rows -= part.rows
            if max_rows < 0 and packed:
                break
            packed.append(part)
            if max_rows <= 0:
                break
        return packed

    def _interleaved(self, lines: Mapping[int, Line], skip: Collection[Part]) -> Iterator[Part]:
        """Yield the parts of several levels as their weights would have them served."""
        rest = {level: iter(line) for level, line in lines.items()}
        clocks = dict(self._clocks)
        while rest:
            level = self._next_level(rest, clocks)
            part = next(rest[level], None)
            if part is None:
                del rest[level]
            elif part not in skip:
                clocks[level] += part.rows / self._weights[level]
                yield part

    def check_invariants(self) -> None:
        """Assert that the counters equal what stands in the lines; for tests, after every step."""
        parts = [part for line in self._levels.values() for part in line]
        inner = [part for group in self._groups.values() for line in group.lines.values() for part in line]
        assert set(parts) == set(inner), "both lines hold the same parts"
        assert len(parts) == len(inner) == len(set(parts)), "each part stands once"
        assert self.rows == sum(part.rows for part in parts) <= self.max_rows
        assert self.nbytes == sum(part.nbytes for part in parts) <= self.max_bytes
        for level, rows in self._level_rows.items():
            assert rows == sum(part.rows for part in self._levels.get(level, ()))
        for key, group in self._groups.items():
            assert group.rows == sum(part.rows for line in group.lines.values() for part in line)
            assert all(part.group == key for line in group.lines.values() for part in line)
            assert all(group.lines.values()), "no empty line is kept"

    def _sweep(self, key: Hashable, group: _Group) -> None:
        """Drop lines and groups that have become empty, so that no shape is remembered for ever."""
        for level in [level for level, line in group.lines.items() if not line]:
            del group.lines[level]
            if not self._levels[level]:
                del self._levels[level]
        if not group.lines:
            del self._groups[key]

    def _open_level(self, level: int) -> Line:
        now = min((self._clocks[busy] for busy in self._levels), default=max(self._clocks.values(), default=0.0))
        self._clocks[level] = max(self._clocks.get(level, now), now)  # a level that was away has saved up nothing
        self._weights[level] = self._weight(level)
        line = self._levels[level] = OrderedDict()
        return line

    @staticmethod
    def _next_level(lines: Mapping[int, object], clocks: Mapping[int, float]) -> int:
        return min(lines, key=lambda level: (clocks[level], level))
