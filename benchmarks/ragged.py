"""What cuts by length bring: the device's time for rows of unequal lengths, simulated.

A saturated device takes batches from a queue that is kept at so many rows, until all rows have
run. A batch takes base + rows * longest, in units of the time of one element. The lengths are
lognormal around 64, as of sentences, or 90 % short and 10 % long, as of queries and documents.

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
    "`overtaken`: the most rows that were sent before an older one, in full batches.",
)


def main() -> int:
    """Simulate each load and write the table."""
    rows = [
        measured(name, lengths, base)
        for name, lengths in (
            ("lognormal(64, 0.8)", _lognormal()),
            ("90 % 8..31, 10 % 256..511", _two_kinds()),
        )
        for base in BASES
    ]
    title = "Rows of unequal lengths: cuts by length"
    print(write_results("ragged", title, rows, REMARKS))
    return 0


def measured(name: str, lengths: np.ndarray[Any, Any], base: int) -> dict[str, object]:
    """Return one row of the table."""
    fifo = sorted_time(lengths, base, 1)
    seconds, padding, batches, overtaken = cut_time(lengths, base)
    by_sort = sorted_time(lengths, base, SORTED_BATCHES)
    return {
        "lengths": name,
        "base": base,
        "sort / fifo": round(by_sort / fifo, 3),
        "cuts / fifo": round(seconds / fifo, 3),
        "sort / cuts": round(by_sort / seconds, 2),
        "padding of cuts": round(padding, 3),
        "rows a batch": round(len(lengths) / batches, 1),
        "overtaken": round(overtaken / BATCH, 1),
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


def cut_time(lengths: np.ndarray[Any, Any], base: int) -> tuple[float, float, int, int]:
    """Return the time, padded over real elements, batches, and the most rows that overtook one."""
    plane = Plane()
    plane.base, plane.per_element = float(base), 1.0
    cuts, waiting, padding = RaggedCuts(plane), Levels(), Padding(SPEC)
    group = padding.group_of({"x": np.empty((1, 1), bool)})
    assert isinstance(group, RaggedGroup)

    def cost(rows: int, shape: Hashable) -> float:
        return plane.seconds(rows, shape.elements if isinstance(shape, RaggedGroup) else 0)

    coming = iter(lengths.tolist())
    total, padded, batches, overtaken = 0.0, 0, 0, 0
    while True:
        while waiting.rows < WAITING and (length := next(coming, None)) is not None:
            inputs = {"x": np.empty((1, length), bool)}
            waiting.add(Part(inputs, 1, length, group, 1, 0.0, inf))
        if not waiting.rows:
            return total, padded / int(lengths.sum()), batches, overtaken
        parts, _ = cuts.pack(waiting, group, BATCH, 0.0, cost)
        waiting.take(parts, 0.0)
        longest = max(padding.length_of(part.inputs) for part in parts)
        total += base + len(parts) * longest
        padded += len(parts) * longest
        batches += 1
        overtaken = max(overtaken, *(part.overtaken for part in parts))


def _lognormal() -> np.ndarray[Any, Any]:
    lengths = np.random.default_rng(1).lognormal(np.log(64), 0.8, ROWS)
    return np.clip(lengths, 1, 512).astype(int)


def _two_kinds() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(2)
    is_long = random.random(ROWS) < 0.1
    return np.where(is_long, random.integers(256, 512, ROWS), random.integers(8, 32, ROWS))


if __name__ == "__main__":
    sys.exit(main())
