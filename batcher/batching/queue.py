"""The bounded queue in which requests wait until a worker can start a batch.

Beside the levels of priority, which take turns, stands the class `bulk`, which takes none. The
methods that tell of turns (`head`, `in_turn`, `oldest`, `pack`, ...) leave bulk requests out; a
policy that has free rows to fill looks at `bulk` itself.

The queue is bounded in rows and in bytes. A full queue refuses a request at once, so that its
client can go elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import inf

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cuts import RaggedCuts
from batcher.core.run_sizes import ANY_ROWS
from batcher.errors import QueueFull, TooLarge


class BatchQueue(Levels):
    """Parts that wait, bounded in rows and bytes. Reactor thread.

    A part is in the queue from `add` until `remove` or `take`, and is never handed out twice.

    Attributes:
        rows: rows of the parts that take turns.
        nbytes: bytes of inputs of the parts that take turns.
        max_rows: most rows that may wait, bulk included.
        max_bytes: most bytes of inputs that may wait, bulk included.
        bulk: the parts that take no turns.
        last_arrival: time in seconds at which the last part that takes turns was added; minus
            infinity before the first.
        taken_rows: rows of the parts that take turns that were taken for batches until now.
        run_sizes: with how many rows the model runs batches.
        cuts: cut batches of padded rows by their lengths; None where rows are not padded.
    """

    def __init__(
        self,
        max_rows: int,
        max_bytes: int,
        weight: Callable[[int], float] = lambda level: 1.0,
        *,
        ageing: float = inf,
        smaller_first: float = 0.0,
        bulk_level: int = 0,
        cuts: RaggedCuts | None = None,
    ) -> None:
        """Bound the queue by `max_rows` and `max_bytes`; parts of `bulk_level` take no turns.

        The other arguments are those of `Levels`.
        """
        super().__init__(weight, ageing, smaller_first)
        self.cuts = cuts
        self.run_sizes = ANY_ROWS
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.bulk = Levels(smaller_first=smaller_first)
        self.last_arrival, self.taken_rows = -inf, 0
        self._bulk_level = bulk_level

    def __len__(self) -> int:
        """How many parts wait."""
        return super().__len__() + len(self.bulk)

    def __iter__(self) -> Iterator[Part]:
        """Iterate over all parts that wait, level by level, bulk last."""
        return chain(self.in_turn(), self.bulk)

    def takes_turns(self, level: int) -> bool:
        """Return whether parts of `level` take turns: all levels but that of bulk."""
        return level != self._bulk_level

    def check_room(self, rows: int, nbytes: int, level: int = 1) -> None:
        """Check that a request of `rows` and `nbytes` has room.

        Raises:
            TooLarge: the request would not fit into the empty queue.
            QueueFull: the request does not fit now.
        """
        max_rows, max_bytes, whose = self.max_rows, self.max_bytes, ""
        # half of the queue is closed to bulk, or a flood of bulk would have others refused
        if level == self._bulk_level:
            max_rows, max_bytes, whose = max_rows // 2, max_bytes // 2, " for bulk"
        if rows > max_rows or nbytes > max_bytes:
            raise TooLarge(
                f"expected at most {max_rows} rows and {max_bytes} bytes, what the queue can ever "
                f"hold{whose}; "
                f"got {rows} rows and {nbytes} bytes",
            )
        waiting, waiting_bytes = self.rows + self.bulk.rows, self.nbytes + self.bulk.nbytes
        if waiting + rows > max_rows or waiting_bytes + nbytes > max_bytes:
            raise QueueFull(
                f"the queue is full{whose}: {waiting} of {max_rows} rows, {waiting_bytes} of "
                f"{max_bytes} bytes",
            )

    def add(self, part: Part) -> None:
        """Queue `part`; the caller has checked that there is room."""
        if part.level == self._bulk_level:
            self.bulk.add(part)
        else:
            self.last_arrival = part.arrival
            super().add(part)

    def remove(self, part: Part) -> bool:
        """Take `part` out, wherever it stands; return whether it was there."""
        return self.bulk.remove(part) if part.level == self._bulk_level else super().remove(part)

    def take(self, parts: Sequence[Part], now: float) -> None:
        """Take out `parts`, and advance the clocks of their levels.

        They are what `pack` returned for `now`, followed by what `bulk.pack` returned.
        """
        if self.bulk.rows and parts and parts[-1].level == self._bulk_level:
            self.bulk.take([part for part in parts if part.level == self._bulk_level], now)
            parts = [part for part in parts if part.level != self._bulk_level]
        waiting = self.rows
        super().take(parts, now)
        self.taken_rows += waiting - self.rows

    def bulk_rows(self, parts: Sequence[Part]) -> int:
        """Return how many rows of a batch of `parts` are bulk, whose parts are the last ones."""
        if parts[-1].level != self._bulk_level:
            return 0
        return sum([part.rows for part in parts if part.level == self._bulk_level])

    def rows_ahead(self, level: int, rows: int, now: float) -> int:
        """Return about how many rows are served before `rows` more of `level` that come `now`.

        For bulk that is all rows that wait.
        """
        if level == self._bulk_level:
            return self.rows + self.bulk.rows
        return super().rows_ahead(level, rows, now)

    def check_invariants(self) -> None:
        """Assert that the counters equal what stands in the lines; for tests, after every step."""
        super().check_invariants()
        self.bulk.check_invariants()
        assert self.rows + self.bulk.rows <= self.max_rows
        assert self.nbytes + self.bulk.nbytes <= self.max_bytes
        assert all(part.level == self._bulk_level for part in self.bulk)
        assert all(part.level != self._bulk_level for part in self.in_turn())
