"""What a model has counted lately: marks of its counters at moments, and the window between two.

Counters only grow, so what happened in a while is the difference of two marks. A mark is taken each
second by the service, when a model is ready, and when somebody asks. What is counted while requests
run is not touched: a mark reads what is there.

Only times with traffic tell why batches are as they are. So of a while without traffic only its
first and its last mark are kept, and the window begins and ends with traffic. Where there is much
of it, a pause separates one load from the next:

    marks          |  |  |  |  |                    |
    traffic            ## ## ##
    window            [  ]

The first interval with traffic is left out, and the last one once traffic has ended: traffic began
and ended somewhere within them. They count where no other interval has traffic next to them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

STEP_S = 1.0
"""Seconds between two marks."""

WINDOW_S = 15.0
"""Seconds of the longest window: long enough for means, short enough to follow the load."""

LEAST_INTERVALS = 4
"""Intervals with traffic after which one without ends the window: what came before was another
load. Fewer tell little, so where requests are rare the window goes on over pauses.
"""

MAX_MARKS = 32
"""Marks that are kept, of some 1 KB each: a window of them, and the while before."""


class Mark(NamedTuple):
    """The counters of one version of a model at a moment. Times are seconds.

    Attributes:
        time: the moment.
        loop: time for which the loop's thread has worked so far.
        running: rows that workers hold.
        batches: batches that were sent.
        rows: rows of these batches.
        ended: batches that came back.
        busy: time of these batches on their workers.
        parts: requests, or parts of large ones, whose batch came back.
        queued: time that these parts waited.
        requests: requests that have ended.
        pending: time from the arrival of these requests to their ends.
        expired: rows whose deadline passed, or would have.
        failed: batches that failed.
        real: elements of batches whose rows are padded, without padding.
        padded: the same with padding.
        flushes: batches that were sent, by reason.
        refused: rows that were refused on arrival, by reason.
    """

    time: float
    loop: float
    running: int
    batches: int
    rows: float
    ended: int
    busy: float
    parts: int
    queued: float
    requests: int
    pending: float
    expired: int
    failed: int
    real: int
    padded: int
    flushes: Mapping[str, int]
    refused: Mapping[str, int]


class History:
    """The marks of one version of a model, oldest first. Reactor thread."""

    def __init__(self) -> None:
        """Start without a mark."""
        self._marks: deque[Mark] = deque(maxlen=MAX_MARKS)

    def clear(self) -> None:
        """Forget all marks."""
        self._marks.clear()

    def note(self, mark: Mark) -> None:
        """Keep `mark`, unless the last one is younger than half a step."""
        marks = self._marks
        if marks and mark.time - marks[-1].time < STEP_S / 2:
            return
        if len(marks) > 1 and not _active(marks[-2], marks[-1]) and not _active(marks[-1], mark):
            marks.pop()
        marks.append(mark)

    def window(self, now: Mark) -> tuple[Mark, Mark] | None:
        """Return the marks around the last traffic, or None if there was none; `now` is the last.

        Without any mark before `now`, nothing is known.
        """
        marks = [*self._marks, now]
        active = [_active(*pair) for pair in pairwise(marks)]
        if True not in active:
            return None
        last = len(active) - 1 - active[::-1].index(True)
        first = _first(marks, active, last)
        ended, length = last < len(active) - 1, last - first
        if length > ended and active[first + 1] and not (first and active[first - 1]):
            first += 1
        if ended and length > 1 and active[last - 1]:
            last -= 1
        return marks[first], marks[last + 1]


def _first(marks: list[Mark], active: list[bool], last: int) -> int:
    """Return the interval with which the window begins that ends with the interval `last`."""
    first, count, earliest = last, 1, marks[last + 1].time - WINDOW_S
    for index in range(last - 1, -1, -1):
        if marks[index].time < earliest or (not active[index] and count >= LEAST_INTERVALS):
            break
        if active[index]:
            first, count = index, count + 1
    return first


def _active(before: Mark, after: Mark) -> bool:
    """Return whether anything happened between two marks."""
    return before.running > 0 or after.running > 0 or before[3:] != after[3:]
