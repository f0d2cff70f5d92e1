"""What cuts by length bring: the device's time for rows of unequal lengths, simulated.

A saturated device takes batches from a queue that is kept at so many rows, until all rows have
run. A batch takes base + rows * longest, in units of the time of one element. The lengths are
lognormal around 64, as of sentences, or 90 % short and 10 % long, as of queries and documents, or
all short but for an outlier now and then.

    fifo    batches in order of arrival
    sort    Infinity's rule: windows of eight batches are sorted and cut evenly
    cuts    `batching/ragged_cuts.py`, the code that serves, on its window of two batches

No model runs, and nothing is chosen: the seeds are fixed.
"""

from __future__ import annotations

import sys

# Run as a script: this folder, in which http.py would hide the library's own, leaves the path.
if __package__ in (None, ""):
    sys.path[0] = sys.path[0].rpartition("/")[0]

from collections.abc import Hashable
from math import inf
from typing import Any

import numpy as np

from batcher.batching.levels import Levels
from batcher.batching.part import Part
from batcher.batching.ragged_cost import Plane
from batcher.batching.ragged_cuts import RaggedCuts
from batcher.core.padding import Padding, RaggedGroup
from batcher.core.spec import ModelSpec, TensorSpec, datatype
from benchmarks.reporting import write_results

ROWS = 8_000
BATCH = 32
WAITING = 4 * BATCH
"""Rows that wait at each moment, as many as clients at work."""

SORTED_BATCHES = 8
BASES = (0, 64, 200, 1_500)
"""Times of a batch however small, in elements: of a model that is large, to one that is tiny."""

PADDED = TensorSpec("x", datatype("BOOL"), (-1,), pad=False)
SPEC = ModelSpec("ragged", "1", (PADDED,), (TensorSpec("y", datatype("FP32"), ()),))

REMARKS = (
    f"{ROWS:,} rows, batches of at most {BATCH}, {WAITING} waiting. `base` is the time of a batch "
    "however small, in elements.",
    "Times are shares of the time of `fifo`; `padding` is padded over real elements.",
    "A row's turn is the batch in which it would go in order of arrival, with as many rows in each "
    "batch. `late`: the most batches that were sent between a row's turn and the row; `late rows`: "
    "the most rows, in full batches; `late longest`: as `late`, of rows that were the longest that "
    "waited from their turn on.",
)


def main() -> int:
    """Simulate each load and write the table."""
    rows = [
        measured(name, lengths, base)
        for name, lengths in (
            ("lognormal(64, 0.8)", _lognormal()),
            ("90 % 8..31, 10 % 256..511", _two_kinds()),
            ("4..15, and 0.5 % 512", _outliers()),
        )
        for base in BASES
    ]
    title = "Rows of unequal lengths: cuts by length"
    print(write_results("ragged", title, rows, REMARKS))
    return 0


def measured(name: str, lengths: np.ndarray[Any, Any], base: int) -> dict[str, object]:
    """Return one row of the table."""
    fifo = sorted_time(lengths, base, 1)
    flood = Flood(lengths, base)
    by_sort = sorted_time(lengths, base, SORTED_BATCHES)
    return {
        "lengths": name,
        "base": base,
        "sort / fifo": round(by_sort / fifo, 3),
        "cuts / fifo": round(flood.seconds / fifo, 3),
        "sort / cuts": round(by_sort / flood.seconds, 2),
        "padding of cuts": round(flood.padded / int(lengths.sum()), 3),
        "rows a batch": round(len(lengths) / flood.batches, 1),
        "late": flood.late,
        "late rows": round(flood.late_rows / BATCH, 1),
        "late longest": flood.late_longest,
    }


def sorted_time(lengths: np.ndarray[Any, Any], base: int, window: int) -> float:
    """Return the time of all rows, where windows of so many batches are sorted."""
    total = 0.0
    for start in range(0, len(lengths), window * BATCH):
        piece = np.sort(lengths[start : start + window * BATCH])
        for first in range(0, len(piece), BATCH):
            batch = piece[first : first + BATCH]
            total += base + len(batch) * int(batch[-1])
    return total


class Flood:
    """A saturated device whose batches are cut by lengths.

    Attributes:
        seconds: time of all rows.
        padded: elements of all batches, padding included.
        batches: how many were sent.
        late, late_rows, late_longest: as in the table, `late_rows` in rows.
    """

    def __init__(self, lengths: np.ndarray[Any, Any], base: int) -> None:
        """Run rows of all `lengths`."""
        self.seconds, self.padded, self.batches = 0.0, 0, 0
        self.late = self.late_rows = self.late_longest = 0
        self._longest: Part | None = None
        self._longest_for = 0  # batches for which it has been that
        self._plane, self._padding = Plane(), Padding(SPEC)
        self._plane.base, self._plane.per_element = float(base), 1.0
        cuts, waiting, places = RaggedCuts(self._plane), Levels(), dict[Part, int]()
        group = self._padding.group_of({"x": np.empty((1, 1), bool)})
        assert isinstance(group, RaggedGroup)
        coming = iter(lengths.tolist())
        sent = 0
        while True:
            while waiting.rows < WAITING and (length := next(coming, None)) is not None:
                part = Part({"x": np.empty((1, length), bool)}, 1, length, group, 1, 0.0, inf)
                waiting.add(part)
                places[part] = len(places) + 1
            if not waiting.rows:
                return
            self._note_longest(max(waiting, key=self._length))
            parts, _ = cuts.pack(waiting, group, BATCH, 0.0, self._cost)
            waiting.take(parts, 0.0)
            self._note(parts)
            self.late_rows = max(self.late_rows, sent - min(places[part] for part in parts))
            sent += len(parts)

    def _note_longest(self, part: Part) -> None:
        """Note that `part` is the longest that waits for the next batch."""
        self._longest_for = self._longest_for + 1 if part is self._longest else 0
        self._longest = part

    def _note(self, parts: list[Part]) -> None:
        elements = len(parts) * max(map(self._length, parts))
        self.seconds += self._plane.base + elements
        self.padded += elements
        self.batches += 1
        self.late = max(self.late, *(part.overdue for part in parts))
        longest = self._longest
        if longest and longest in parts and longest.overdue <= self._longest_for:
            self.late_longest = max(self.late_longest, longest.overdue)

    def _length(self, part: Part) -> int:
        return self._padding.lengths_of(part.inputs)[0]

    def _cost(self, rows: int, shape: Hashable) -> float:
        return self._plane.seconds(rows, shape.elements if isinstance(shape, RaggedGroup) else 0)


def _lognormal() -> np.ndarray[Any, Any]:
    lengths = np.random.default_rng(1).lognormal(np.log(64), 0.8, ROWS)
    return np.clip(lengths, 1, 512).astype(int)


def _two_kinds() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(2)
    is_long = random.random(ROWS) < 0.1
    return np.where(is_long, random.integers(256, 512, ROWS), random.integers(8, 32, ROWS))


def _outliers() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(3)
    return np.where(random.random(ROWS) < 0.005, 512, random.integers(4, 16, ROWS))


if __name__ == "__main__":
    sys.exit(main())
